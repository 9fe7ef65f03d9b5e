"""Loads a checkpoint with transformers (and compressed-tensors) on the processor and measures it."""

import argparse
import pathlib

import measure
import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--dtype", required=True)
parser.add_argument("--dequantize", action="store_true", help="decompress while loading, not at the first use")
parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
parser.add_argument("--text", type=pathlib.Path, required=True)
parser.add_argument("--logit-tokens", type=int, required=True)
parser.add_argument("--text-tokens", type=int, required=True)
parser.add_argument("--our-logits", type=pathlib.Path, required=True)
arguments = parser.parse_args()

options = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if arguments.dequantize else {}
dtype = getattr(torch, arguments.dtype)
model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype, **options).eval()


def logits_of(tokens):
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


tokens = measure.tokens_of(arguments.tokenizer, arguments.text, arguments.text_tokens)
result = measure.compare_logits(logits_of(tokens[: arguments.logit_tokens]), arguments.our_logits)
result["perplexity"] = measure.perplexity(logits_of, tokens)
# After the first forward pass weights are decompressed: zeros as the client has them.
linears = [module for name, module in model.named_modules() if "layers." in name and hasattr(module, "in_features")]
weights = [module.weight for module in linears if getattr(module, "weight", None) is not None]
result["zeros"] = int(sum((weight == 0).sum() for weight in weights if weight.is_floating_point()))
result["linears"] = len(linears)
measure.answer(result)
