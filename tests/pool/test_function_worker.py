"""Promises of the worker that calls a black-box function."""

from typing import Any

import numpy as np
import pytest

from mergesearch.pool.base import Job
from mergesearch.pool.function import FunctionWorker
from mergesearch.recipe import Recipe
from mergesearch.types import Failed, Score, Scored, Split

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
