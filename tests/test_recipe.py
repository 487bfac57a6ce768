"""Recipes: YAML and digest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.errors import SpecError
from mergesearch.recipe import Recipe

NUMBERS = st.floats(-2, 2, allow_nan=False)


def recipe(values: list[float], **options: object) -> Recipe:
    return Recipe("ties", ("a", "b"), ("L0", "L1"), {"coefficient": np.array(values).reshape(2, 2)}, options)


@given(st.lists(NUMBERS, min_size=4, max_size=4))
def test_yaml_keeps_every_bit(values: list[float]) -> None:
    """A recipe read back from its YAML has the same digest."""
    made = recipe(values, normalize=False)
    assert Recipe.from_yaml(made.to_yaml()).digest({"base": "x"}) == made.digest({"base": "x"})


def test_the_digest_knows_what_decides_the_weights() -> None:
    """Another coefficient, option, or model gives another digest."""
    made = recipe([0.1, 0.2, 0.3, 0.4])
    digest = made.digest({"base": "x"})
    assert recipe([0.1, 0.2, 0.3, 0.4000001]).digest({"base": "x"}) != digest
    assert recipe([0.1, 0.2, 0.3, 0.4], normalize=False).digest({"base": "x"}) != digest
    assert made.digest({"base": "y"}) != digest


def test_a_table_of_the_wrong_shape_is_refused() -> None:
    """The sentence gives the knob and both shapes."""
    with pytest.raises(SpecError, match=r"'coefficient' must have shape \(2, 2\)"):
        Recipe("linear", ("a", "b"), ("L0", "L1"), {"coefficient": np.zeros((1, 2))})


def test_a_value_that_is_not_finite_is_refused() -> None:
    """A recipe with NaN can never be built."""
    with pytest.raises(SpecError, match="not finite"):
        recipe([0.1, float("nan"), 0.3, 0.4])


@pytest.mark.parametrize(
    "text", ["", "[]", "operator: ties", "experts: [a]\ngroups: [g]\noperator: x\nsettings: {c: 1}"]
)
def test_what_is_no_recipe_is_refused(text: str) -> None:
    """Broken YAML gives one sentence, never a stack trace."""
    with pytest.raises(SpecError, match="not a recipe"):
        Recipe.from_yaml(text)
