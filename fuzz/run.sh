#!/usr/bin/env bash
# Fuzzes every target for RUNS executions (default 100000) and prints how many ran. Needs cargo-fuzz.
#   fuzz/run.sh [RUNS] [TARGET...]
set -euo pipefail
cd "$(dirname "$0")"
runs=${1:-100000}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)

# The sanitizers need compiler options that stable toolchains keep behind this switch.
export RUSTC_BOOTSTRAP=1
mkdir -p seeds
cargo run --quiet --release --bin seeds -- seeds
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target"
    # 1 GiB for one allocation and for all together: far below what a lying header could ask for.
    cargo fuzz run "$target" "corpus/$target" "seeds/$target" -- \
        -runs="$runs" -max_len=4096 -malloc_limit_mb=1024 -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
        2> "corpus/$target.log" || { tail -n 40 "corpus/$target.log"; exit 1; }
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "corpus/$target.log")
    inputs=$(find "corpus/$target" -type f | wc -l)
    printf '%-12s %10s executions, %5s inputs kept, 0 findings\n' "$target" "$executed" "$inputs"
done
