#!/usr/bin/env bash
# What differs in speed between two commits, beyond the noise of this machine.
#
#   bash benches/compare.sh A B [--rounds N] [--bench ops|gemm] [FILTER]
#
# A, B     commits (built in worktrees of their own, with target folders of their own), or built bench binaries
# N        rounds, each one run of A and one of B, in turns that alternate; at least 3, default 10
# FILTER   a regular expression over the benches' names, such as 'gemm/BF16' or 'rmsnorm.*T=4096'
#
# Both run in turn, so what slows the machine slows both; each bench gets the ratio of its medians with an interval,
# and "slower" or "faster" only where the interval, corrected for the number of benches, leaves 1 out. The same binary
# twice shows no difference. Runs are kept in target/compare/runs, the last line is one JSON object.
set -euo pipefail

refuse() {
  echo "compare: $1" >&2
  exit 2
}
usage="usage: bash benches/compare.sh A B [--rounds N] [--bench ops|gemm] [FILTER]"
rounds=10 bench=ops
names=()
while [ $# -gt 0 ]; do
  case $1 in
    --rounds | --bench)
      [ $# -ge 2 ] || refuse "$usage"
      [ "$1" = --rounds ] && rounds=$2 || bench=$2
      shift 2
      ;;
    -*) refuse "$1 is no option; $usage" ;;
    *) names+=("$1") && shift ;;
  esac
done
[ ${#names[@]} -ge 2 ] && [ ${#names[@]} -le 3 ] || refuse "$usage"
[[ $rounds =~ ^[0-9]{1,4}$ ]] && [ "$rounds" -ge 3 ] || refuse "--rounds $rounds: a number of rounds, at least 3"
root=$(cd "$(dirname "$0")/.." && pwd)
work=$root/target/compare

# executable FOLDER TARGET: builds the bench of a checkout and prints the path of the binary.
executable() {
  (cd "$1" && CARGO_TARGET_DIR=$2 cargo bench --quiet -p codelsi-benches --bench "$bench" --no-run --message-format=json) |
    sed -n 's/.*"target":{"kind":\["bench"\].*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# binary NAME: prints the path of the binary that NAME means: a program, or a commit that is built first.
binary() {
  if [ -f "$1" ] && [ -x "$1" ]; then
    realpath "$1"
    return
  fi
  local commit
  commit=$(git -C "$root" rev-parse --verify --quiet "$1^{commit}") || refuse "$1 is neither a commit nor a program"
  local tree=$work/$commit/tree
  [ -d "$tree" ] || git -C "$root" worktree add --quiet --detach "$tree" "$commit" >&2
  echo "compare: building $1 (${commit:0:12})" >&2
  executable "$tree" "$work/$commit/target"
}

mkdir -p "$work"
a=$(binary "${names[0]}") || exit 2
b=$(binary "${names[1]}") || exit 2
[ -n "$a" ] && [ -n "$b" ] || refuse "the bench $bench was not built: see cargo's message above"
report=${CODELSI_COMPARE:-}
if [ -z "$report" ]; then
  (cd "$root" && cargo build --quiet --release -p codelsi-benches --bin compare_runs)
  report=${CARGO_TARGET_DIR:-$root/target}/release/compare_runs
fi

runs=${CODELSI_COMPARE_RUNS:-$work/runs}
rm -rf "$runs"
# run SIDE ROUND BINARY: keeps the results of one run.
run() {
  local folder=$runs/$1-$2
  mkdir -p "$folder"
  (cd "$root" && CODELSI_BENCH_SAVE=$folder CRITERION_HOME=$work/criterion "$3" --bench --noplot ${names[2]:+"${names[2]}"}) \
    >"$folder.log" 2>&1 || refuse "$3 failed, see $folder.log"
}
for ((round = 1; round <= rounds; round++)); do
  echo "round $round of $rounds" >&2
  # A first, then B first: what is second in a round gains or loses nothing by it.
  if ((round % 2)); then
    run a "$round" "$a" && run b "$round" "$b"
  else
    run b "$round" "$b" && run a "$round" "$a"
  fi
done
"$report" "$runs"
