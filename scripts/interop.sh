#!/usr/bin/env bash
# Exports a real model to every format, runs the files in other engines and prints tables for docs/interop.md.
# Not part of the tests: it installs some gigabytes of Python packages and runs for a quarter of an hour on two cores.
#
#   SPARQ_SMOLLM2_GGUF=path/to/smollm2-135m-instruct.gguf scripts/interop.sh
#   scripts/interop.sh demo    # the demo model of this repository: minutes
#   scripts/interop.sh architectures    # tiny models of every architecture
#
# SPARQ_INTEROP_VENV names a virtual environment to use instead of a fresh one.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${SPARQ_INTEROP_WORK:-target/interop}
venv=${SPARQ_INTEROP_VENV:-$work/venv}
if [[ ${1:-} == architectures ]]; then
    model=Cargo.toml calibration=Cargo.toml text=Cargo.toml # brings its own
elif [[ ${1:-} == demo ]]; then
    model=examples/assets/demo-model
    calibration=$model/calibration.txt text=$model/heldout.txt work=$work/demo
    sizes=(--samples 4 --seq-len 128 --text-tokens 1024 --logit-tokens 64)
    sizes+=(--model-name "the demo model of this repository" --text-name "its held-out text")
else
    shared=${SPARQ_SHARED:-../shared}
    model=${SPARQ_SMOLLM2_GGUF:?name a GGUF file of SmolLM2-135M-Instruct in SPARQ_SMOLLM2_GGUF}
    calibration=$shared/data/calibration/exl2_c4.utf8 text=$shared/data/wikitext-2/wiki.test.raw
    sizes=()
fi
for file in "$model" "$calibration" "$text"; do
    [[ -e $file ]] || { echo "interop: $file is missing" >&2; exit 1; }
done
mkdir -p "$work"
if [[ -z ${SPARQ_INTEROP_VENV:-} ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --upgrade pip wheel "setuptools<82"
    # gptqmodel looks at the installed torch while it is built.
    "$venv/bin/pip" install --quiet "$(grep ^torch scripts/interop/requirements.txt)"
    "$venv/bin/pip" install --quiet --no-build-isolation "$(grep ^gptqmodel scripts/interop/requirements.txt)"
    "$venv/bin/pip" install --quiet --requirement scripts/interop/requirements.txt --no-binary llama-cpp-python
fi
cargo build --release -p sparq --examples
if [[ ${1:-} == architectures ]]; then
    exec "$venv/bin/python" scripts/interop/architectures.py --programs target/release/examples --work "$work/architectures"
fi
exec "$venv/bin/python" scripts/interop/run.py --programs target/release/examples --model "$model" \
    --calibration "$calibration" --text "$text" --work "$work" "${sizes[@]}"
