"""Decodes a GPTQ checkpoint with nothing but the format's description, and compares with a dense export."""

import argparse
import json
import pathlib

import measure
import numpy
from safetensors.numpy import load_file

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--dense", type=pathlib.Path, required=True)
arguments = parser.parse_args()

config = json.loads((arguments.model / "quantize_config.json").read_text())
bits, is_v1 = config["bits"], config["checkpoint_format"] == "gptq"
tensors = load_file(arguments.model / "model.safetensors")
dense = load_file(arguments.dense / "model.safetensors")


def fields(words: numpy.ndarray, count: int) -> numpy.ndarray:
    """Codes along the last axis: a little-endian stream of bits."""
    stream = numpy.unpackbits(numpy.ascontiguousarray(words).view(numpy.uint8), axis=-1, bitorder="little")
    stream = stream[..., : count * bits].reshape(*words.shape[:-1], count, bits)
    return (stream.astype(numpy.int32) << numpy.arange(bits)).sum(axis=-1)


layers, zeros, largest = 0, 0, 0.0
for name in tensors:
    if not name.endswith(".qweight"):
        continue
    module = name.removesuffix(".qweight")
    order = tensors[f"{module}.g_idx"]
    outputs = tensors[name].shape[1]
    codes = fields(tensors[name].T, len(order))  # [out, in]
    zero_points = fields(tensors[f"{module}.qzeros"], outputs) + is_v1  # [groups, out]
    scales = tensors[f"{module}.scales"].astype(numpy.float32)
    weight = scales[order].T * (codes - zero_points[order].T)
    largest = max(largest, float(abs(weight - dense[f"{module}.weight"]).max()))
    zeros += int((weight == 0).sum())
    layers += 1
measure.answer({"layers": layers, "largest_difference": largest, "zeros": zeros})
