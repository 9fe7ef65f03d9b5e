"""Quantizes a GGUF file with llama.cpp and an importance matrix: the files that ours are compared with.

    python scripts/interop/llama_quantize.py MODEL.gguf TEXT --out DIR Q2_K Q3_K_M IQ4_XS Q4_K_M Q5_K_M

MODEL.gguf is a Llama in F16 or F32. The importance of an input channel is its mean square over 32 x 512 tokens, evenly
spaced in TEXT, in the model as it is (transformers, f32), as llama-imatrix has it. Files are DIR/TYPE.gguf.

Versions: see requirements.txt, and torch.
"""

import argparse
import ctypes
import pathlib
import re

import llama_cpp
import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("text", type=pathlib.Path)
parser.add_argument("types", nargs="+", help="llama.cpp's names, such as Q4_K_M")
parser.add_argument("--out", type=pathlib.Path, required=True)
parser.add_argument("--sequences", type=int, default=32)
parser.add_argument("--length", type=int, default=512)
arguments = parser.parse_args()

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}

where = {"pretrained_model_name_or_path": str(arguments.model.parent), "gguf_file": arguments.model.name}
model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
tokens = AutoTokenizer.from_pretrained(**where)(arguments.text.read_text(), return_tensors="pt")["input_ids"][0]
last = len(tokens) - arguments.length
starts = [last * at // max(arguments.sequences - 1, 1) for at in range(arguments.sequences)]

sums = {}
for name, module in model.named_modules():
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
    if found and found[2] in NAMES:
        key = f"blk.{found[1]}.{NAMES[found[2]]}.weight"

        def add(_, inputs, key=key):
            squares = inputs[0].reshape(-1, inputs[0].shape[-1]).square().sum(0)
            sums[key] = sums.get(key, 0) + squares

        module.register_forward_pre_hook(add)
with torch.no_grad():
    for start in starts:
        model.model(tokens[start : start + arguments.length][None])

Data = llama_cpp.llama_cpp.llama_model_imatrix_data
values = {key: (total / len(starts) / arguments.length).numpy().astype(numpy.float32) for key, total in sums.items()}
entries = (Data * (len(values) + 1))()
for entry, (key, value) in zip(entries, values.items()):
    entry.name, entry.size = key.encode(), value.size
    entry.data = value.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
arguments.out.mkdir(exist_ok=True)
llama_cpp.llama_backend_init()
for name in arguments.types:
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    parameters.imatrix = entries
    out = arguments.out / f"{name}.gguf"
    if llama_cpp.llama_model_quantize(str(arguments.model).encode(), str(out).encode(), ctypes.byref(parameters)):
        raise SystemExit(f"llama.cpp did not write {out}")
    print(name, out.stat().st_size)
