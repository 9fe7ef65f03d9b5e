"""What every client is asked: logits of some tokens, perplexity of a text in windows."""

import json
import math
import pathlib
import sys

import numpy
from safetensors.numpy import load_file
from tokenizers import Tokenizer

WINDOW = 512


def tokens_of(model: pathlib.Path, text: pathlib.Path, limit: int) -> list[int]:
    """The first tokens of a text, by the checkpoint's own tokenizer, with what it puts before a text."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    # A few characters per token are plenty; the cut falls behind the tokens that count.
    start = text.read_bytes().decode()[: 12 * limit]
    return tokenizer.encode(start).ids[:limit]


def windows(tokens: list[int]) -> list[list[int]]:
    return [tokens[at : at + WINDOW] for at in range(0, len(tokens) // WINDOW * WINDOW, WINDOW)]


def negative_log_likelihoods(logits: numpy.ndarray, tokens: list[int]) -> numpy.ndarray:
    """Nats of each token but the first, `logits` [tokens, vocabulary]."""
    logits = logits[:-1].astype(numpy.float64)
    largest = logits.max(axis=1, keepdims=True)
    normalizer = numpy.log(numpy.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    return normalizer - logits[numpy.arange(len(logits)), tokens[1:]]


def perplexity(logits_of, tokens: list[int]) -> float:
    losses = [negative_log_likelihoods(logits_of(window), window) for window in windows(tokens)]
    return math.exp(numpy.concatenate(losses).mean())


def compare_logits(theirs: numpy.ndarray, ours: pathlib.Path) -> dict:
    """Relative to our logits: root mean square of the difference, and its largest value over the largest logit."""
    ours = load_file(ours)["logits"].astype(numpy.float64)
    difference = theirs.astype(numpy.float64) - ours
    return {
        "relative_rms": float(numpy.sqrt((difference**2).mean() / (ours**2).mean())),
        "relative_max": float(abs(difference).max() / abs(ours).max()),
        "absolute_max": float(abs(difference).max()),
        "same_top_1": float((theirs.argmax(axis=1) == ours.argmax(axis=1)).mean()),
    }


def answer(result: dict) -> None:
    """The last line a client prints is its answer."""
    sys.stdout.write("\n" + json.dumps(result) + "\n")
