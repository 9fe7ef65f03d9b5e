"""Decodes a GGUF file with the package gguf and compares every tensor with a dense export."""

import argparse
import json
import pathlib

import measure
import numpy
from gguf import GGUFReader, dequantize
from safetensors.numpy import load_file

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--dense", type=pathlib.Path, required=True)
arguments = parser.parse_args()

dense = load_file(arguments.dense / "model.safetensors")
head = json.loads((arguments.dense / "config.json").read_text())["head_dim"]


def hugging_face_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if not module.startswith("blk."):
        return f"{NAMES[module]}.weight"
    _, block, module = module.split(".")
    return f"model.layers.{block}.{NAMES[module]}.weight"


largest, zeros, count, types = 0.0, 0, 0, {}
for tensor in GGUFReader(arguments.model).tensors:
    values = dequantize(tensor.data, tensor.tensor_type)
    name = hugging_face_name(tensor.name)
    expected = dense[name].astype(numpy.float32)
    if "attn_q." in tensor.name or "attn_k." in tensor.name:
        # llama.cpp rotates neighbours: undo its order of the rows of a head.
        values = values.reshape(-1, head // 2, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
    largest = max(largest, float(abs(values - expected).max()))
    if "layers." in name and values.ndim == 2:
        zeros += int((values == 0).sum())
    types[tensor.tensor_type.name] = types.get(tensor.tensor_type.name, 0) + 1
    count += 1
measure.answer(
    {"tensors": count, "expected_tensors": len(dense), "types": types, "largest_difference": largest, "zeros": zeros}
)
