#!/usr/bin/env bash
# Several processes under mpirun make the bytes that one makes, also after some were killed.
#
#   scripts/check-mpi.sh [KILLS [MODEL CALIBRATION]]
#
# KILLS: how often a process is killed and another number of processes goes on (default 2). Without MODEL, the demo model.
# Needs Open MPI, and the examples compress, evaluate and sweep built with --release --features mpi.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_base_warn_component_unused=0
kills=${1:-2}
model=()
[ $# -ge 3 ] && model=(--model "$2" --calibration "$3" --samples 24 --seq-len 128)
programs=${CARGO_TARGET_DIR:-target}/release/examples
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# run COUNT THREADS PROGRAM ARGUMENTS...
run() {
    local count=$1 threads=$2 program=$3
    shift 3
    mpirun -n "$count" --oversubscribe "$programs/$program" --threads "$threads" "$@" >"$work/log" 2>&1
}

# bytes DIRECTORY
bytes() {
    (cd "$1" && find . -type f | sort | xargs sha256sum | sha256sum)
}

run 1 2 compress "${model[@]}" --out "$work/expected" || { cat "$work/log"; exit 1; }
expected=$(bytes "$work/expected")
for count in 1 2 3 4; do
    for threads in 1 2; do
        run "$count" "$threads" compress "${model[@]}" --out "$work/out" || { cat "$work/log"; exit 1; }
        [ "$(bytes "$work/out")" = "$expected" ] || { echo "$count processes, $threads threads: other bytes"; exit 1; }
        rm -rf "$work/out"
    done
done
echo "the same bytes with 1, 2, 3, 4 processes and 1, 2 threads"

survived=0
for ((kill = 1; kill <= kills; kill++)); do
    counts=($((RANDOM % 4 + 1)) $((RANDOM % 4 + 1)))
    rm -rf "$work/out" "$work/out.partial"
    run "${counts[0]}" 1 compress "${model[@]}" --out "$work/out" &
    job=$!
    sleep "0.$((RANDOM % 8 + 2))"
    victim=$(pgrep -f "^$programs/compress .*$work/out" | shuf -n 1 || true)
    [ -n "$victim" ] && kill -9 "$victim" 2>/dev/null || true
    if wait "$job"; then survived=$((survived + 1)); fi
    if [ ! -d "$work/out" ]; then
        run "${counts[1]}" 1 compress "${model[@]}" --out "$work/out" || { cat "$work/log"; exit 1; }
    fi
    [ "$(bytes "$work/out")" = "$expected" ] || { echo "killed with ${counts[0]}, gone on with ${counts[1]}: other bytes"; exit 1; }
done
echo "the same bytes after $kills kills with other numbers of processes ($survived ended before they were killed)"

if [ ${#model[@]} -eq 0 ]; then
    for count in 1 2 3; do
        run "$count" 1 evaluate --model "$work/expected" --base examples/assets/demo-model \
            --perplexity examples/assets/demo-model/heldout.txt --tasks examples/assets/demo-model/reasoning.jsonl --json "$work/evaluate-$count"
        run "$count" 1 sweep --quick --out "$work/sweep-$count" || { cat "$work/log"; exit 1; }
        cmp "$work/evaluate-1" "$work/evaluate-$count"
        diff <(cut -d, -f1-21 "$work/sweep-1/results.csv") <(cut -d, -f1-21 "$work/sweep-$count/results.csv")
    done
    echo "the same evaluation and sweep with 1, 2, 3 processes"
fi
