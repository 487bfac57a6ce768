"""What mergekit does with the configurations that we write, as we read it; mergekit itself is not run by the tests.

One tensor at a time: filters by substring with the first match winning, numbers per model, a base that is added without
a weight (mergekit 0.1.4 and 0.1.5). It checks the configurations' numbers and layers, not that the reading is right.
"""

from typing import Any

import numpy as np
import torch

from mergesearch.export.filters import evaluate

Model = dict[str, torch.Tensor]


def merged_by(body: dict[str, Any], models: dict[str, Model], name: str) -> torch.Tensor:
    """One tensor as mergekit merges it by the configuration `body`; `models` by folder."""
    base = models[body["base_model"]][name]
    entries = body["models"]
    shared = {key: evaluate(value, name) for key, value in body.get("parameters", {}).items()}

    def own(entry: dict[str, Any], key: str) -> float:
        value = evaluate(entry["parameters"][key], name)
        assert value is not None, f"mergekit: missing required parameter {key} for {name}"
        return value

    if body["merge_method"] == "slerp":
        t = shared["t"]
        assert t is not None
        assert [entry["model"] for entry in entries] == [body["base_model"], entries[1]["model"]]
        return slerp(t, base, models[entries[1]["model"]][name])
    tensors = [models[entry["model"]][name] for entry in entries]
    weights = torch.tensor([own(entry, "weight") for entry in entries]).reshape(-1, *[1] * base.ndim)
    if body["merge_method"] == "linear":
        assert body["base_model"] in [entry["model"] for entry in entries], "a base without a weight breaks linear"
        total = (weights * torch.stack(tensors)).sum(0)
        return total / weights.sum(0) if shared["normalize"] else total
    deltas = torch.stack([t - base for t in tensors])
    if body["merge_method"] == "ties":
        for delta, entry in zip(deltas, entries, strict=True):
            kept = delta.abs().flatten().argsort(descending=True)[: int(own(entry, "density") * delta.numel())]
            assert len(kept) > 0, "mergekit refuses a density that keeps nothing"
            delta *= torch.zeros(delta.numel()).index_fill(0, kept, 1.0).reshape(delta.shape)
        weighted = deltas * weights
        mask = weighted.sign() == (weighted.sum(0) >= 0).float() * 2 - 1
        mixed, divisor = (weighted * mask).sum(0), (weights * mask).sum(0)
        divisor[divisor == 0] = 1
    else:
        assert body["merge_method"] == "task_arithmetic"
        mixed, divisor = (deltas * weights).sum(0), weights.sum(0)
        divisor[divisor.abs() < 1e-8] = 1
    if shared["normalize"]:
        mixed = mixed / divisor
    return base + mixed * (1.0 if shared["lambda"] is None else shared["lambda"])


def slerp(t: float, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """mergekit's slerp."""
    dot = float((a / a.norm() * (b / b.norm())).sum())
    if abs(dot) > 0.9995:
        return (1 - t) * a + t * b
    theta = np.arccos(dot)
    return (np.sin((1 - t) * theta) * a + np.sin(t * theta) * b) / np.sin(theta)
