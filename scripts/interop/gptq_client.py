"""Loads a GPTQ checkpoint with GPTQModel's torch kernel on the processor and measures it."""

import argparse
import pathlib

import measure
import torch

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--dtype", required=True)
parser.add_argument("--text", type=pathlib.Path, required=True)
parser.add_argument("--logit-tokens", type=int, required=True)
parser.add_argument("--text-tokens", type=int, required=True)
parser.add_argument("--our-logits", type=pathlib.Path, required=True)
arguments = parser.parse_args()

from gptqmodel import BACKEND, GPTQModel  # noqa: E402  starts threads on import

model = GPTQModel.load(
    str(arguments.model), device="cpu", backend=BACKEND.TORCH, dtype=getattr(torch, arguments.dtype)
)
network = model.model.eval()


def logits_of(tokens):
    with torch.inference_mode():
        return network(torch.tensor([tokens])).logits[0].float().numpy()


tokens = measure.tokens_of(arguments.model, arguments.text, arguments.text_tokens)
result = measure.compare_logits(logits_of(tokens[: arguments.logit_tokens]), arguments.our_logits)
result["perplexity"] = measure.perplexity(logits_of, tokens)
result["kernel"] = sorted({type(m).__name__ for m in network.modules() if hasattr(m, "qweight")})
measure.answer(result)
