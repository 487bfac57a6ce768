"""What `auto` chooses, and that it says why."""

import numpy as np
import pytest

from mergesearch.plugins import parse_options
from mergesearch.strategies.auto import Auto, Options, choose
from mergesearch.strategies.base import Problem
from mergesearch.strategies.make import make_strategy, needs
from mergesearch.types import Objective

ONE = (Objective("a"),)
TWO = (Objective("a"), Objective("b"))


def problem(dim=8, objectives=TWO, evaluations=100.0, gradients=()):
    """A study of so many axes and objectives."""
    return Problem(dim, objectives, np.full(dim, 0.5), evaluations, gradients=gradients)


@pytest.mark.parametrize(
    ("of", "kind"),
    [
        (problem(gradients=("loss", "kl")), "gradient_map"),
        (problem(objectives=ONE, gradients=("kl",)), "gradient_map"),
        (problem(evaluations=6, gradients=("loss",)), "quadratic"),
        (problem(), "quadratic"),
        (problem(objectives=ONE), "quadratic"),
        (problem(300, ONE), "cma_es"),
        (problem(300, TWO), "nsga2"),
    ],
)
def test_it_chooses_by_axes_objectives_budget_and_gradients(of, kind):
    """And the first note says what and why, with the figures it went by."""
    subject = Auto(of, 0, Options())
    assert subject.choice.kind == kind
    assert subject.notes()[0].startswith(f"auto chose {kind}: {of.dim} axes, ")
    assert f"{of.evaluations:g} evaluations" in subject.notes()[0]


def test_gradients_can_be_left_aside_or_of_another_loss():
    """Options: no gradients, or the label-free loss."""
    of = problem(gradients=("loss", "kl"))
    assert choose(of, Options(gradients=False)).kind == "quadratic"
    assert choose(of, Options(loss="kl")).options == {"loss": "kl"}


def test_it_proposes_as_the_one_it_chose():
    """To the last bit."""
    of = problem()
    chosen = make_strategy("quadratic", of, 3, {})
    subject = Auto(of, 3, parse_options("auto", Options, {}))
    assert [subject.ask(n).point.tobytes() for n in range(3)] == [chosen.ask(n).point.tobytes() for n in range(3)]


def test_what_an_inner_strategy_needs_is_known():
    """Before anything is built: weights are read only for those who want them."""
    assert needs("racing", {"inner": {"kind": "gradient_map"}}) >= needs("gradient_map", {})
