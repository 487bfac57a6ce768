"""The public search on black boxes."""

import numpy as np
import pytest

import mergesearch
from mergesearch.errors import SpecError, StudyFailed
from mergesearch.strategies import STRATEGIES

SPACE = mergesearch.SearchSpace.box(3, -1.0, 1.0)
BOTH = {"good": "max", "cost": "min"}


def trade_off(values: np.ndarray) -> dict[str, float]:
    return {"good": 1.0 - float(((values - 0.5) ** 2).mean()), "cost": float(np.abs(values).mean())}


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_every_strategy_searches_a_black_box(kind: str) -> None:
    """The budget exactly, a front whose members no other beats, a best one."""
    result = mergesearch.search(trade_off, SPACE, BOTH, kind, evaluations=40, seed=1)
    assert len(result.evaluations) == 40
    assert result.best is not None
    assert result.failed == 0
    for member in result.front:
        for other in result.evaluations:
            assert not (other.scores["good"] > member.scores["good"] and other.scores["cost"] < member.scores["cost"])
    assert all(np.all(np.abs(found.values) <= 1.0) for found in result.evaluations)


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_the_same_seed_gives_the_same_search(kind: str) -> None:
    """Two runs agree in every value; another seed differs."""
    runs = [mergesearch.search(trade_off, SPACE, BOTH, kind, 15, seed) for seed in (1, 1, 2)]
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
        ({"options": {"sigma": 1.0}}, "unknown key 'sigma'; did you mean 'sigma0'"),
    ],
)
def test_bad_arguments_are_one_sentence(change: dict[str, object], sentence: str) -> None:
    """What is wrong and what was meant."""
    arguments: dict[str, object] = {"objectives": BOTH, "strategy": "cma_es"} | change
    with pytest.raises(SpecError, match=sentence):
        mergesearch.search(trade_off, SPACE, **arguments)  # type: ignore[arg-type]
