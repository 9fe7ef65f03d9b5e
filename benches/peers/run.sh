#!/usr/bin/env bash
# Measures sparq against llm-compressor, transformers and PyTorch on this machine, in turns, on two threads.
#
#   benches/peers/run.sh TEXT.txt [RUNS]    # a text of some 200 KB; prints a table for docs/performance.md; every value is in results.json
#
# SPARQ_PEERS_VENV names a virtual environment to use instead of a fresh one (gigabytes of Python packages).
set -euo pipefail
text=$(realpath "${1:?name a text file to calibrate on}")
cd "$(dirname "$0")/../.."
work=${SPARQ_PEERS_WORK:-target/peers}
venv=${SPARQ_PEERS_VENV:-$work/venv}
mkdir -p "$work"
if [[ -z ${SPARQ_PEERS_VENV:-} ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement benches/peers/requirements.txt
fi
[[ -e $work/model ]] || "$venv/bin/python" benches/peers/make_model.py "$text" "$work/model"
cargo build --release -p sparq --examples
"$venv/bin/python" benches/peers/compare.py --programs target/release/examples --model "$work/model" --text "$text" \
    --work "$work" --runs "${2:-3}" --raw benches/peers/results.json
