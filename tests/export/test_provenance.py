"""recipe.yaml holds everything, and says when it was changed."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from mergesearch.errors import SpecError
from mergesearch.export.provenance import ModelSource, Provenance, read_provenance
from mergesearch.operators.base import Layout
from mergesearch.recipe import Recipe
from mergesearch.types import Score, Split


def made() -> Provenance:
    """A provenance with numbers that are not short in decimal."""
    table = np.random.default_rng(0).uniform(size=(2, 2))
    recipe = Recipe(
        "ties", ("a", "b"), ("low", "high"), {"coefficient": table, "density": table / 3}, {"scope": "tensor"}
    )
    return Provenance(
        recipe=recipe,
        layout=Layout(recipe.experts, recipe.groups, {"x.weight": 1, "y.weight": 0}),
        base=ModelSource("/models/base", "d0"),
        experts={"a": ModelSource("/models/a", "d1"), "b": ModelSource("/models/b", "d2")},
        heads=("classifier.*",),
        worn=("b",),
        study="vision",
        candidate=17,
        origin="recommended",
        why="chosen on the confirm split",
        scores={Split.SEARCH: {"acc": Score(1 / 3, 0.01, 500)}, Split.TEST: {"acc": Score(0.3, 0.02, 600)}},
    )


def write(folder: Path, text: str) -> Path:
    """A recipe.yaml in `folder`."""
    (folder / "recipe.yaml").write_text(text)
    return folder / "recipe.yaml"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Every coefficient to the last bit, and all that stands beside them; by file or by folder."""
    before = made()
    file = write(tmp_path, before.to_yaml())
    for place in (file, tmp_path):
        after = read_provenance(place)
        assert after.digest == before.digest
        assert after.layout == before.layout
        assert (after.base, after.experts, after.heads, after.worn) == (
            before.base,
            before.experts,
            before.heads,
            before.worn,
        )
        assert after.scores == before.scores
        assert (after.study, after.candidate, after.origin, after.why) == (
            before.study,
            before.candidate,
            before.origin,
            before.why,
        )
        for knob, table in before.recipe.settings.items():
            np.testing.assert_array_equal(after.recipe.settings[knob], table)


def test_the_file_is_a_recipe_too() -> None:
    """What reads recipes reads it, whatever stands beside."""
    models = {"base": "d0", "expert:a": "d1", "expert:b": "d2"}
    assert Recipe.from_yaml(made().to_yaml()).digest(models) == made().digest


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    """A recipe edited by hand does not pass for the one that was scored."""
    body = yaml.safe_load(made().to_yaml())
    body["settings"]["coefficient"]["low"]["a"] = 0.5
    with pytest.raises(SpecError, match="changed by hand"):
        read_provenance(write(tmp_path, yaml.safe_dump(body)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("operator: ties", "not written by an export"),
        ("[1, 2]", "not written by an export"),
        ("format: 99\nmergesearch: 7.0.0", r"format 99.*use mergesearch 7\.0\.0"),
        ("format: 1", "not a recipe"),
    ],
)
def test_an_unreadable_recipe_says_why(tmp_path: Path, text: str, words: str) -> None:
    """Broken, foreign, newer and incomplete files each get a sentence."""
    with pytest.raises(SpecError, match=words):
        read_provenance(write(tmp_path, text))


def test_a_missing_part_is_damage(tmp_path: Path) -> None:
    """A recipe without its models cannot be rebuilt."""
    body = yaml.safe_load(made().to_yaml())
    del body["models"]
    with pytest.raises(SpecError, match="damaged"):
        read_provenance(write(tmp_path, yaml.safe_dump(body)))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """The folder has no recipe."""
    with pytest.raises(SpecError, match="cannot read"):
        read_provenance(tmp_path)
