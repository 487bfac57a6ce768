"""Tiny random Llamas for tests."""

from pathlib import Path

import torch
from tiny import save
from transformers import LlamaConfig, LlamaForCausalLM


def make_llama(
    folder: Path,
    seed: int = 0,
    base: Path | None = None,
    *,
    layers: int = 3,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A LlamaForCausalLM of a few thousand weights."""
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied,
    )  # fmt: skip
    return save(folder, LlamaForCausalLM, config, seed, base, dtype)
