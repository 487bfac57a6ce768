"""What every scorer promises. A test module imports these tests and gives a fixture `case`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mergesearch.errors import DataError, EvaluationError
from mergesearch.plugins import load, parse_options
from mergesearch.scorers import SCORERS
from mergesearch.scorers.base import DifferentiableScorer, Scorer, ScorerContext
from mergesearch.types import Request, Split

SIZES = {"search": 12, "confirm": 7, "test": 9}


@dataclass(frozen=True)
class ScorerCase:
    """A scorer's kind, a model folder and a data file of 40 rows for it, other options, and how to load the model."""

    kind: str
    model: Path
    data: Path
    load: Callable[[], torch.nn.Module]
    options: Mapping[str, Any]

    def scorer(self, seed: int = 0, **options: Any) -> Scorer:
        """The scorer on this case's data, with some options replaced."""
        plugin = load("scorer", SCORERS, self.kind)
        given = {"path": str(self.data), "sizes": SIZES, **self.options, **options}
        context = ScorerContext(self.model, self.data.parent, seed)
        scorer: Scorer = plugin(parse_options("data", plugin.Options, given), context)
        return scorer


def test_gives_every_metric_for_every_example(case: ScorerCase) -> None:
    """Each metric is float32 (n,) and finite for a sound model, within its bounds, for each split."""
    scorer, model = case.scorer(), case.load()
    for split in Split:
        values = scorer.score(model, split)
        assert list(values) == list(scorer.METRICS)
        for name, metric in scorer.METRICS.items():
            assert values[name].shape == (SIZES[split.value],)
            assert values[name].dtype == np.float32
            assert metric.low is None or (values[name] >= metric.low).all()
            assert metric.high is None or (values[name] <= metric.high).all()
            assert np.isfinite(values[name]).all()


def test_same_model_same_bits(case: ScorerCase) -> None:
    """The same model scores the same to the bit, again and from a new scorer, in whatever order splits are read."""
    model, scorer, other = case.load(), case.scorer(), case.scorer()
    other.score(model, Split.TEST)
    first = scorer.score(model, Split.SEARCH)
    for again in (scorer.score(model, Split.SEARCH), other.score(model, Split.SEARCH)):
        assert all(first[name].tobytes() == again[name].tobytes() for name in first)


def test_the_model_is_not_changed(case: ScorerCase) -> None:
    """Scoring leaves weights, mode and gradients as they were."""
    model = case.load()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    case.scorer().score(model, Split.SEARCH)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_batch_size_changes_nothing_but_rounding(case: ScorerCase) -> None:
    """Batches of 1, 5 and all give the same values in the same order, up to float32 rounding."""
    model = case.load()
    one, five, whole = (case.scorer(batch_size=size).score(model, Split.SEARCH) for size in (1, 5, 100))
    for name in one:
        np.testing.assert_allclose(one[name], whole[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(five[name], whole[name], rtol=1e-4, atol=1e-5)


def test_a_smaller_split_is_a_prefix(case: ScorerCase) -> None:
    """The first n examples are the same whatever the split's size; test and confirm do not move with search."""
    model = case.load()
    small, large = case.scorer(sizes={**SIZES, "search": 5}), case.scorer(sizes={**SIZES, "search": 20})
    name = list(small.METRICS)[-1]
    few, many = (s.score(model, Split.SEARCH)[name] for s in (small, large))
    np.testing.assert_allclose(few, many[:5], rtol=1e-4, atol=1e-5)
    for split in (Split.CONFIRM, Split.TEST):
        assert small.score(model, split)[name].tobytes() == large.score(model, split)[name].tobytes()


def test_the_seed_fixes_the_examples(case: ScorerCase) -> None:
    """Another seed takes other examples."""
    model = case.load()
    name = list(case.scorer().METRICS)[-1]
    one, other = (case.scorer(seed).score(model, Split.SEARCH)[name] for seed in (0, 1))
    assert one.tobytes() != other.tobytes()


def test_a_broken_model_scores_nan(case: ScorerCase) -> None:
    """Weights that are NaN make every metric NaN, so that no failed candidate looks like a bad one."""
    model = case.load()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    values = case.scorer().score(model, Split.SEARCH)
    assert all(np.isnan(array).all() for array in values.values())


def test_check_accepts_sound_data(case: ScorerCase) -> None:
    """Data that can be scored pass the check."""
    case.scorer().check()


def test_check_refuses_too_few_rows(case: ScorerCase) -> None:
    """A file with fewer rows than its splits ask for is refused with the counts."""
    with pytest.raises(DataError, match=r"has 40 rows, its splits ask for 45 \(search 20 \+ confirm 10 \+ test 15\)"):
        case.scorer(sizes={"search": 20, "confirm": 10, "test": 15}).check()


def test_check_refuses_a_missing_file(case: ScorerCase) -> None:
    """A path that leads nowhere is refused with the near name."""
    with pytest.raises(DataError, match=f"does not exist; did you mean {case.data.name!r}"):
        case.scorer(path=f"x{case.data.name}").check()


def test_check_refuses_a_missing_column(case: ScorerCase) -> None:
    """A label column that is not there is refused with the near name."""
    with pytest.raises(DataError, match=r"has no (column|array) 'labels'; did you mean 'label'"):
        case.scorer(label="labels").check()


def test_building_it_opens_nothing(case: ScorerCase) -> None:
    """A scorer of data that do not exist can be built; its check says what is missing."""
    scorer = case.scorer(path="nowhere/else.csv")
    with pytest.raises(DataError, match=r"does not exist"):
        scorer.check()


def test_counts_its_examples(case: ScorerCase) -> None:
    """`count` is how many examples each split has."""
    scorer = case.scorer()
    assert {split.value: scorer.count(split) for split in Split} == SIZES


def test_rows_are_scored_in_their_order(case: ScorerCase) -> None:
    """Any rows, in any order, have the values they have among all, up to rounding; all in order are the same bits."""
    model, scorer = case.load(), case.scorer()
    whole = scorer.score(model, Split.SEARCH)
    every = scorer.score(model, Split.SEARCH, np.arange(SIZES["search"]))
    requests = [Request(0.5), Request(0.5, 0.75), Request(0.01, 0.99)]
    windows = [request.rows(SIZES["search"]) for request in requests]
    for name, values in whole.items():
        assert every[name].tobytes() == values.tobytes()
        for rows in (*windows, np.array([0, 5, 2])):
            some = scorer.score(model, Split.SEARCH, rows)[name]
            assert (some.dtype, some.shape) == (np.float32, rows.shape)
            np.testing.assert_allclose(some, values[rows], rtol=1e-4, atol=1e-5)


def test_losses_come_with_their_gradients_and_every_metric(case: ScorerCase) -> None:
    """Each loss it names: finite, at least 0, with a gradient for the weights, over the rows in their order; the
    metrics are those of `score`. Taught by the model itself, what compares it with its teacher is 0."""
    model, scorer = case.load(), case.scorer(batch_size=5)
    if not isinstance(scorer, DifferentiableScorer):
        return
    metrics, rows = scorer.score(model, Split.SEARCH), Request(0.75, 0.5).rows(SIZES["search"])
    model.requires_grad_(True)
    for name, needs in scorer.LOSSES.items():
        if needs.teacher:
            scorer.teach(model, Split.SEARCH, name)
        found = list(scorer.losses(model, Split.SEARCH, rows, name))
        values = torch.cat([values for values, _ in found])
        assert values.shape == rows.shape
        assert torch.isfinite(values).all()
        assert (values.detach() >= -1e-6).all()
        if needs.teacher:
            np.testing.assert_allclose(values.detach().numpy(), 0.0, atol=1e-5)
        for metric, whole in metrics.items():
            given = np.concatenate([arrays[metric] for _, arrays in found])
            np.testing.assert_allclose(given, whole[rows], rtol=1e-4, atol=1e-5)
        model.zero_grad()
        values.sum().backward()
        assert any(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        assert needs.teacher or any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    if "loss" in scorer.LOSSES:
        found = list(scorer.losses(model, Split.SEARCH, rows, "loss"))
        np.testing.assert_allclose(
            torch.cat([v for v, _ in found]).detach(), metrics["loss"][rows], rtol=1e-4, atol=1e-5
        )
        assert next(iter(scorer.LOSSES)) == "loss"


def test_what_a_teacher_taught_is_kept(case: ScorerCase) -> None:
    """A loss against a teacher grows once the model has moved; a teacher that was not asked is missed."""
    model, scorer = case.load(), case.scorer()
    if not isinstance(scorer, DifferentiableScorer):
        return
    rows = np.arange(SIZES["search"])
    taught = [name for name, needs in scorer.LOSSES.items() if needs.teacher]
    for name in taught:
        with pytest.raises(EvaluationError, match="has not been asked"):
            next(iter(scorer.losses(model, Split.SEARCH, rows, name)))
        scorer.teach(model, Split.SEARCH, name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    for name in taught:
        values = torch.cat([values for values, _ in scorer.losses(model, Split.SEARCH, rows, name)])
        assert float(values.detach().mean()) > 1e-4
    with pytest.raises(EvaluationError, match="no differentiable loss 'none'"):
        next(iter(scorer.losses(model, Split.SEARCH, rows, "none")))
