#!/usr/bin/env bash
# The test command: installs what the tests need into .tools (where it can), then runs every test.
#
#   bash tools/test.sh            all tests
#   CODELSI_FULL=1 …              also the slow ones (every judge case, long fuzz runs)
#   CODELSI_REQUIRE=all …         whatever is absent is a failure, not a skip
set -euo pipefail
cd "$(dirname "$0")/.."

# TypeScript, pinned: the `tsc` judge's rule names this version.
typescript=5.3.3
tsc=.tools/typescript/node_modules/typescript/bin/tsc
if command -v npm >/dev/null && ! grep -qs "\"version\": \"$typescript\"" "$(dirname "$tsc")/../package.json"; then
  echo "installing typescript@$typescript into .tools"
  npm install --silent --no-audit --no-fund --prefix .tools/typescript "typescript@$typescript" ||
    echo "could not install typescript@$typescript: tests of the tsc judge will say that they were skipped"
fi
[ -f "$tsc" ] && export CODELSI_TSC="${CODELSI_TSC:-$PWD/$tsc}"

# NVRTC, pinned: CUDA kernels are compiled and run on the software GPU. No toolkit, driver or card is needed.
nvrtc=13.0.88
has_nvrtc() { ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so\.1[23]' || compgen -G '/usr/local/cuda/lib64/libnvrtc.so.1[23]*' >/dev/null; }
if [ -z "${CODELSI_NVRTC:-}" ] && ! has_nvrtc && ! compgen -G '.tools/nvrtc/nvidia/*/lib/libnvrtc.so.1*' >/dev/null; then
  echo "installing nvidia-cuda-nvrtc==$nvrtc into .tools/nvrtc"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target .tools/nvrtc "nvidia-cuda-nvrtc==$nvrtc" ||
    echo "could not install nvidia-cuda-nvrtc==$nvrtc: tests of CUDA kernels will say that they were skipped"
fi

# A second NVRTC: what it spills or calls slow is a failure too.
second_nvrtc=13.2.86
if ! compgen -G '.tools/nvrtc-13.2/nvidia/*/lib/libnvrtc.so.1*' >/dev/null; then
  echo "installing nvidia-cuda-nvrtc==$second_nvrtc into .tools/nvrtc-13.2"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target .tools/nvrtc-13.2 "nvidia-cuda-nvrtc==$second_nvrtc" ||
    echo "could not install nvidia-cuda-nvrtc==$second_nvrtc: the test of the second compiler will say that it was skipped"
fi

# Other people's readers and clients, pinned: what is exported and served is put to them.
python_packages=(gguf==0.19.0 openai==3.57.0 ollama==0.6.3)
if ! grep -qs "${python_packages[*]}" .tools/python/installed; then
  echo "installing ${python_packages[*]} into .tools/python"
  python3 -m pip install --quiet --disable-pip-version-check --target .tools/python "${python_packages[@]}" &&
    echo "${python_packages[*]}" > .tools/python/installed ||
    echo "could not install ${python_packages[*]}: tests of exports and clients will say that they were skipped"
fi
node_packages=(openai@6.49.0 ollama@0.6.4)
if command -v npm >/dev/null && ! grep -qs "${node_packages[*]}" .tools/node/installed; then
  echo "installing ${node_packages[*]} into .tools/node"
  npm install --silent --no-audit --no-fund --prefix .tools/node "${node_packages[@]}" &&
    echo "${node_packages[*]}" > .tools/node/installed ||
    echo "could not install ${node_packages[*]}: tests of clients will say that they were skipped"
fi

cargo test --release --workspace "$@"
