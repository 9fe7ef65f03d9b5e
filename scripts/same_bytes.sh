#!/usr/bin/env bash
# Prints SHA-256 sums of what the example programs make of small models, so that two builds can be compared:
#   cargo build --release --examples && scripts/same_bytes.sh target/release/examples > after.txt; diff before.txt after.txt
# Arguments: the directory of the built examples; optionally a further model and its calibration text.
set -euo pipefail
bin=$1 model=${2:-} text=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sum() { sha256sum "$1" | cut -c1-16; }

run() { # NAME SETTINGS...: compresses and prints the sum of the weights
    local name=$1; shift
    "$bin/compress" --out "$work/out" "$@" > "$work/log" 2>&1 || { echo "$name FAILED: $(tail -n 1 "$work/log")"; rm -rf "$work"/out*; return; }
    echo "$name $(sum "$work/out/model.safetensors") $(cat "$work"/out/sparq/block-*.safetensors | sha256sum | cut -c1-16)"
    rm -rf "$work"/out*
}

settings() { # PREFIX ARGUMENTS...: the presets and the published methods
    local prefix=$1; shift
    local group=${GROUP:---group-size} pattern=${PATTERN:---sparsity}
    for preset in balanced best fast reference; do
        run "$prefix $preset-25-4" "$@" --preset $preset --sparsity 0.25 --bits 4 $group 32
        run "$prefix $preset-0-3" "$@" --preset $preset --sparsity 0 --bits 3 $group 32
        run "$prefix $preset-50" "$@" --preset $preset --sparsity 0.5 --bits 16
        run "$prefix $preset-2:4-4" "$@" --preset $preset $pattern 2:4 --bits 4 $group 32 --asymmetric
    done
    run "$prefix balanced-channel" "$@" --preset balanced --sparsity 0.25 --bits 4 $group channel
    run "$prefix balanced-tensor" "$@" --preset balanced --sparsity 0.25 --bits 8 $group tensor
    run "$prefix act-order" "$@" --preset reference --sparsity 0 --bits 4 $group 32 --act-order
    for pipeline in sequential-a sequential-b; do
        run "$prefix $pipeline" "$@" --pipeline $pipeline --sparsity 0.25 --bits 4 $group 32
        run "$prefix $pipeline-rtn" "$@" --pipeline $pipeline --quantizer rtn --pruner magnitude --sparsity 0.25 --bits 4 $group 32
        run "$prefix $pipeline-wanda" "$@" --pipeline $pipeline --pruner wanda --sparsity 0.25 --bits 4 $group channel
    done
}

settings demo
[ -z "$model" ] || settings "$(basename "$model")" --model "$model" --calibration "$text" --samples 16 --seq-len 256

"$bin/compress" --out "$work/solved" --sparsity 0.25 --bits 4 ${GROUP:---group-size} 32 > /dev/null 2>&1
for format in gguf compressed-tensors gptq dense; do
    [ $format = gguf ] && out=$work/export.gguf || out=$work/export
    "$bin/export" --solution "$work/solved" --format $format --out "$out" > "$work/log" 2>&1 || { echo "export $format FAILED: $(tail -n 1 "$work/log")"; continue; }
    if [ -d "$out" ]; then sums=$(cd "$out" && find . -type f ! -path './sparq/*' | sort | xargs sha256sum | sha256sum | cut -c1-16); else sums=$(sum "$out"); fi
    echo "export $format $sums"
    rm -rf "$out"
done

"$bin/sweep" --quick --out "$work/sweep" > "$work/log" 2>&1
python3 - "$work/sweep/results.json" <<'PY'
import hashlib, json, sys
def figures(value, path=""):
    """Every number that measures quality; none that measures time."""
    if isinstance(value, dict):
        for key in sorted(value):
            if key in ("perplexity", "kl", "kl_divergence", "sr", "srcr", "zeros", "accuracy", "value", "low", "high"):
                yield f"{path}.{key}={json.dumps(value[key])}"
            yield from figures(value[key], f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from figures(item, f"{path}[{index}]")
print("sweep", hashlib.sha256("\n".join(figures(json.load(open(sys.argv[1])))).encode()).hexdigest()[:16])
PY
