"""The models that are built in benchmarks: Llama in the shape of SmolLM2-135M with random bfloat16 weights."""

from pathlib import Path

import torch

RANK = 16
"""Of the adapters."""


def make_models(folder: Path, experts: int, layers: int = 30) -> list[Path]:
    """Write base and experts as transformers folders; returns their paths, the base first. 30 layers are 135M weights.

    Changes are normal with a standard deviation of 2e-3, a tenth of the base's.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=2048, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    paths = [folder / "base"]
    model.save_pretrained(paths[0])
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    for k in range(experts):
        generator = torch.Generator().manual_seed(k + 1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator) * 2e-3
                parameter.copy_(base[name].float() + noise)
        paths.append(folder / f"expert{k}")
        model.save_pretrained(paths[-1])
    return paths


def load_models(paths: list[Path]) -> tuple[dict[str, torch.Tensor], ...]:
    """State dicts in memory of our own, so that no file is read while something is timed."""
    from mergesearch.checkpoints.load import load_tensors
    from mergesearch.checkpoints.reader import Checkpoint

    opened = [Checkpoint.open(path) for path in paths]
    return tuple({n: t.clone() for n, t in load_tensors(c, sorted(c.names)).items()} for c in opened)


def make_adapters(base: dict[str, torch.Tensor], experts: int) -> list[dict[str, "object"]]:
    """LoRA adapters of rank `RANK` on every matrix of the layers."""
    from mergesearch.checkpoints.adapter import LowRank

    found = []
    for k in range(experts):
        generator = torch.Generator().manual_seed(100 + k)
        found.append(
            {
                name: LowRank(
                    torch.randn((t.shape[0], RANK), generator=generator) * 0.02,
                    torch.randn((RANK, t.shape[1]), generator=generator) * 0.02,
                    2.0,
                )
                for name, t in base.items()
                if t.ndim == 2 and ".layers." in name
            }
        )
    return found
