"""The public search on black boxes."""

import numpy as np
import pytest
from contracts.strategy import QUICK

import mergesearch
from mergesearch.controller.search import SearchResult
from mergesearch.errors import SpecError, StudyFailed
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Need
from mergesearch.strategies.make import needs

SPACE = mergesearch.SearchSpace.box(3, -1.0, 1.0)
BOTH = {"good": "max", "cost": "min"}


def trade_off(values: np.ndarray) -> dict[str, float]:
    return {"good": 1.0 - float(((values - 0.5) ** 2).mean()), "cost": float(np.abs(values).mean())}


class TradeOff:
    """The same, and how it changes."""

    def __call__(self, values: np.ndarray) -> dict[str, float]:
        return trade_off(values)

    def gradients(self, values: np.ndarray) -> dict[str, np.ndarray]:
        return {"good": -2 * (values - 0.5) / 3, "cost": np.sign(values) / 3}


def with_gradients(kind: str) -> bool:
    """Whether a strategy can search nothing else."""
    return Need.GRADIENTS in needs(kind, {})


def search(kind: str, evaluations: float, seed: int) -> SearchResult:
    """A search by that kind, made quick."""
    options = dict(QUICK.get(kind, {})) | ({"loss": "loss"} if with_gradients(kind) else {})
    function = TradeOff() if with_gradients(kind) else trade_off
    return mergesearch.search(function, SPACE, BOTH, kind, evaluations, seed, options=options)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_every_strategy_searches_a_black_box(kind: str) -> None:
    """The budget, and never more than it, a front whose members no other beats, a best one."""
    result = search(kind, 20, seed=1)
    assert 16 < result.cost <= 20 + 1e-9
    assert result.cost == 20 or len(result.evaluations) != result.cost
    assert result.best is not None
    assert result.failed == 0
    for member in result.front:
        for other in result.evaluations:
            assert not (other.scores["good"] > member.scores["good"] and other.scores["cost"] < member.scores["cost"])
    assert all(np.all(np.abs(found.values) <= 1.0) for found in result.evaluations)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_the_same_seed_gives_the_same_search(kind: str) -> None:
    """Two runs agree in every value; another seed differs."""
    runs = [search(kind, 12, seed) for seed in (1, 1, 2)]
    first, again, other = ([f.values.tolist() for f in result.evaluations] for result in runs)
    assert first == again
    assert first != other


def test_a_function_that_raises_once_fails_one_candidate() -> None:
    """The others go on."""
    calls = []

    def function(values: np.ndarray) -> dict[str, float]:
        calls.append(values)
        if len(calls) == 4:
            raise RuntimeError("out of luck")
        return trade_off(values)

    result = mergesearch.search(function, SPACE, BOTH, "random", 10)
    assert (len(result.evaluations), result.failed) == (9, 1)


def test_a_function_that_always_raises_stops_the_search() -> None:
    """With the last message in the sentence."""

    def function(values: np.ndarray) -> dict[str, float]:
        raise RuntimeError("no GPU today")

    with pytest.raises(StudyFailed, match="no GPU today"):
        mergesearch.search(function, SPACE, {"good": "max"}, "random", 10)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"objectives": {"good": "maximise"}}, "must be 'max' or 'min'"),
        ({"objectives": {}}, "at least one objective"),
        ({"strategy": "cmaes"}, "did you mean 'cma_es'"),
        ({"strategy": "adamerging"}, "asks for gradients"),
        ({"evaluations": 0.5}, "evaluations >= 1"),
        ({"evaluations": float("nan")}, "evaluations >= 1"),
        ({"gradient_cost": 0.0}, "gradient_cost > 0"),
        ({"start": [0.5]}, "3 finite natural values each"),
        ({"seeds": [[0.0, 0.1, np.nan]]}, "3 finite natural values each"),
        ({"options": {"sigma": 1.0}}, "unknown key 'sigma'; did you mean 'sigma0'"),
    ],
)
def test_bad_arguments_are_one_sentence(change: dict[str, object], sentence: str) -> None:
    """What is wrong and what was meant."""
    arguments: dict[str, object] = {"objectives": BOTH, "strategy": "cma_es"} | change
    with pytest.raises(SpecError, match=sentence):
        mergesearch.search(trade_off, SPACE, **arguments)  # type: ignore[arg-type]


def test_a_search_begins_where_it_is_told() -> None:
    """`start` in natural values, clipped to the space; a float budget counts whole evaluations."""
    result = mergesearch.search(trade_off, SPACE, BOTH, "random", 3.5, start=[0.25, -0.5, 7.0])
    first = min(result.evaluations, key=lambda found: found.number)
    assert first.origin == "start"
    assert first.values.tolist() == pytest.approx([0.25, -0.5, 1.0])
    assert len(result.evaluations) == result.cost == 3


def test_gradients_of_a_function_cost_what_is_said() -> None:
    """An object with `gradients` serves strategies that follow them: exact budget, and better than where it began."""
    result = mergesearch.search(TradeOff(), SPACE, BOTH, "gradient_map", 20, gradient_cost=2.0, start=[1.0, 1.0, 1.0])
    counted = len(result.evaluations)
    assert counted < result.cost <= 20
    assert result.best is not None
    first = min(result.evaluations, key=lambda found: found.number)
    assert result.best.scores["good"] - result.best.scores["cost"] > first.scores["good"] - first.scores["cost"]
