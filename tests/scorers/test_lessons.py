"""Promises of the differentiable losses of classifiers."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_scorer_contract import image_case, text_case

from mergesearch.errors import EvaluationError
from mergesearch.scorers.base import DifferentiableScorer
from mergesearch.scorers.lessons import Answers, entropy, learn, loss_batches, middle
from mergesearch.types import Split

X = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
BASE = torch.tensor([[0.2, 0.0, -0.1], [0.0, 0.1, 0.3]], dtype=torch.float64)
CHANGES = torch.tensor([[[1.0, -0.5, 0.0], [0.2, 0.1, 0.0]], [[-0.3, 0.4, 0.1], [0.0, -1.0, 0.5]]], dtype=torch.float64)


def test_entropy_and_its_gradient_are_those_worked_out_by_hand() -> None:
    """One layer, three classes, two experts at 0.3: H = 1.061979 and dH/dλ = (-.116253, .039784), over log 3."""
    weights = torch.tensor([0.3, 0.3], dtype=torch.float64, requires_grad=True)
    value = entropy(X @ (BASE + (weights[:, None, None] * CHANGES).sum(dim=0)))
    value.sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    assert value.item() * math.log(3) == pytest.approx(1.061979, abs=1e-6)
    np.testing.assert_allclose(weights.grad.numpy() * math.log(3), [-0.116253, 0.039784], atol=1e-6)


def test_entropy_does_not_favour_tasks_of_many_classes() -> None:
    """Predictions that know nothing have entropy 1 whatever the number of classes; sure ones, and a single class, 0."""
    for classes in (2, 10, 1000):
        assert entropy(torch.zeros(1, classes)).item() == pytest.approx(1.0, abs=1e-5)
        assert entropy(1e4 * torch.eye(classes)[:1]).item() == 0.0
    assert entropy(torch.randn(4, 1)).tolist() == [0.0] * 4


def test_three_middle_layers_are_compared() -> None:
    """At a third, half and two thirds of the depth, never the embedding; a single layer is its own middle."""
    assert middle(13) == [4, 6, 8]
    assert middle(3) == [1]
    assert middle(2) == [1]
    with pytest.raises(EvaluationError, match="use 'kl'"):
        middle(0)


def answers(
    logits: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor | None, rows: NDArray[np.int64], deep: bool
) -> Answers:
    """A model of tables: one middle layer."""
    picked = torch.from_numpy(rows)
    states = (torch.zeros(0), hidden[picked]) if deep else ()
    return Answers(logits[picked], states, None if mask is None else mask[picked])


def total(loss: str, taught: tuple[torch.Tensor, ...], live: tuple[torch.Tensor, ...], mask: torch.Tensor | None):
    """The loss of each of two examples."""
    rows = [np.array([1]), np.array([0])]
    lesson = learn(partial(answers, *taught, mask), 2, rows, loss)
    found = list(loss_batches(partial(answers, *live, mask), np.array([0, 1]), [np.array([0, 1])], loss, lesson))
    return found[0][0]


def test_kl_goes_from_the_expert_to_the_merge() -> None:
    """Σ p_expert (log p_expert - log p_merged), of logits in float32."""
    expert, merged = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    hidden = torch.ones(2, 3, 4)
    p = torch.softmax(expert, dim=1)
    wanted = (p * (p.log() - torch.log_softmax(merged, dim=1))).sum(dim=1)
    found = total("kl", (expert, hidden), (merged.bfloat16(), hidden), None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_hidden_states_are_compared_over_the_size_of_the_experts(scale: float, dtype: torch.dtype) -> None:
    """Twice the expert's states are at distance 1 whatever their size, also where float16 would overflow; padding does
    not count."""
    logits, generator = torch.zeros(2, 3), torch.Generator().manual_seed(0)
    hidden = scale * torch.sign(torch.randn(2, 5, 4, generator=generator)).to(dtype)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    other = 2 * hidden + 100 * (1 - mask)[:, :, None].to(dtype)
    torch.testing.assert_close(total("alignment", (logits, hidden), (logits, other), mask), torch.ones(2))


def test_an_expert_that_answers_nan_cannot_teach() -> None:
    """It is refused when it is asked, not found out in a gradient."""
    with pytest.raises(EvaluationError, match="not finite"):
        total("kl", (torch.full((2, 2), math.nan), torch.ones(2, 1, 1)), (torch.zeros(2, 2), torch.ones(2, 1, 1)), None)


@pytest.mark.parametrize("make", [image_case, text_case])
def test_batches_change_no_loss_but_by_rounding(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Batches of 1 and of all give the same losses, padding or none, and a model that has moved the same in both."""
    case, found = make(tmp_path), []
    for size in (1, 100):
        scorer, model = case.scorer(batch_size=size), case.load()
        assert isinstance(scorer, DifferentiableScorer)
        for name in ("kl", "alignment"):
            scorer.teach(model, Split.SEARCH, name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.8)
        every = np.arange(scorer.count(Split.SEARCH))
        found.append(
            {
                name: torch.cat([v for v, _ in scorer.losses(model, Split.SEARCH, every, name)]).detach()
                for name in scorer.LOSSES
            }
        )
    for name, values in found[0].items():
        torch.testing.assert_close(values, found[1][name], rtol=1e-3, atol=1e-5)
