"""Runs sparq and its peers in turns on the same work and prints a table of medians and their ratios.

    python benches/peers/compare.py --programs target/release/examples --model DIR --text FILE --work DIR [--runs 3]

Both sides get OMP_NUM_THREADS / --threads 2. Seconds are of whole processes, from start to files on disk, except where a
program of the peer reports less (its imports are left out: "seconds" of llm_compressor.py)."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).parent
THREADS = "2"


def run(command):
    """What a command said on standard output and error, its seconds and its peak memory."""
    timed = ["/usr/bin/time", "--format", "%e %M", *map(str, command)]
    done = subprocess.run(timed, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": THREADS})
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    seconds, kilobytes = done.stderr.strip().splitlines()[-1].split()
    return SimpleNamespace(output=done.stdout, log=done.stderr, seconds=float(seconds), peak_bytes=int(kilobytes) * 1024)


def peer(script, *arguments):
    return json.loads(run([sys.executable, HERE / script, *arguments]).output.strip().splitlines()[-1])


class Sparq:
    def __init__(self, options):
        self.options = options

    def compress(self, *settings):
        options = self.options
        command = [options.programs / "compress", "--model", options.model, "--calibration", options.text]
        command += ["--samples", 32, "--seq-len", 512, "--bits", 4, "--group-size", 128, "--threads", THREADS]
        command += ["--format", "compressed-tensors", "--out", options.work / "ours", "--overwrite", *settings]
        return vars(run(command))

    def solve(self, layer, *settings):
        command = [self.options.programs / "layer", "--json", "--input", layer, "--preset", "reference", "--group-size", 128]
        return json.loads(run([*command, "--threads", THREADS, *settings]).output)["seconds"]["solve"]

    def prefill(self, precision):
        options = self.options
        command = [options.programs / "evaluate", "--model", options.model, "--perplexity", options.text]
        command += ["--window", 512, "--text-tokens", 8192, "--threads", THREADS, "--forward", precision]
        scored, seconds = re.search(r"text: (\d+) in ([0-9.]+) s", run(command).log).groups()
        return int(scored) / float(seconds)


def machine():
    """What a figure holds for: processor, its vector instructions, versions."""
    facts = Path("/proc/cpuinfo").read_text()
    flags = set(re.search(r"^flags\s*: (.*)$", facts, re.M).group(1).split())
    git = ["git", "-C", HERE, "describe", "--always", "--dirty"]
    return {
        "processor": re.search(r"^model name\s*: (.*)$", facts, re.M).group(1),
        "threads": int(THREADS),
        "flags": sorted(flag for flag in flags if flag.startswith(("avx", "amx", "fma"))),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
        "versions": {name: version(name) for name in ["llmcompressor", "torch", "transformers"]},
    }


RAW = []


def row(name, ours, theirs, unit, digits=1):
    """More than 1 is in our favour."""
    RAW.append({"work": name, "unit": unit, "sparq": ours, "peer": theirs})
    a, b = statistics.median(ours), statistics.median(theirs)
    ratio = b / a if unit in ("s", "GB") else a / b
    spread = lambda values: f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
    print(f"| {name} | {spread(ours)} | {spread(theirs)} | {unit} | {ratio:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    for name in ["programs", "model", "text", "work"]:
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--raw", type=Path, help="file for every measured value")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sparq = Sparq(options)
    works = {
        "GPTQ int4 g128": ("gptq", ["--sparsity", 0, "--preset", "reference"]),
        "25 % + int4: one pass / SparseGPT, then GPTQ": ("joint", ["--sparsity", 0.25, "--preset", "reference"]),
    }
    print("| work | sparq, median (range) | peer, median (range) | | ratio |\n|---|---:|---:|---|---:|")
    for name, (method, settings) in works.items():
        f32, bf16, theirs = [], [], []
        for _ in range(options.runs):
            f32.append(sparq.compress(*settings))
            theirs.append(peer("llm_compressor.py", method, options.model, options.text, options.work / "theirs"))
            bf16.append(sparq.compress(*settings, "--set", "forward=bf16"))
        of = lambda results, key, scale=1: [result[key] / scale for result in results]
        row(f"{name}, f32", of(f32, "seconds"), of(theirs, "seconds"), "s")
        row(f"{name}, bf16 forward", of(bf16, "seconds"), of(theirs, "seconds"), "s")
        row(f"{name}, f32, peak memory", of(f32, "peak_bytes", 1e9), of(theirs, "peak_bytes", 1e9), "GB", 2)
    layer = options.work / "layer.safetensors"
    solvers = {
        "GPTQ int4 g128": ("gptq", ["--sparsity", 0, "--bits", 4]),
        "SparseGPT 50 %": ("sparsegpt", ["--sparsity", 0.5, "--bits", 16]),
    }
    for name, (method, settings) in solvers.items():
        ours, theirs = [], []
        for _ in range(options.runs):
            theirs.append(peer("solver_loop.py", method, 4096, layer)["seconds"])
            ours.append(sparq.solve(layer, *settings))
        row(f"{name}, one 4096 x 4096 layer, H given, against a loop in PyTorch", ours, theirs, "s", 2)
    for precision in ["f32", "bf16"]:
        ours, theirs = [], []
        for _ in range(options.runs):
            theirs += peer("prefill.py", options.model, precision, 1)["tokens_per_second"]
            ours.append(sparq.prefill(precision))
        row(f"prefill with the output layer, sequences of 512, {precision}, against transformers", ours, theirs, "tokens/s", 0)
    if options.raw:
        options.raw.write_text(json.dumps({"machine": machine(), "rows": RAW}, indent=1) + "\n")


main()
