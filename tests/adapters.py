"""Writers of tiny LoRA adapters in PEFT's format, for tests."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

Factors = tuple[torch.Tensor, torch.Tensor]
"""A [r, in] and B [out, r]."""


def random_factors(
    shapes: Mapping[str, tuple[int, int]], rank: int, seed: int, size: float = 0.2
) -> dict[str, Factors]:
    """Module -> random factors of a linear layer (out, in)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        module: (
            torch.randn(rank, wide, generator=generator) * size,
            torch.randn(out, rank, generator=generator) * size,
        )
        for module, (out, wide) in shapes.items()
    }


def write_adapter(
    folder: Path, factors: Mapping[str, Factors], *, prefix: str = "base_model.model.", **config: object
) -> Path:
    """adapter_config.json and adapter_model.safetensors of `factors`, as `PeftModel.save_pretrained` writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    rank = len(next(iter(factors.values()))[0])
    body = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none", "fan_in_fan_out": False}
    body |= {"target_modules": sorted({name.rpartition(".")[2] for name in factors}), "use_dora": False}
    (folder / "adapter_config.json").write_text(json.dumps(body | config))
    tensors = {}
    for module, (down, up) in factors.items():
        tensors[f"{prefix}{module}.lora_A.weight"] = down.contiguous()
        tensors[f"{prefix}{module}.lora_B.weight"] = up.contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder
