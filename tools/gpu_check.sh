#!/usr/bin/env bash
# What only a card can show, from binaries built elsewhere; neither cargo nor a toolkit is needed, only the driver and
# NVRTC (found on the system, or named by CODELSI_NVRTC).
#
#   bash tools/gpu_check.sh FOLDER KERNELCHECK [BENCH]
#
# KERNELCHECK  target/release/kernelcheck, from `cargo build --release -p codelsi-tools --bin kernelcheck`
# BENCH        optional: the binary that `cargo bench -p codelsi-benches --bench ops --features cublaslt --no-run` names
#
# In this order: the same kernels on the card and on the software GPU, compared; every case against its reference; every
# op against the card's roofs; the bench. FOLDER gets a log of each and gpu_check.json: card, driver, date, commit (of
# this checkout, or what CODELSI_COMMIT says) and all figures. Exit 1 when a step failed, 2 for bad usage.
set -euo pipefail

refuse() {
  echo "gpu_check: $1" >&2
  exit "${2:-2}"
}

[ $# -eq 2 ] || [ $# -eq 3 ] || refuse "usage: bash tools/gpu_check.sh FOLDER KERNELCHECK [BENCH]"
folder=$1
for binary in "${@:2}"; do
  [ -f "$binary" ] && [ -x "$binary" ] || refuse "$binary is no program: build it and name its path"
done
kernelcheck=$(realpath "$2")
bench=${3:+$(realpath "$3")}

query() { nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader 2>/dev/null | tr -d '\\"'; }
command -v nvidia-smi >/dev/null || refuse "no NVIDIA driver here (nvidia-smi was not found): run this where the card is" 1
card=$(query name) && [ -n "$card" ] || refuse "no card here (nvidia-smi lists none): run this where the card is" 1
driver=$(query driver_version)
commit=${CODELSI_COMMIT:-$(git -C "$(dirname "$0")" rev-parse HEAD 2>/dev/null || echo unknown)}
date=$(date -u +%Y-%m-%dT%H:%M:%SZ)

mkdir -p "$folder" 2>/dev/null || refuse "$folder cannot be made: name a folder that can be written"
result=$folder/gpu_check.json
part=$result.part
trap 'rm -f "$part"' EXIT
ok=true
printf '{"card":"%s","driver":"%s","date":"%s","commit":"%s"' "$card" "$driver" "$date" "$commit" >"$part" ||
  refuse "$folder cannot be written"
echo "$card, driver $driver, commit $commit"

# step NAME COMMAND..: runs it, keeps its log, and adds its last line to the result if that is an object.
step() {
  local name=$1 log=$folder/$1.log status=0 last
  shift
  echo "== $name"
  "$@" 2>&1 | tee "$log" || status=$?
  last=$(tail -n 1 "$log")
  case $last in
    '{'*'}') ;;
    *)
      last=null
      [ "$status" -ne 0 ] || status=1
      ;;
  esac
  printf ',\n"%s":{"exit":%d,"result":%s}' "$name" "$status" "$last" >>"$part"
  [ "$status" -eq 0 ] || {
    ok=false
    echo "gpu_check: $name failed, see $log" >&2
  }
}

step against_emulated "$kernelcheck" check --device cuda --against emulated --json
step check "$kernelcheck" check --device cuda --json
step roofline "$kernelcheck" roofline --json
[ -z "$bench" ] || step bench env CODELSI_BENCH_DEVICE=cuda CRITERION_HOME="$folder/criterion" "$bench" --bench

printf ',\n"ok":%s}\n' "$ok" >>"$part"
mv "$part" "$result"
echo "left $result"
[ "$ok" = true ]
