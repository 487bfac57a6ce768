"""Losses of a classifier that can be differentiated, and what its expert taught for those that need no labels.

'loss' is the cross-entropy of the labels. 'entropy' is that of the predictions, over log C so that tasks of many
classes do not dominate (AdaMerging, arXiv:2310.02575; the division is ours). It also falls when a model is confidently
wrong, and lets a few experts win: watch accuracy, which comes from the same forward pass. 'kl' is KL(expert || merged)
of the logits. 'alignment' adds to T² · kl the squared distance of hidden states from the expert's, of each layer over
the mean square of the expert's own, so that no layer or outlying channel dominates (after Expert Merging,
arXiv:2509.25712, with its T = 1 and weight 1; the paper takes middle layers: that these are three, at a third, half and
two thirds of the depth, is ours, and so is the division). All in float32, whatever the model computes in.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.nn.utils.rnn import pad_sequence

from mergesearch.errors import EvaluationError
from mergesearch.scorers.base import DifferentiableLoss
from mergesearch.scorers.classification import metrics_of

LOSSES: Mapping[str, DifferentiableLoss] = MappingProxyType(
    {
        "loss": DifferentiableLoss(labels=True),
        "kl": DifferentiableLoss(teacher=True),
        "entropy": DifferentiableLoss(),
        "alignment": DifferentiableLoss(teacher=True),
    }
)
_TEMPERATURE = 1.0
_DEPTHS = (1 / 3, 1 / 2, 2 / 3)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of a batch: logits (b, classes), and if asked for its hidden states.

    `hidden`: (b, ...) of the embedding and of each layer. `mask` (b, tokens), 1 where a token is no padding, for hidden
    states of (b, tokens, width); None: there is no padding.
    """

    logits: torch.Tensor
    hidden: Sequence[torch.Tensor] = ()
    mask: torch.Tensor | None = None


Answer: TypeAlias = Callable[[NDArray[np.int64], bool], Answers]
"""(positions in a split, whether hidden states are wanted) -> the model's answers."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What an expert says of every example of a split, on the CPU.

    `logits` (n, classes) float32. `hidden[layer][i]`: a hidden state of example i without padding, in the model's
    dtype, and `scale[layer]` the mean square of that layer over all examples.
    """

    logits: torch.Tensor
    hidden: Mapping[int, Sequence[torch.Tensor]]
    scale: Mapping[int, float]


def learn(answer: Answer, count: int, batches: Sequence[NDArray[np.int64]], loss: str) -> Lesson:
    """The lesson of an expert for one loss; the batches cover the positions 0 to `count` once.

    Raises:
        EvaluationError: the expert's answers are not finite, or it shows no hidden states where they are needed.
    """
    deep = loss == "alignment"
    logits: list[torch.Tensor] = [torch.empty(0)] * count
    hidden: dict[int, list[torch.Tensor]] = {}
    squares: dict[int, float] = {}
    entries: dict[int, int] = {}
    with torch.no_grad():  # not inference mode: what is kept must also do for a pass with gradients
        for rows in batches:
            said = answer(rows, deep)
            for i, row in zip(rows.tolist(), said.logits.float().cpu(), strict=True):
                logits[i] = row
            for layer in middle(len(said.hidden)) if deep else ():
                states = said.hidden[layer].cpu()
                lengths = [states.shape[1]] * len(rows) if said.mask is None else said.mask.sum(dim=1).tolist()
                for i, state, length in zip(rows.tolist(), states, lengths, strict=True):
                    kept = state[:length]
                    hidden.setdefault(layer, [torch.empty(0)] * count)[i] = kept
                    squares[layer] = squares.get(layer, 0.0) + float(kept.double().square().sum())
                    entries[layer] = entries.get(layer, 0) + kept.numel()
    taught = torch.stack(logits)
    if not (torch.isfinite(taught).all() and all(map(math.isfinite, squares.values()))):
        raise EvaluationError("the expert that is to teach gives answers that are not finite")
    scale = {layer: squares[layer] / entries[layer] or 1.0 for layer in squares}
    return Lesson(taught, hidden, scale)


def middle(states: int) -> list[int]:
    """Which of so many hidden states, the embedding's first, are compared.

    Raises:
        EvaluationError: there are none beside the embedding's.
    """
    if states < 2:
        raise EvaluationError("this model shows no hidden states, which the loss 'alignment' compares; use 'kl'")
    return sorted({max(round((states - 1) * depth), 1) for depth in _DEPTHS})


def loss_batches(
    answer: Answer, labels: NDArray[np.int64], batches: Sequence[NDArray[np.int64]], loss: str, lesson: Lesson | None
) -> Iterator[tuple[torch.Tensor, Mapping[str, NDArray[np.float32]]]]:
    """For each batch of positions: the loss per example (b,) with its graph, and every metric.

    `labels` are those of the whole split. See `DifferentiableScorer.losses`.

    Raises:
        EvaluationError: the loss is unknown, or needs a lesson that was not given.
    """
    if loss not in LOSSES:
        raise EvaluationError(f"a classifier has no differentiable loss {loss!r}, only {', '.join(map(repr, LOSSES))}")
    if LOSSES[loss].teacher and lesson is None:
        raise EvaluationError(f"the loss {loss!r} is measured against an expert, which has not been asked yet")
    for rows in batches:
        with torch.enable_grad():
            said = answer(rows, loss == "alignment")
            target = torch.from_numpy(labels[rows]).to(said.logits.device)
            metrics = metrics_of(said.logits.detach().float(), target)
            values = _values(said, target, loss, lesson, rows)
        yield values, metrics


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of the predictions (b,) over its largest value log C, from logits (b, C): 0 to 1."""
    log_p = log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1) / math.log(max(logits.shape[1], 2))


def _values(
    said: Answers, target: torch.Tensor, loss: str, lesson: Lesson | None, rows: NDArray[np.int64]
) -> torch.Tensor:
    logits = said.logits.float()
    if loss == "loss":
        return cross_entropy(logits, target, reduction="none")
    if loss == "entropy":
        return entropy(logits)
    assert lesson is not None
    taught = lesson.logits[torch.from_numpy(rows)].to(logits.device)
    if taught.shape != logits.shape:
        raise EvaluationError(
            f"the expert that teaches knows {taught.shape[1]} classes, the merged model {logits.shape[1]}: let the "
            "objective wear its teacher's head"
        )
    heat = _TEMPERATURE if loss == "alignment" else 1.0
    expert, merged = log_softmax(taught / heat, dim=1), log_softmax(logits / heat, dim=1)
    found = heat**2 * kl_div(merged, expert, reduction="none", log_target=True).sum(dim=1)
    for layer, scale in lesson.scale.items() if loss == "alignment" else ():
        found = found + _distance(said, layer, lesson.hidden[layer], rows) / (scale * len(lesson.scale))
    return found


def _distance(said: Answers, layer: int, taught: Sequence[torch.Tensor], rows: NDArray[np.int64]) -> torch.Tensor:
    """Mean squared distance (b,) of a layer's hidden states from the expert's, without padding."""
    states = said.hidden[layer].float()
    wanted = pad_sequence([taught[i] for i in rows.tolist()], batch_first=True).to(states.device).float()
    squares = (states - wanted).square()
    if said.mask is None:
        return squares.flatten(1).mean(dim=1)
    mask = said.mask.to(squares.dtype)  # (b, tokens)
    return (squares * mask[:, :, None]).sum(dim=(1, 2)) / (mask.sum(dim=1) * squares.shape[2])
