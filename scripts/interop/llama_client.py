"""Runs a GGUF file with llama.cpp on the processor: logits, perplexity, greedy texts."""

import argparse
import json
import pathlib

import measure
import numpy
from llama_cpp import Llama

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
parser.add_argument("--text", type=pathlib.Path, required=True)
parser.add_argument("--logit-tokens", type=int, required=True)
parser.add_argument("--text-tokens", type=int, required=True)
parser.add_argument("--our-logits", type=pathlib.Path, required=True)
parser.add_argument("--our-texts", type=pathlib.Path, required=True)
arguments = parser.parse_args()

model = Llama(
    str(arguments.model), n_ctx=measure.WINDOW, n_batch=measure.WINDOW, logits_all=True, verbose=False, n_threads=2
)


def logits_of(tokens):
    model.reset()
    model.eval(tokens)
    return numpy.array(model.scores[: len(tokens)], dtype=numpy.float32)


def parting(prompt: str, expected: list[int]) -> float | None:
    """Where the greedy text first differs: by how much the engine prefers its token to ours. None if it never does."""
    model.reset()
    model.eval(model.tokenize(prompt.encode(), add_bos=True, special=True))
    for token in expected:
        logits = model.scores[model.n_tokens - 1]
        best = int(numpy.argmax(logits))
        if best != token:
            return float(logits[best] - logits[token])
        model.eval([token])
    return None


tokens = measure.tokens_of(arguments.tokenizer, arguments.text, arguments.text_tokens)
text = arguments.text.read_bytes().decode()[:20000]
theirs = model.tokenize(text.encode(), add_bos=True, special=True)
count = min(len(theirs), len(tokens)) - 8  # the cut may fall inside of a token
result = measure.compare_logits(logits_of(tokens[: arguments.logit_tokens]), arguments.our_logits)
result["same_tokens"] = theirs[:count] == tokens[:count]
result["perplexity"] = measure.perplexity(logits_of, tokens)
ours = json.loads(arguments.our_texts.read_text())
margins = [parting(item["prompt"], item["tokens"]) for item in ours]
result["same_texts"] = margins.count(None)
result["texts"] = len(margins)
result["largest_margin"] = max((margin for margin in margins if margin is not None), default=0.0)
measure.answer(result)
