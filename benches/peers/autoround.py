"""A model with linear layers as AutoRound rounds them: python autoround.py MODEL TEXT OUT --bits 3; prints JSON.

MODEL is a Hugging Face directory or a GGUF file of float weights. OUT has the rounded weights as plain floats, so that `evaluate`
judges them like any other model. Needs `pip install auto-round==0.16.1`. AutoRound leaves layers alone whose width is no multiple of 32."""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from auto_round import AutoRound
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(path):
    """The model and its tokenizer."""
    if path.suffix != ".gguf":
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32), AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    # Weights of a GGUF file count as quantized, which AutoRound and saving refuse.
    model.hf_quantizer = model.config.quantization_config = None
    model.is_quantized = model._is_quantized = False
    vars(model).pop("quantization_method", None)
    return model, AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


class Windows(torch.utils.data.Dataset):
    """Windows of a text, in random order."""

    def __init__(self, tokens, arguments):
        starts = list(range(0, len(tokens) - arguments.length, arguments.length))
        random.Random(arguments.seed).shuffle(starts)
        self.windows = [torch.tensor(tokens[start : start + arguments.length]) for start in starts[: arguments.samples]]

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, index):
        window = self.windows[index]
        return {"input_ids": window, "attention_mask": torch.ones_like(window)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(2)
    model, tokenizer = load(arguments.model)
    tokens = tokenizer(arguments.text.read_text(errors="ignore"), add_special_tokens=False)["input_ids"]
    start = time.time()
    tuner = AutoRound(
        model,
        tokenizer,
        bits=arguments.bits,
        group_size=arguments.group,
        sym=True,
        iters=arguments.steps,
        nsamples=arguments.samples,
        seqlen=arguments.length,
        batch_size=8,
        dataset=torch.utils.data.DataLoader(Windows(tokens, arguments), batch_size=8),
        seed=arguments.seed,
        device_map="cpu",
        amp=False,
    )
    rounded, _ = tuner.quantize()
    seconds = time.time() - start
    rounded.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
