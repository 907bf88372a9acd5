"""Tiny models of transformers on disk, of random weights, with a tokenizer of their own. Nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch


def tokenizer(folder: Path, text: str, size: int = 300) -> None:
    """A byte-level BPE of up to `size` tokens trained on a text, and an end of text."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<|end|>"], initial_alphabet=sorted(alphabet))
    made.train_from_iterator([text], trainer)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>"
    ).save_pretrained(folder)


def llama(folder: Path, text: str, seed: int = 0, tied: bool = False, size: int = 300) -> Path:
    """A LlamaForCausalLM of two layers, width 32, four heads that share two heads of keys."""
    import transformers

    tokenizer(folder, text, size)
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=192, tie_word_embeddings=tied,
        bos_token_id=0, eos_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    return _saved(transformers.LlamaForCausalLM, config, folder, seed)


def windowed(folder: Path, text: str, window: int) -> Path:
    """A MistralForCausalLM that attends to the last `window` tokens only."""
    import transformers

    tokenizer(folder, text)
    config = transformers.MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=192, sliding_window=window, initializer_range=0.2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return _saved(transformers.MistralForCausalLM, config, folder, 0)


def convolving(folder: Path, text: str) -> Path:
    """An Lfm2ForCausalLM, one of whose layers has a convolution in place of keys and values."""
    import transformers

    tokenizer(folder, text)
    config = transformers.Lfm2Config(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=192, layer_types=["conv", "full_attention"],
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return _saved(transformers.Lfm2ForCausalLM, config, folder, 0)


def _saved(kind, config, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder)
    return folder
