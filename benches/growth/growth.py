"""How time and memory of a compression grow with layers and with tokens, and what a memory budget costs.

    python benches/growth/growth.py --programs target/release/examples --text FILE --work DIR --plot docs/growth.svg

Makes Llamas of random weights (hidden 512, ffn 1408; benches/peers/make_model.py, whose packages it needs), compresses
each to 25 % sparsity and 4 bits in one pass, prints tables for docs/performance.md and draws the plot."""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

MAKE_MODEL = Path(__file__).parent.parent / "peers" / "make_model.py"
LAYERS = [2, 4, 8, 16]
TOKENS = [4096, 8192, 16384, 32768, 65536]
LENGTH = 512
BUDGET = "300MB"


class Runs:
    def __init__(self, options):
        self.options = options

    def model(self, layers):
        path = self.options.work / f"llama-{layers}"
        if not path.exists():
            shape = ["--hidden", 512, "--ffn", 1408, "--layers", layers, "--heads", 8, "--kv-heads", 8]
            self.call([sys.executable, MAKE_MODEL, self.options.text, path, *shape])
        return path

    def compress(self, layers, tokens, *settings):
        out, report = self.options.work / "out", self.options.work / "report.json"
        for stale in self.options.work.glob("out*"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        command = [self.options.programs / "compress", "--model", self.model(layers), "--calibration", self.options.text]
        command += ["--samples", tokens // LENGTH, "--seq-len", LENGTH, "--bits", 4, "--sparsity", 0.25]
        command += ["--preset", "reference", "--threads", 2, "--format", "compressed-tensors", "--json", report]
        self.call([*command, "--out", out, *settings])
        return json.loads(report.read_text())

    @staticmethod
    def call(command):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")


def line(points):
    """Slope and intercept of least squares, and the share of the variance they explain."""
    slope, intercept = statistics.linear_regression(*zip(*points))
    return slope, intercept, statistics.correlation(*zip(*points)) ** 2


def panel(points, left, name, unit):
    """One plot: seconds over layers or tokens, with the line of least squares."""
    width, height, top = 300, 210, 40
    high_x, high_y = max(x for x, _ in points) * 1.08, max(y for _, y in points) * 1.12
    at = lambda x, y: (left + width * x / high_x, top + height * (1 - y / high_y))
    slope, intercept, explained = line(points)
    parts = []
    for tick in range(0, int(high_y) + 1, 5):
        _, y = at(0, tick)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    crowded = -100.0
    for x, _ in points:
        place, _ = at(x, 0)
        if place - crowded > 24:
            parts.append(f'<text x="{place:.1f}" y="{top + height + 18}" text-anchor="middle">{x // unit}</text>')
            crowded = place
    (x1, y1), (x2, y2) = at(0, max(intercept, 0)), at(high_x, slope * high_x + intercept)
    parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="fit"/>')
    for x, y in points:
        cx, cy = at(x, y)
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4.5"><title>{x}: {y:.2f} s</title></circle>')
    parts.append(f'<line x1="{left}" y1="{top + height}" x2="{left + width}" y2="{top + height}" class="axis"/>')
    parts.append(f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">{name}</text>')
    parts.append(f'<text x="{left + 12}" y="{top + 6}">R² = {explained:.4f}</text>')
    return "".join(parts)


def plot(by_layers, by_tokens):
    style = (
        "svg{background:#fff}text{font:13px system-ui,sans-serif;fill:#1d2430}.grid{stroke:#d8dee6}.axis{stroke:#5b6675}"
        ".fit{stroke:#1b6ec2;stroke-width:1.5;stroke-dasharray:5 3}circle{fill:#1b6ec2}"
    )
    label = '<text x="16" y="145" transform="rotate(-90 16 145)" text-anchor="middle">seconds</text>'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="740" height="300" viewBox="0 0 740 300" role="img">'
        "<title>Seconds to compress, over layers and over calibration tokens, with lines of least squares</title>"
        f'<style>{style}</style><rect width="740" height="300" fill="#fff"/>{label}'
        + panel(by_layers, 60, "layers (16,384 tokens)", 1)
        + panel(by_tokens, 420, "calibration tokens / 1,024 (4 layers)", 1024)
        + "</svg>\n"
    )


def main():
    parser = argparse.ArgumentParser()
    for name in ["--programs", "--text", "--work", "--plot"]:
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    runs = Runs(options)
    works = [(layers, 16384) for layers in LAYERS] + [(4, tokens) for tokens in TOKENS if tokens != 16384]
    seconds = {}
    print("| layers | tokens | seconds | predicted peak, GB | measured, GB |\n|---:|---:|---:|---:|---:|")
    for layers, tokens in works:
        report = runs.compress(layers, tokens)
        seconds[layers, tokens] = report["seconds"]
        profile = report["profile"]
        predicted = report["plan"]["peak_bytes"] + profile["resident_bytes_before"]
        peaks = f"{predicted / 1e9:.2f} | {profile['peak_resident_bytes'] / 1e9:.2f}"
        print(f"| {layers} | {tokens:,} | {report['seconds']:.1f} | {peaks} |", flush=True)
    by_layers = [(layers, seconds[layers, 16384]) for layers in LAYERS]
    by_tokens = [(tokens, seconds[4, tokens]) for tokens in TOKENS]
    for name, points in [("layer", by_layers), ("4,096 tokens", [(t / 4096, s) for t, s in by_tokens])]:
        slope, intercept, explained = line(points)
        print(f"{slope:.2f} s a {name} and {intercept:.2f} s, R² {explained:.4f}")
    options.plot.write_text(plot(by_layers, by_tokens))

    print("\n| 4 layers, 65,536 tokens | seconds, median of 3 (range) | measured peak, GB |\n|---|---:|---:|")
    settings = {"everything in memory": [], f"within {BUDGET}": ["--memory-budget", BUDGET]}
    reports = {name: [] for name in settings}
    for _ in range(3):
        for name, setting in settings.items():
            reports[name].append(runs.compress(4, 65536, *setting))
    for name, of in reports.items():
        took = sorted(report["seconds"] for report in of)
        peak = max(report["profile"]["peak_resident_bytes"] for report in of) / 1e9
        print(f"| {name} | {took[1]:.1f} ({took[0]:.1f} to {took[2]:.1f}) | {peak:.2f} |")


main()
