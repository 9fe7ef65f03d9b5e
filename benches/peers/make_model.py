"""A Llama with random weights of a given shape, with a tokenizer trained on a text: python make_model.py TEXT OUT [...]."""

import argparse
import random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("text")
    parser.add_argument("out")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--ffn", type=int, default=2816)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--kv-heads", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=8192)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train([arguments.text], trainers.BpeTrainer(vocab_size=arguments.vocabulary, initial_alphabet=alphabet))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(arguments.out)

    torch.set_default_dtype(torch.bfloat16)  # an 8B-shaped model is never there in f32
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=arguments.hidden,
            intermediate_size=arguments.ffn,
            num_hidden_layers=arguments.layers,
            num_attention_heads=arguments.heads,
            num_key_value_heads=arguments.kv_heads,
            vocab_size=arguments.vocabulary,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(arguments.out, max_shard_size="1GB")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters in {arguments.out}")


main()
