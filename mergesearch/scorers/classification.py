"""Metrics of a classifier, per example: accuracy and cross-entropy loss from its logits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.errors import EvaluationError
from mergesearch.scorers.base import Metric
from mergesearch.types import Direction

METRICS: Mapping[str, Metric] = MappingProxyType(
    {"accuracy": Metric(Direction.MAX, 0.0, 1.0), "loss": Metric(Direction.MIN, 0.0, None)}
)


def score_logits(
    logits_of: Callable[[NDArray[np.int64]], torch.Tensor],
    labels: NDArray[np.int64],
    batches: Sequence[NDArray[np.int64]],
) -> Mapping[str, NDArray[np.float32]]:
    """Per-example metrics (n,) in the order of `labels` (n,).

    `logits_of(rows)` gives (len(rows), classes) for one batch of positions; the batches cover every position once.
    A row of logits that is not finite has no prediction: both of its metrics are NaN.

    Raises:
        EvaluationError: the model has fewer classes than the labels of a batch need.
    """
    found = {name: np.empty(len(labels), dtype=np.float32) for name in METRICS}
    with torch.no_grad():  # not inference mode: what is kept must also do for a pass with gradients
        for rows in batches:
            logits = logits_of(rows).float()  # (b, classes)
            for name, values in metrics_of(logits, torch.from_numpy(labels[rows]).to(logits.device)).items():
                found[name][rows] = values
    return found


def metrics_of(logits: torch.Tensor, target: torch.Tensor) -> Mapping[str, NDArray[np.float32]]:
    """Every metric (b,) of float32 logits (b, classes) and the right classes (b,); NaN where a row is not finite.

    Raises:
        EvaluationError: the model has fewer classes than the labels need.
    """
    highest = int(target.max()) if target.numel() else 0
    if logits.ndim != 2 or logits.shape[1] <= highest:
        raise EvaluationError(
            f"the model gives logits of shape {tuple(logits.shape)}, the labels go up to {highest}; "
            "is this the head of another task?"
        )
    unsound = ~torch.isfinite(logits).all(dim=1)
    right = (logits.argmax(dim=1) == target).float().masked_fill(unsound, float("nan"))
    wrong = torch.nn.functional.cross_entropy(logits, target, reduction="none").masked_fill(unsound, float("nan"))
    return {"accuracy": right.cpu().numpy(), "loss": wrong.cpu().numpy()}


def in_order(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Positions 0 to `count` in batches of `size`."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count), dtype=np.int64)


def place_of(model: torch.nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and floating dtype of a model's first parameter."""
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    return parameter.device, parameter.dtype
