#!/usr/bin/env bash
# What only a card can show, from binaries built elsewhere; neither cargo nor a toolkit is needed, only the driver and
# NVRTC (found on the system, or named by CODELSI_NVRTC).
#
#   bash tools/gpu_check.sh FOLDER KERNELCHECK [BENCH|- [CODELSI]]
#
# KERNELCHECK  target/release/kernelcheck, from `cargo build --release -p codelsi-kernelcheck`
# BENCH        optional: the binary that `cargo bench -p codelsi-benches --bench ops --features cublaslt --no-run` names
# CODELSI      optional: target/release/codelsi
#
# In this order: the same kernels on the card and on the software GPU, compared; every case against its reference;
# every op against the card's roofs; the bench. Then, with CODELSI, real shapes: a model of 13B is made in
# FOLDER/model (or of the shape that CODELSI_SHAPE names), planned, loaded, prefilled, decoded and trained; trained
# again through NCCL with one rank; run by two ranks with half of the weights each (shard) and with half of each layer
# (tensor) on one card that they share (through host memory: a check, no figure); and where there are two cards, on
# both, in all three layouts. FOLDER gets a log of each and gpu_check.json: card, driver, date, commit (of this checkout, or what
# CODELSI_COMMIT says) and all figures, beside each its aim. Exit 1 when a step failed, 2 for bad usage.
set -euo pipefail

refuse() {
  echo "gpu_check: $1" >&2
  exit "${2:-2}"
}

[ $# -ge 2 ] && [ $# -le 4 ] || refuse "usage: bash tools/gpu_check.sh FOLDER KERNELCHECK [BENCH|- [CODELSI]]"
folder=$1
for binary in "${@:2}"; do
  [ "$binary" != - ] || continue
  [ -f "$binary" ] && [ -x "$binary" ] || refuse "$binary is no program: build it and name its path"
done
kernelcheck=$(realpath "$2")
bench=
[ "${3:--}" = - ] || bench=$(realpath "$3")
codelsi=${4:+$(realpath "$4")}

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

# step NAME AIM COMMAND..: runs it, keeps its log, and adds its last line to the result if that is an object. AIM is an
# object of the figures that this step should reach, or null.
step() {
  local name=$1 aim=$2 log=$folder/$1.log status=0 last
  shift 2
  echo "== $name"
  [ "$aim" = null ] || echo "aim: $aim"
  "$@" 2>&1 | tee "$log" || status=$?
  last=$(tail -n 1 "$log")
  case $last in
    '{'*'}') ;;
    *)
      last=null
      [ "$status" -ne 0 ] || status=1
      ;;
  esac
  printf ',\n"%s":{"exit":%d,"aim":%s,"result":%s}' "$name" "$status" "$aim" "$last" >>"$part"
  [ "$status" -eq 0 ] || {
    ok=false
    echo "gpu_check: $name failed, see $log" >&2
  }
}

step against_emulated null "$kernelcheck" check --device cuda --against emulated --json
step check null "$kernelcheck" check --device cuda --json
step roofline null "$kernelcheck" roofline --json
[ -z "$bench" ] || step bench null env CODELSI_BENCH_DEVICE=cuda CRITERION_HOME="$folder/criterion" "$bench" --bench

# The figures to beat, for LoRA on Code Llama 13B where one is known for the card.
case $card in
  *A100*) train=3900 ;;
  *H200*) train=11500 ;;
  *) train=null ;;
esac
twice=null
[ "$train" = null ] || twice=$((train * 196 / 100)) # two cards lose less than 2 %

real_shapes() {
  local model=$folder/model cards
  local bench=("$codelsi" bench --model "$model" --device cuda --json)
  local training=(--prefill 0 --decode 0 --train 4096)
  [ -e "$model/config.json" ] ||
    step mkmodel null "$codelsi" mkmodel --shape "${CODELSI_SHAPE:-code-llama-13b}" --out "$model" --json
  step plan null "$codelsi" plan --model "$model" --device cuda --json
  step inference '{"load_gb_per_s":20,"decode_roof_share":0.85}' "${bench[@]}" --prefill 4096 --decode 256 --train 0
  step without_graphs null "${bench[@]}" --prefill 0 --decode 256 --train 0 --no-graphs
  step training "{\"train_tokens_per_s\":$train}" "${bench[@]}" "${training[@]}"
  step nccl_one_rank "{\"train_tokens_per_s\":$train}" env RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 \
    MASTER_ADDR=127.0.0.1 MASTER_PORT=29511 "${bench[@]}" "${training[@]}"
  cards=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | wc -l)
  # The card that both ranks see has room for half of what each would plan for.
  step shard_one_card null env CUDA_VISIBLE_DEVICES=0 "${bench[@]}" --prefill 64 --decode 2 --train 512 --repeat 1 \
    --checkpointing all --ranks 2 --layout shard
  step tensor_one_card null env CUDA_VISIBLE_DEVICES=0 "${bench[@]}" --prefill 64 --decode 16 --train 512 --repeat 1 \
    --checkpointing all --ranks 2 --layout tensor
  if [ "$cards" -ge 2 ]; then
    step two_ranks "{\"train_tokens_per_s\":$twice}" "${bench[@]}" "${training[@]}" --ranks 2
    step shard_two_cards "{\"train_tokens_per_s\":$twice}" "${bench[@]}" "${training[@]}" --ranks 2 --layout shard
    step tensor_two_cards null "${bench[@]}" --prefill 4096 --decode 256 --train 4096 --ranks 2 --layout tensor
  fi
}
[ -z "$codelsi" ] || real_shapes

printf ',\n"ok":%s}\n' "$ok" >>"$part"
mv "$part" "$result"
echo "left $result"
[ "$ok" = true ]
