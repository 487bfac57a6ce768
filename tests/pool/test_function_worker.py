"""Promises of the worker that calls a black-box function."""

from typing import Any

import numpy as np
import pytest

from mergesearch.pool.base import Job
from mergesearch.pool.function import FunctionWorker
from mergesearch.recipe import Recipe
from mergesearch.space import Axis, Scale, SearchSpace
from mergesearch.types import Direction, Failed, Request, Score, Scored, Split

JOB = Job(0, Split.SEARCH, np.array([0.25, 0.5]))


def test_scores_arrive_as_numbers() -> None:
    """Any number will do, numpy's too; each is a score of one example."""
    worker = FunctionWorker(lambda values: {"b": 2, "a": np.float32(values.sum())}, ("a", "b"))
    outcome = worker.evaluate(JOB)
    assert isinstance(outcome, Scored)
    assert outcome.scores == {"a": Score(0.75), "b": Score(2.0)}
    assert outcome.metrics["a"] == {"a": Score(0.75)}


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"acc": 1.0}, "EvaluationError", "the function returned no value for objective 'cost'"),
        ({"acc": 1.0, "cots": 2.0}, "EvaluationError", "returned 'cots', no objective; did you mean 'cost'?"),
        (
            0.5,
            "EvaluationError",
            "must return a mapping of objective to number, such as {'acc': 0.5}, it returned float",
        ),
        ({"acc": "high", "cost": 1.0}, "EvaluationError", "value for 'acc' must be a number, it is 'high'"),
        ({"acc": float("inf"), "cost": 1.0}, "not_finite", "objective 'acc' is inf"),
    ],
)
def test_a_wrong_result_is_a_failure(given: Any, kind: str, message: str) -> None:
    """Each way to return the wrong thing gets a sentence, and the study goes on."""
    outcome = FunctionWorker(lambda values: given, ("acc", "cost")).evaluate(JOB)
    assert isinstance(outcome, Failed)
    assert outcome.kind == kind
    assert message in outcome.message


def test_an_exception_is_a_failure() -> None:
    """Its class is the kind, its text the message; without text the class speaks for itself."""

    def function(values: Any) -> Any:
        raise ZeroDivisionError

    outcome = FunctionWorker(function, ("acc",)).evaluate(JOB)
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.message) == ("ZeroDivisionError", "ZeroDivisionError")


def test_the_function_cannot_change_the_job() -> None:
    """It gets a copy of the values."""
    values = np.array([1.0, 2.0])

    def function(given: Any) -> dict[str, float]:
        given[:] = 0.0
        return {"acc": 0.0}

    FunctionWorker(function, ("acc",)).evaluate(Job(0, Split.SEARCH, values))
    assert values.tolist() == [1.0, 2.0]


def test_a_recipe_is_refused() -> None:
    """A function evaluates numbers; a recipe is a failure with a sentence."""
    recipe = Recipe("linear", ("a",), ("g",), {"weight": np.ones((1, 1))})
    outcome = FunctionWorker(lambda values: {"acc": 0.0}, ("acc",)).evaluate(Job(0, Split.SEARCH, recipe))
    assert isinstance(outcome, Failed)
    assert "plain values" in outcome.message


def test_ctrl_c_goes_through() -> None:
    """KeyboardInterrupt is the user's, not the candidate's."""

    def function(values: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionWorker(function, ("acc",)).evaluate(JOB)


class Bowl:
    """Two objectives of two values with their gradients: a score to raise and a cost to lower."""

    def __call__(self, values: Any) -> dict[str, float]:
        return {"acc": 1.0 - float(((values - 3.0) ** 2).sum()), "cost": float(values.sum() ** 2)}

    def gradients(self, values: Any) -> dict[str, Any]:
        return {"acc": -2 * (values - 3.0), "cost": np.full(len(values), 2 * values.sum())}


SPACE = SearchSpace((Axis("a", 1.0, 5.0, 2.0), Axis("b", 0.1, 10.0, 1.0, Scale.LOG)))
DIRECTIONS = {"acc": Direction.MAX, "cost": Direction.MIN}


def asked(point: list[float], gradient: str = "loss", share: float = 1.0) -> Job:
    """A job at a point of SPACE."""
    there = np.array(point)
    return Job(0, Split.SEARCH, SPACE.values(there), Request(share, 0.0, gradient), there)


def test_gradients_are_those_of_the_losses_in_the_unit_cube() -> None:
    """A score to raise has its sign turned, natural slopes become those of the point, and the loss has its name."""
    worker = FunctionWorker(Bowl(), ("acc", "cost"), SPACE, DIRECTIONS)
    outcome = worker.evaluate(asked([0.3, 0.6]))
    assert isinstance(outcome, Scored)
    assert outcome.metrics["acc"]["loss"].value == -outcome.scores["acc"].value
    assert outcome.metrics["cost"]["loss"] == outcome.scores["cost"]
    for i in range(2):
        ends = []
        for h in (1e-6, -1e-6):
            point = [0.3, 0.6]
            point[i] += h
            end = worker.evaluate(asked(point))
            assert isinstance(end, Scored)
            ends.append(end)
        for name, gradient in outcome.gradients.items():
            wanted = (ends[0].metrics[name]["loss"].value - ends[1].metrics[name]["loss"].value) / 2e-6
            assert gradient[i] == pytest.approx(wanted, rel=1e-5)


def test_no_gradient_is_given_unless_it_is_asked_for() -> None:
    """A plain evaluation is that of a plain function, and so is a part of one: it is evaluated whole."""
    worker = FunctionWorker(Bowl(), ("acc", "cost"), SPACE, DIRECTIONS)
    whole, part = worker.evaluate(asked([0.5, 0.5], "")), worker.evaluate(asked([0.5, 0.5], "", 0.2))
    assert isinstance(whole, Scored)
    assert isinstance(part, Scored)
    assert whole.scores == part.scores
    assert not whole.gradients


@pytest.mark.parametrize(
    ("function", "space", "kind", "message"),
    [
        (lambda values: {"acc": 0.0, "cost": 0.0}, SPACE, "EvaluationError", "it needs a method gradients(values)"),
        (Bowl(), None, "EvaluationError", "gradients are taken at a point of a search space"),
        ({"acc": np.zeros(2)}, SPACE, "EvaluationError", "gradients name no objective 'cost'"),
        ({"acc": np.zeros(3), "cost": np.zeros(2)}, SPACE, "EvaluationError", "of 'acc' must have shape (2,)"),
        ({"acc": np.zeros(2), "cost": [0.0, np.nan]}, SPACE, "not_finite", "'cost': its gradient is not finite"),
    ],
)
def test_gradients_that_cannot_be_are_a_failure(function: Any, space: Any, kind: str, message: str) -> None:
    """Each with its sentence."""
    if isinstance(function, dict):
        bowl, given = Bowl(), function
        bowl.gradients = lambda values: given  # type: ignore[method-assign]
        function = bowl
    outcome = FunctionWorker(function, ("acc", "cost"), space, DIRECTIONS).evaluate(asked([0.5, 0.5]))
    assert isinstance(outcome, Failed)
    assert outcome.kind == kind
    assert message in outcome.message
