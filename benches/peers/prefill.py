"""Tokens per second of transformers over sequences of 512: python prefill.py MODEL f32|bf16 [RUNS]; prints JSON."""

import json
import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM


def main():
    path, dtype, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    model = AutoModelForCausalLM.from_pretrained(path, dtype={"f32": torch.float32, "bf16": torch.bfloat16}[dtype]).eval()
    tokens = torch.arange(4 * 512).reshape(4, 512) * 37 % model.config.vocab_size
    rates = []
    with torch.no_grad():
        model(tokens, use_cache=False)
        for _ in range(runs):
            start = time.monotonic()
            model(tokens, use_cache=False)
            rates.append(tokens.numel() / (time.monotonic() - start))
    print(json.dumps({"tokens_per_second": rates}))


main()
