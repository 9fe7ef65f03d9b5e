"""What llm-compressor takes for the same work: python llm_compressor.py METHOD MODEL TEXT OUT; prints JSON."""

import argparse
import json
import os
import resource
import time

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.pruning import SparseGPTModifier
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=["gptq", "sparsegpt", "joint"])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("out")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--sparsity", type=float, default=0.25)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

    start = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    ids = tokenizer(open(arguments.text, encoding="utf-8").read())["input_ids"]
    pieces = [ids[i * arguments.length : (i + 1) * arguments.length] for i in range(arguments.samples)]
    data = Dataset.from_dict({"input_ids": pieces, "attention_mask": [[1] * arguments.length] * arguments.samples})
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="auto")
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": arguments.group}
    gptq = GPTQModifier(
        ignore=["lm_head"],
        dampening_frac=0.01,
        config_groups={"group_0": {"targets": ["Linear"], "weights": weights}},
    )
    sparsegpt = SparseGPTModifier(sparsity=arguments.sparsity, mask_structure="0:0", ignore=["lm_head"], dampening_frac=0.01)
    recipe = {"gptq": [gptq], "sparsegpt": [sparsegpt], "joint": [sparsegpt, gptq]}[arguments.method]
    compressing = time.monotonic()
    # Two modifiers are two stages of one after the other: each runs the model over the calibration text.
    for modifier in recipe:
        oneshot(
            model=model,
            processor=tokenizer,
            dataset=data,
            recipe=[modifier],
            max_seq_length=arguments.length,
            num_calibration_samples=arguments.samples,
            shuffle_calibration_samples=False,
            pad_to_max_length=False,
        )
    compressed = time.monotonic()
    model.save_pretrained(arguments.out, save_compressed=arguments.method != "sparsegpt")
    end = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": end - start, "compress_seconds": compressed - compressing, "peak_bytes": peak}))


main()
