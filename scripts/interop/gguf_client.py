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
config = json.loads((arguments.dense / "config.json").read_text())
head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
# Llama's rows are reordered within a head for a rotation of neighbours; Qwen's are not.
reordered = config["model_type"] == "llama"


def hugging_face_name(name: str) -> str:
    module, kind = name.rsplit(".", 1)
    if not module.startswith("blk."):
        return f"{NAMES[module]}.{kind}"
    _, block, module = module.split(".")
    return f"model.layers.{block}.{NAMES[module]}.{kind}"


largest, zeros, count, types = 0.0, 0, 0, {}
for tensor in GGUFReader(arguments.model).tensors:
    values = dequantize(tensor.data, tensor.tensor_type)
    name = hugging_face_name(tensor.name)
    expected = dense[name].astype(numpy.float32)
    if reordered and ("attn_q." in tensor.name or "attn_k." in tensor.name):
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
