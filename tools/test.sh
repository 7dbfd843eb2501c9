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

cargo test --release --workspace "$@"
