"""How far transformers in bfloat16 is from itself in single precision, on one dense checkpoint of bfloat16 weights."""

import argparse
import pathlib

import measure
import torch
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path, help="dense export in bfloat16")
parser.add_argument("--text", type=pathlib.Path, required=True)
parser.add_argument("--logit-tokens", type=int, default=128)
parser.add_argument("--our-logits", type=pathlib.Path, required=True, help="of an export with the same values")
arguments = parser.parse_args()

tokens = measure.tokens_of(arguments.model, arguments.text, arguments.logit_tokens)
result = {}
for dtype in (torch.float32, torch.bfloat16):
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0].float().numpy()
    result[str(dtype)] = measure.compare_logits(logits, arguments.our_logits)
measure.answer(result)
