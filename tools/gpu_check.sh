#!/usr/bin/env bash
# The first minutes on a card: what only a card can show, the most telling things first, from binaries built elsewhere.
# Neither cargo nor a toolkit is needed, only the driver and NVRTC (found on the system, or named by CODELSI_NVRTC).
#
#   bash tools/gpu_check.sh FOLDER [--bin DIR] [options]
#
#   --bin DIR        the binaries [default: target/release]: kernelcheck, and where they are there parity, codelsi and the
#                    benches peers and ops (`cargo bench -p codelsi-benches --features cublaslt --no-run` prints where
#                    cargo leaves those: copy them under these names)
#   --minutes N      budget [default: 8]; a second call with the same FOLDER goes on where the first stopped
#   --reference DIR  cases for parity, each a folder (tools/reference.py makes them)
#   --shape NAME     the real shape [default: code-llama-13b], with random weights made on the card
#   --model DIR      also load this model's files; a model of the shape is written there if there is none
#   --device NAME    [default: cuda]; emulated:sm_80 tries the script without a card, with nothing timed
#   --ops OP,OP      these ops alone
#
# In this order: identical PTX on the card and on the software GPU, compared, an op at a time; every case against its
# reference; parity; products, attention and norms beside cuBLASLt and PyTorch, in turns; the real shape with four layers,
# then whole: prefill, decode, a training step; every op against the card's roofs, and beside what `kernelcheck predict` says of it; the
# bench; ranks.
#
# Each step leaves FOLDER/steps/NAME.json and .log at once, and one that fails stops no other; a step takes a third of the
# budget at most. What has run with the same programs is not run again. FOLDER/gpu_check.json holds card, driver, date,
# commit (of this checkout, or what CODELSI_COMMIT says) and all figures, beside each its aim.
# Exit 0 when all passed, 1 when a step failed, 2 for bad usage, 3 when steps are left for the next call.
set -euo pipefail

refuse() {
  echo "gpu_check: $1" >&2
  exit "${2:-2}"
}

folder= bin=target/release minutes=8 reference= shape=code-llama-13b model= device=cuda ops=
while [ $# -gt 0 ]; do
  case $1 in
    --bin | --minutes | --reference | --shape | --model | --device | --ops)
      [ $# -ge 2 ] || refuse "$1 needs a value"
      declare "${1#--}=$2"
      shift 2
      ;;
    -*) refuse "$1 is no option; usage: bash tools/gpu_check.sh FOLDER [--bin DIR] [--minutes N] .." ;;
    *)
      [ -z "$folder" ] || refuse "$1: only one FOLDER"
      folder=$1
      shift
      ;;
  esac
done
[ -n "$folder" ] || refuse "usage: bash tools/gpu_check.sh FOLDER [--bin DIR] [--minutes N] .."
[[ $minutes =~ ^[0-9]{1,4}(\.[0-9]{1,2})?$ ]] || refuse "--minutes $minutes: a number of minutes, such as 8 or 2.5"
budget=$(awk "BEGIN { print int(60 * $minutes) }")
[ "$budget" -ge 3 ] || refuse "--minutes $minutes: at least 0.05"
program() { [ -f "$bin/$1" ] && [ -x "$bin/$1" ] && realpath "$bin/$1" || true; }
kernelcheck=$(program kernelcheck) parity=$(program parity) codelsi=$(program codelsi) peers=$(program peers) bench=$(program ops)
[ -n "$kernelcheck" ] || refuse "$bin holds no program kernelcheck: build it (cargo build --release) and name its folder by --bin"
[ -z "$reference" ] || [ -d "$reference" ] || refuse "$reference is no folder of reference cases"

query() { nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader 2>/dev/null | tr -d '\\"'; }
card=$device driver=none cards=1
if [[ $device == cuda* ]]; then
  command -v nvidia-smi >/dev/null || refuse "no NVIDIA driver here (nvidia-smi was not found): run this where the card is" 1
  card=$(query name) && [ -n "$card" ] || refuse "no card here (nvidia-smi lists none): run this where the card is" 1
  driver=$(query driver_version)
  cards=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | wc -l)
fi
commit=${CODELSI_COMMIT:-$(git -C "$(dirname "$0")" rev-parse HEAD 2>/dev/null || echo unknown)}

steps=$folder/steps
mkdir -p "$steps" 2>/dev/null || refuse "$folder cannot be made: name a folder that can be written"
echo "$card, driver $driver, commit $commit, $minutes minutes"
for name in parity codelsi peers ops; do
  [ -n "$(program $name)" ] || echo "no $name in $bin: its steps are left out"
done
[ -z "$parity" ] || [ -n "$reference" ] || echo "no --reference: parity is left out"

end=$((SECONDS + budget))
names=() left=() failed=()

# step NAME AIM COMMAND..: runs it within the budget, and keeps its log and its result: its last line, if that is an object.
# AIM is an object of the figures that this step should reach, or null.
step() {
  local name=$1 aim=$2 status=0 limit=$((budget / 3)) began=$SECONDS last key
  shift 2
  names+=("$name")
  # The same programs with the same arguments need not run twice.
  key=$({ echo "$card $*" && for word in "$@"; do [ ! -f "$word" ] || sha256sum <"$word"; done; } | sha256sum | cut -c1-16)
  if grep -qs "\"key\":\"$key\"" "$steps/$name.json"; then
    grep -q '"exit":0,' "$steps/$name.json" || failed+=("$name")
    return 0
  fi
  if [ $((end - SECONDS)) -le 2 ]; then
    left+=("$name")
    return 0
  fi
  [ $((end - SECONDS)) -ge "$limit" ] || limit=$((end - SECONDS))
  echo "== $name"
  [ "$aim" = null ] || echo "aim: $aim"
  timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$steps/$name.log" || status=${PIPESTATUS[0]}
  if [ "$status" -ge 124 ] && [ $((end - SECONDS)) -le 2 ]; then
    left+=("$name")
    return 0
  fi
  last=$(tail -n 1 "$steps/$name.log")
  case $last in
    '{'*'}') ;;
    *)
      last=null
      [ "$status" -ne 0 ] || status=1
      ;;
  esac
  printf '{"exit":%d,"seconds":%d,"date":"%s","key":"%s","aim":%s,"result":%s}\n' "$status" $((SECONDS - began)) \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$key" "$aim" "$last" >"$steps/$name.json.part"
  mv "$steps/$name.json.part" "$steps/$name.json"
  [ "$status" -eq 0 ] || {
    failed+=("$name")
    echo "gpu_check: $name failed, see $steps/$name.log" >&2
  }
}

# real NAME AIM FLAGS..: prefill, decode and a training step of the real shape.
real() {
  local name=$1 aim=$2
  shift 2
  step "$name" "$aim" "$codelsi" bench --shape "$shape" --device "$device" --json "$@"
}

all_ops=${ops//,/ }
[ -n "$all_ops" ] || all_ops=$("$kernelcheck" list --names)
twin=emulated
[[ $device == cuda* ]] || twin=$device
for op in $all_ops; do
  step "agree_$op" null "$kernelcheck" check --device "$device" --against "$twin" --json "$op"
done
for op in $all_ops; do
  step "check_$op" null "$kernelcheck" check --device "$device" --json "$op"
done
if [ -n "$parity" ] && [ -n "$reference" ]; then
  for compute in f32 bf16; do
    step "parity_$compute" null "$parity" "$reference"/* --device "$device" --compute "$compute" --json
  done
fi
if [[ $device == cuda* ]]; then
  [ -z "$peers" ] || step peers null env CODELSI_BENCH_DEVICE=cuda "$peers" --bench
  sizes=(--prefill 4096 --decode 256 --train 4096) decode=(--prefill 0 --decode 256 --train 0)
else
  sizes=(--prefill 16 --decode 4 --train 16 --repeat 1) decode=(--prefill 0 --decode 4 --train 0 --repeat 1)
fi

# The figures to beat, for LoRA on Code Llama 13B where one is known for the card.
case $card in
  *A100*) train=3900 ;;
  *H200*) train=11500 ;;
  *) train=null ;;
esac
twice=null
[ "$train" = null ] || twice=$((train * 196 / 100)) # two cards lose less than 2 %
if [ -n "$codelsi" ]; then
  few=4
  [ "$shape" != tiny ] || few=1
  real layers_few null --layers "$few" "${sizes[@]}"
  real layers_all "{\"train_tokens_per_s\":$train,\"decode_roof_share\":0.85}" "${sizes[@]}"
  real without_graphs null --layers "$few" "${decode[@]}" --no-graphs
fi
if [[ $device == cuda* ]]; then
  step roofline null "$kernelcheck" roofline --device "$device" --json
  # The table of prediction beside measurement.
  case $card in
    *A100*) chip=a100 ;;
    *H100*) chip=h100 ;;
    *H200*) chip=h200 ;;
    *) chip= ;;
  esac
  [ -z "$chip" ] || [ ! -f "$steps/roofline.json" ] ||
    step predicted null "$kernelcheck" predict --measured "$steps/roofline.json" --chip "$chip" --json
  [ -z "$bench" ] || step bench null env CODELSI_BENCH_DEVICE=cuda CRITERION_HOME="$folder/criterion" "$bench" --bench
fi
if [ -n "$codelsi" ] && [[ $device == cuda* ]]; then
  # The card that both ranks see has room for half of what each would plan for.
  half=(--prefill 64 --decode 16 --train 512 --repeat 1 --checkpointing all --ranks 2)
  step nccl_one_rank "{\"train_tokens_per_s\":$train}" env RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 \
    MASTER_ADDR=127.0.0.1 MASTER_PORT=29511 "$codelsi" bench --shape "$shape" --device cuda --json "${sizes[@]}"
  step shard_one_card null env CUDA_VISIBLE_DEVICES=0 "$codelsi" bench --shape "$shape" --device cuda --json "${half[@]}" --layout shard
  step tensor_one_card null env CUDA_VISIBLE_DEVICES=0 "$codelsi" bench --shape "$shape" --device cuda --json "${half[@]}" --layout tensor
  if [ "$cards" -ge 2 ]; then
    real two_ranks "{\"train_tokens_per_s\":$twice}" "${sizes[@]}" --ranks 2
    real shard_two_cards "{\"train_tokens_per_s\":$twice}" "${sizes[@]}" --ranks 2 --layout shard
    real tensor_two_cards null "${sizes[@]}" --ranks 2 --layout tensor
  fi
fi
if [ -n "$codelsi" ] && [ -n "$model" ]; then
  [ -e "$model/config.json" ] || step mkmodel null "$codelsi" mkmodel --shape "$shape" --out "$model" --json
  [ ! -e "$model/config.json" ] ||
    step load '{"load_gb_per_s":20}' "$codelsi" bench --model "$model" --device "$device" --json --prefill 1 --decode 0 --train 0
fi

result=$folder/gpu_check.json
ok=true
[ ${#failed[@]} -eq 0 ] || ok=false
quoted() { local list=$(printf ',"%s"' "$@") && [ $# -gt 0 ] && printf '%s' "${list:1}" || true; }
{
  printf '{"card":"%s","driver":"%s","date":"%s","commit":"%s","ok":%s,"failed":[%s],"left":[%s],\n"steps":{' "$card" "$driver" \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$commit" "$ok" "$(quoted ${failed[@]+"${failed[@]}"})" "$(quoted ${left[@]+"${left[@]}"})"
  separator=
  for name in "${names[@]}"; do
    [ -f "$steps/$name.json" ] || continue
    printf '%s\n"%s":%s' "$separator" "$name" "$(cat "$steps/$name.json")"
    separator=,
  done
  printf '\n}}\n'
} >"$result.part"
mv "$result.part" "$result"
echo "left $result: ${#names[@]} steps, ${#failed[@]} failed${failed[*]+ (${failed[*]})}, ${#left[@]} for the next call${left[*]+ (${left[*]})}"
[ "$ok" = true ] || exit 1
[ ${#left[@]} -eq 0 ] || exit 3
