"""Solves a model, exports it to every format, runs the files in other engines, and prints tables for docs/interop.md."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from importlib.metadata import version

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = ["transformers", "compressed-tensors", "torch", "gptqmodel", "gguf", "llama-cpp-python", "numpy"]
PROMPTS = [
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time there was a",
    "The largest planet in the solar system is",
    "def add(a, b):",
    "A healthy breakfast should contain",
    "The three primary colours are",
    "In 1969, astronauts",
    "Photosynthesis is the process by which",
    "My favourite book is",
    "To make a cup of tea, first",
    "The opposite of hot is",
    "Shakespeare wrote",
    "The speed of light is",
    "A triangle with three equal sides is called",
    "Dear Sir or Madam,",
    "The heart pumps",
    "Machine learning is a field of",
    "The Great Wall of China was built",
    "Two plus two equals",
]

parser = argparse.ArgumentParser()
parser.add_argument("--programs", type=pathlib.Path, required=True, help="directory of the built examples")
parser.add_argument("--model", type=pathlib.Path, required=True)
parser.add_argument("--calibration", type=pathlib.Path, required=True)
parser.add_argument("--text", type=pathlib.Path, required=True, help="held-out text for perplexity")
parser.add_argument("--model-name", default="SmolLM2-135M-Instruct (a GGUF file)")
parser.add_argument("--text-name", default="the WikiText-2 test text")
parser.add_argument("--samples", type=int, default=4, help="calibration sequences")
parser.add_argument("--seq-len", type=int, default=512, help="tokens of a calibration sequence")
parser.add_argument("--work", type=pathlib.Path, required=True)
parser.add_argument("--text-tokens", type=int, default=4096)
parser.add_argument("--logit-tokens", type=int, default=128)
parser.add_argument("--greedy-tokens", type=int, default=24)
arguments = parser.parse_args()
work = arguments.work
work.mkdir(parents=True, exist_ok=True)
commands = []


def shown(command: list) -> str:
    """A command line without the places of this machine."""
    text = " ".join(str(part) for part in command)
    for place, name in [
        (arguments.programs, ""),
        (work, "WORK"),
        (arguments.model, "MODEL"),
        (arguments.calibration, "CALIBRATION"),
        (arguments.text, "TEXT"),
    ]:
        text = text.replace(f"{place}/" if name == "" else str(place), name)
    return text


def ours(program: str, *options) -> str:
    command = [arguments.programs / program, *options]
    print("+", shown(command), file=sys.stderr, flush=True)
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def solve(name: str, *options) -> pathlib.Path:
    """Dense F32 output with the solution inside; kept from run to run."""
    out = work / name
    recipe = ["--preset", "reference", "--model", arguments.model, "--calibration", arguments.calibration]
    recipe += ["--samples", arguments.samples, "--seq-len", arguments.seq_len, *options, "--seed", "0", "--dtype", "f32", "--out", out]
    commands.append(shown(["compress", *recipe]))
    if not out.exists():
        ours("compress", *recipe)
    return out


def is_kept(path: pathlib.Path) -> bool:
    """Whether an interrupted run has left this; a run that finishes leaves nothing but the exports."""
    return path.exists()


def export(solution: pathlib.Path, name: str, *options) -> tuple[pathlib.Path, dict]:
    out = work / name
    flags = ["--solution", solution, "--model", arguments.model, *options, "--out", out, "--overwrite"]
    commands.append(shown(["export", *flags]))
    report = work / f"{name}.export.json"
    if not is_kept(report):
        ours("export", *flags, "--json", report)
    return out, json.loads(report.read_text())


def our_logits(model: pathlib.Path, tokens: list[int]) -> pathlib.Path:
    out = work / f"{model.name}.logits.safetensors"
    if not is_kept(out):
        ours("logits", "--model", model, "--tokens", ",".join(map(str, tokens)), "--out", out)
    return out


def our_perplexity(model: pathlib.Path) -> float:
    report = work / f"{model.name}.evaluation.json"
    options = ["--perplexity", arguments.text, "--window", "512", "--text-tokens", arguments.text_tokens]
    if not is_kept(report):
        ours("evaluate", "--model", model, *options, "--json", report)
    return json.loads(report.read_text())["text"]["perplexity"]


def our_texts(model: pathlib.Path) -> pathlib.Path:
    out = work / f"{model.name}.texts.json"
    if is_kept(out):
        return out
    texts = [
        json.loads(ours("generate", "--model", model, "--prompt", prompt, "--max-tokens", arguments.greedy_tokens, "--json"))
        for prompt in PROMPTS
    ]
    out.write_text(json.dumps(texts))
    return out


def client(script: str, model: pathlib.Path, *options) -> dict:
    """The answer of one of the client scripts about a model; kept for the rest of an interrupted run."""
    kept = work / f"{model.name}.{script.removesuffix('.py')}.json"
    if is_kept(kept):
        return json.loads(kept.read_text())
    result = ask(script, model, *options)
    kept.write_text(json.dumps(result))
    return result


def ask(script: str, *options) -> dict:
    command = [sys.executable, HERE / f"{script}_client.py", *options]
    if script.endswith(".py"):
        command[1] = HERE / script
    print("+", shown(command), file=sys.stderr, flush=True)
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    (work / f"{pathlib.Path(script).stem}.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"failed": lines[-1][:200] if lines else f"exit code {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def engine_flags(model: pathlib.Path) -> list:
    return [
        "--text", arguments.text, "--logit-tokens", arguments.logit_tokens, "--text-tokens", arguments.text_tokens,
        "--our-logits", our_logits(model, logit_tokens),
    ]  # fmt: skip


checks = []


def require(what: str, figure: str, passed: bool, bound: str) -> None:
    checks.append((what, figure, bound, passed))
    print(f"{'ok  ' if passed else 'FAIL'} {what}: {figure} ({bound})", file=sys.stderr, flush=True)


def require_engine(what: str, model: pathlib.Path, result: dict, relative: float, perplexity: float) -> None:
    """Logits and perplexity of an engine against ours of the same file."""
    if "failed" in result:
        require(what, result["failed"], False, "runs")
        return
    rms, largest = result["relative_rms"], result["relative_max"]
    require(f"{what}: logits", f"{rms:.1e} rms, {largest:.1e} max", max(rms, largest) <= relative, f"<= {relative:g} relative")
    mine = our_perplexity(model)
    off = abs(result["perplexity"] / mine - 1)
    figure = f"{result['perplexity']:.4f}, ours {mine:.4f} ({100 * off:.3f} %)"
    require(f"{what}: perplexity", figure, off <= perplexity, f"within {100 * perplexity:g} %")


sys.path.insert(0, str(HERE))
import measure  # noqa: E402

sparse = solve("sparse4", "--sparsity", "0.5", "--bits", "4", "--group-size", "32")
bfloat = solve("bfloat4", "--sparsity", "0", "--bits", "4", "--group-size", "64", "--set", "scale=bf16")
eight = solve("int8", "--sparsity", "0", "--bits", "8", "--group-size", "channel")
asymmetric = solve("asym4", "--sparsity", "0", "--bits", "4", "--group-size", "64", "--asymmetric")
logit_tokens = measure.tokens_of(sparse, arguments.text, arguments.logit_tokens)

reports = {}

# compressed-tensors, by transformers.
for solution, name, dtype, bound in [
    (sparse, "ct-int4-sparse-f32", "float32", 1e-3),
    (bfloat, "ct-int4-bf16", "bfloat16", 1e-2),
    (asymmetric, "ct-int4-asymmetric-f32", "float32", 1e-3),
    (eight, "ct-int8-f32", "float32", 1e-3),
]:
    short = "bf16" if dtype == "bfloat16" else "f32"
    path, reports[name] = export(solution, name, "--format", "compressed-tensors", "--dtype", short)
    # Version 0.20 of the package expects unpacked zero points when it decompresses lazily.
    dequantize = ["--dequantize"] if solution == asymmetric else []
    result = client("transformers", path, "--dtype", dtype, *dequantize, "--tokenizer", path, *engine_flags(path))
    require_engine(f"transformers, {name}", path, result, bound, 2e-3)
    if solution == sparse and "failed" not in result:
        zeros = reports[name]["zeros"]
        require(f"transformers, {name}: zeros", f"{result['zeros']} of {zeros}", result["zeros"] == zeros, "every one")

# GPTQ, by GPTQModel, and decoded by hand.
for solution, name in [(sparse, "gptq-v1-int4-sparse"), (asymmetric, "gptq-v2-int4-asymmetric")]:
    path, reports[name] = export(solution, name, "--format", "gptq", "--dtype", "f32")
    # Its kernels for processors compute in half precision only.
    result = client("gptq", path, "--dtype", "float16", *engine_flags(path))
    require_engine(f"GPTQModel, {name}", path, result, 1e-2, 2e-3)
    result = client("gptq_numpy.py", path, "--dense", solution)
    if "failed" in result:
        require(f"numpy, {name}", result["failed"], False, "runs")
    else:
        figure = f"{result['layers']} layers, largest difference {result['largest_difference']:g}"
        require(f"numpy, {name}: values", figure, result["largest_difference"] == 0, "equal")
        zeros = reports[name]["zeros"]
        require(f"numpy, {name}: zeros", f"{result['zeros']} of {zeros}", result["zeros"] == zeros, "every one")

# GGUF, by its own package and by llama.cpp.
path, reports["gguf-q4_0-sparse.gguf"] = export(sparse, "gguf-q4_0-sparse.gguf", "--format", "gguf", "--dtype", "f32")
result = client("gguf", path, "--dense", sparse)
if "failed" in result:
    require("gguf, Q4_0", result["failed"], False, "runs")
else:
    figure = f"{result['tensors']} tensors {result['types']}, largest difference {result['largest_difference']:g}"
    all_there = result["tensors"] == result["expected_tensors"]
    require("gguf, Q4_0: values", figure, all_there and result["largest_difference"] == 0, "equal")
    zeros = reports["gguf-q4_0-sparse.gguf"]["zeros"]
    require("gguf, Q4_0: zeros", f"{result['zeros']} of {zeros}", result["zeros"] == zeros, "every one")
floats, reports["gguf-f32.gguf"] = export(sparse, "gguf-f32.gguf", "--format", "gguf", "--gguf-type", "f32")
for file, name, relative in [(path, "Q4_0", 5e-2), (floats, "F32", 1e-3)]:
    texts = our_texts(file)
    result = client("llama", file, "--tokenizer", sparse, *engine_flags(file), "--our-texts", texts)
    require_engine(f"llama.cpp, {name}", file, result, relative, 5e-3)
    if "failed" not in result:
        count = result["texts"]
        require(f"llama.cpp, {name}: tokenizer", str(result["same_tokens"]), result["same_tokens"], "same tokens")
        figure = f"{result['same_texts']} of {count} texts of {arguments.greedy_tokens} tokens"
        if result["same_texts"] < count:
            figure += f"; others part where it prefers its token by at most {result['largest_margin']:.3f}"
        require(f"llama.cpp, {name}: greedy texts", figure, result["same_texts"] == count, "the same")


def processor() -> str:
    try:
        names = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        return names[0] if names else platform.machine()
    except OSError:
        return platform.machine()


print(f"Date {datetime.date.today()}; {processor()}, {os.cpu_count()} threads, {platform.system()}; Python", end=" ")
print(f"{platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".")
print(f"Model {arguments.model_name}. Perplexity over the first {arguments.text_tokens} tokens of {arguments.text_name}")
print(f"in windows of 512; logits of its first {arguments.logit_tokens} tokens. \"Relative\" is to our logits of the same file: root")
print("mean square, and largest difference over largest logit; the larger of both counts.\n")
print("| check | figure | bound | |\n|---|---|---|---|")
for what, figure, bound, passed in checks:
    print(f"| {what} | {figure} | {bound} | {'ok' if passed else '**fails**'} |")
print("\n### What was written\n")
print("| export | stored | 16-bit original | bits per weight of the layers | zeros | zeros lost | largest difference |")
print("|---|---:|---:|---:|---:|---:|---:|")
for name, report in reports.items():
    bits = 8 * report["layer_bytes"] / report["layer_weights"]
    print(
        f"| {name} | {report['stored_bytes'] / 1e6:.1f} MB | {report['sixteen_bit_bytes'] / 1e6:.1f} MB | {bits:.3f} "
        f"| {report['zeros']} | {report['zeros_lost']} | {report['largest_difference']:.1e} |"
    )
print("\nThe largest difference is that between the weights the solver left and the file read back.\n")
print("### Command lines\n")
for command in dict.fromkeys(commands):
    print(f"    {command}")
for kept in [*work.glob("*.json"), *work.glob("*.safetensors")]:
    kept.unlink()
sys.exit(0 if all(passed for *_, passed in checks) else 1)
