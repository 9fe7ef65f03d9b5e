"""Tiny random models of every architecture: compressed, exported, and run by other people's engines.

    python scripts/interop/architectures.py --programs target/release/examples --work DIR

The models are the parity fixtures of sparq-model; they get a tokenizer of one token a character, so that `compress` can
calibrate them. Prints a table for docs/interop.md: for each export, the largest difference between an engine's logits and ours of
the same file, relative to the largest logit. Fails if one exceeds its bound.
"""

import argparse
import datetime
import json
import pathlib
import platform
import random
import shutil
import string
import subprocess
import sys
from importlib.metadata import version

import numpy
import torch
from llama_cpp import Llama
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "crates/sparq-model/tests/fixtures"
PLAIN = ("llama", "mistral", "qwen2", "smollm2")
PACKAGES = ["transformers", "compressed-tensors", "torch", "llama-cpp-python", "numpy"]
JOINT = ["--sparsity", "0.25", "--bits", "4", "--group-size", "32", "--samples", "32", "--seq-len", "24", "--seed", "0"]
# llama.cpp quantizes activations for products with blocks of four bits; in floats only its GELU, a table, is coarse.
BOUNDS = {"dense": 1e-4, "compressed-tensors": 1e-4, "gguf": 1e-1, "gguf f32": 1e-3}
# Without a window, as llama.cpp computes Phi-3, no more tokens than fit into it are the same.
TOKENS = {"phi3_partial_window": 8}

parser = argparse.ArgumentParser()
parser.add_argument("--programs", type=pathlib.Path, required=True, help="directory of the built examples")
parser.add_argument("--work", type=pathlib.Path, required=True)
parser.add_argument("--only", default="", help="models whose names begin so")
arguments = parser.parse_args()


def run(program: str, *options) -> str | None:
    """What the program says in refusing; nothing if it succeeds."""
    command = [str(part) for part in [arguments.programs / program, *options]]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def with_tokenizer(fixture: pathlib.Path) -> pathlib.Path:
    """A copy with a byte-level tokenizer of as many characters as there are embeddings."""
    directory = arguments.work / fixture.name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shutil.copy(fixture / "model.safetensors", directory)
    # llama.cpp looks for special tokens of Phi-3 in the vocabulary of what is named so.
    config = json.loads((fixture / "config.json").read_text()) | {"_name_or_path": "tiny"}
    (directory / "config.json").write_text(json.dumps(config))
    size = config["vocab_size"]
    characters = (["Ġ"] + list(string.ascii_letters + string.digits + ".,;:!?"))[:size]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {character: id for id, character in enumerate(characters)}, "merges": []},
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return directory


def our_logits(model: pathlib.Path, tokens: list[int]) -> numpy.ndarray:
    out = arguments.work / "logits.safetensors"
    out.unlink(missing_ok=True)
    refusal = run("logits", "--model", model, "--tokens", ",".join(map(str, tokens)), "--out", out)
    assert refusal is None, refusal
    return load_file(out)["logits"].astype(numpy.float64)


def by_transformers(model: pathlib.Path, tokens: list[int]) -> numpy.ndarray:
    with torch.inference_mode():
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        return loaded(torch.tensor([tokens])).logits[0].double().numpy()


def by_llama_cpp(model: pathlib.Path, tokens: list[int]) -> numpy.ndarray:
    floats = {"type_k": 0, "type_v": 0}  # keys and values in single precision, not in half
    loaded = Llama(str(model), n_ctx=64, n_batch=64, logits_all=True, verbose=False, n_threads=2, **floats)
    loaded.eval(tokens)
    return numpy.array(loaded.scores[: len(tokens)], dtype=numpy.float64)


rows, failed = [], False


def record(name: str, export: str, figure: str, bound: str = "", passed: bool = True) -> None:
    global failed
    failed |= not passed
    rows.append((name, export, figure, bound, "ok" if passed else "**fails**"))
    print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)


def compare(name: str, kind: str, file: pathlib.Path, engine, tokens: list[int]) -> None:
    title = f"{kind}, by {'transformers' if engine is by_transformers else 'llama.cpp'}"
    try:
        theirs = engine(file, tokens)
    except Exception as error:  # whatever an engine raises is a figure in the table
        lines = str(error).strip().splitlines() or [type(error).__name__]
        record(name, title, lines[0][:160], passed=False)
        return
    ours = our_logits(file, tokens)
    by_token = abs(theirs - ours).max(axis=1) / abs(ours).max()
    # Rounded activations send a token to another expert now and then, whose logits then tell nothing.
    relative = numpy.median(by_token) if kind == "gguf" else by_token.max()
    bound = BOUNDS[kind]
    record(name, title, f"{relative:.1e}", f"<= {bound:g}", relative <= bound)


arguments.work.mkdir(parents=True, exist_ok=True)
generator = random.Random(0)
words = ["".join(generator.choices(string.ascii_letters, k=generator.randint(2, 8))) for _ in range(2000)]
calibration = arguments.work / "calibration.txt"
calibration.write_text(" ".join(words))
for fixture in sorted(path for path in FIXTURES.iterdir() if (path / "config.json").exists()):
    if fixture.name.startswith(PLAIN) and not fixture.name.startswith(("llama_dynamic", "llama_yarn")):
        continue
    name = fixture.name
    model = with_tokenizer(fixture)
    size = json.loads((model / "config.json").read_text())["vocab_size"]
    # Within the original context of phi3_longrope: llama.cpp chooses divisors by the size of the context.
    tokens = [generator.randrange(size) for _ in range(TOKENS.get(name, 24))]
    if not name.startswith(arguments.only):
        continue  # only now, for the tokens of the others to be those of a whole run
    out = arguments.work / f"{name}-dense"
    shutil.rmtree(out, ignore_errors=True)
    refusal = run("compress", "--model", model, "--calibration", calibration, *JOINT, "--dtype", "f32", "--out", out)
    if refusal is not None:
        record(name, "compress", refusal, passed=False)
        continue
    compare(name, "dense", out, by_transformers, tokens)
    for kind, suffix, options, engine in [
        ("compressed-tensors", "ct", ["--format", "compressed-tensors", "--dtype", "f32"], by_transformers),
        ("gguf", "q4_0.gguf", ["--format", "gguf", "--dtype", "f32"], by_llama_cpp),
        ("gguf f32", "f32.gguf", ["--format", "gguf", "--gguf-type", "f32"], by_llama_cpp),
    ]:
        file = arguments.work / f"{name}-{suffix}"
        refusal = run("export", "--solution", out, "--model", model, *options, "--out", file, "--overwrite")
        if refusal is None:
            compare(name, kind, file, engine, tokens)
        else:
            reason = refusal.removeprefix("error: ").replace(f"{model}/", "")
            record(name, kind, f"refused: {reason}")

print("# Every architecture in other engines\n")
print("Made by `scripts/interop.sh architectures`; the last run is below. Each line is a check that the script fails on: tiny")
print("random models (the parity fixtures of sparq-model, with a tokenizer of one token a character), compressed with")
print(f"`compress {' '.join(JOINT)}`,")
print("exported, and run by an engine. The figure is the largest difference")
print("between its logits and ours of the same file, relative to the largest logit; for blocks of four bits, whose products llama.cpp")
print("computes with rounded activations, the median of that over tokens. A refusal is what `export` says.\n")
print(f"Date {datetime.date.today()}; {platform.system()}; Python {platform.python_version()},", end=" ")
print(", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".\n")
print("| model | export | largest difference | bound | |\n|---|---|---|---|---|")
for row in rows:
    print("| " + " | ".join(row) + " |")
sys.exit(1 if failed else 0)
