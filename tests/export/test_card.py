"""The model card of an export."""

from collections.abc import Mapping

import numpy as np
import yaml
from numpy.typing import NDArray

from mergesearch.export.card import CardFacts, hub_id, model_card
from mergesearch.export.mergekit import MergekitConfig
from mergesearch.export.provenance import ModelSource, Provenance
from mergesearch.operators.base import Layout
from mergesearch.recipe import Recipe
from mergesearch.results import Results
from mergesearch.types import Asked, Candidate, Direction, Objective, Score, Scored, Split, Told

OBJECTIVES = (Objective("mnist"), Objective("fashion"))
NO_MERGEKIT = MergekitConfig(None, "the heads are kept apart")
HUB = "/cache/models--acme--tiny-vit/snapshots/0123abc"


def results_of(rows: list[tuple[str, dict[Split, tuple[float, float]]]], objectives: tuple[Objective, ...]) -> Results:
    """Results of candidates 0, 1, ...: (origin, split -> a score for each of two objectives), n = 100, error 0.02."""
    results, seq = Results(objectives), 0
    for number, (origin, splits) in enumerate(rows):
        candidate = Candidate(number, None if origin.startswith("baseline") else np.array([0.5]), origin)
        for split, values in splits.items():
            scores = {o.name: Score(v, 0.02, 100) for o, v in zip(objectives, values, strict=True)}
            results.add(Asked(seq + 1, candidate, split))
            results.add(Told(seq + 2, candidate, split, Scored(scores)))
            seq += 2
    return results


EVERYWHERE = {Split.SEARCH: (0.8, 0.6), Split.CONFIRM: (0.78, 0.6), Split.TEST: (0.76, 0.58)}
ROWS = [
    ("baseline:base", {Split.SEARCH: (0.5, 0.5), Split.TEST: (0.5, 0.5)}),
    ("baseline:expert:mnist", {Split.SEARCH: (0.9, 0.3), Split.TEST: (0.9, 0.3)}),
    ("baseline:expert:fashion", {Split.SEARCH: (0.3, 0.7), Split.TEST: (0.3, 0.7)}),
    ("baseline:uniform", {Split.SEARCH: (0.6, 0.55), Split.TEST: (0.6, 0.55)}),
    ("baseline:lambda:0.1", {Split.SEARCH: (0.6, 0.5)}),
    ("baseline:lambda:0.3", {Split.SEARCH: (0.7, 0.6), Split.TEST: (0.71, 0.6)}),
    ("recommended", EVERYWHERE),
]


def no_examples(number: int, split: Split) -> Mapping[str, NDArray[np.float32]]:
    """A store that kept no per-example scores."""
    return {}


def facts_of(
    rows: list[tuple[str, dict[Split, tuple[float, float]]]] = ROWS,
    number: int = 6,
    *,
    base: str = "/models/base",
    objectives: tuple[Objective, ...] = OBJECTIVES,
    mergekit: MergekitConfig = NO_MERGEKIT,
    picture: bool = False,
) -> CardFacts:
    """A card's facts for two experts with heads of their own."""
    results = results_of(rows, objectives)
    recipe = Recipe("task_arithmetic", ("mnist", "fashion"), ("all",), {"coefficient": np.array([[0.3, 0.4]])})
    made = Provenance(
        recipe=recipe,
        layout=Layout(recipe.experts, recipe.groups, {"w": 0}),
        base=ModelSource(base, "d0"),
        experts={"mnist": ModelSource("/models/mnist", "d1"), "fashion": ModelSource("/models/fashion", "d2")},
        heads=("classifier.*",),
        worn=("mnist", "fashion"),
        study="vision",
        candidate=number,
        origin=rows[number][0],
        why="chosen on the confirm split",
        scores={},
    )
    folders = {"mnist": "mnist", "fashion": "fashion"}
    classes = dict.fromkeys(folders, "ViTForImageClassification")
    return CardFacts(made, results, no_examples, folders, classes, mergekit, picture)


def front_matter(card: str) -> dict[str, object]:
    """The YAML at the head of a card."""
    begin, body, _ = card.split("---\n", 2)
    assert begin == ""
    found: dict[str, object] = yaml.safe_load(body)
    return found


def row(card: str, split: str, label: str) -> str:
    """The line of a label in a split's table."""
    table = card.split(f"**{split} split**", 1)[1].split("\n\n", 2)[1]
    return next(line for line in table.splitlines() if label in line)


def test_front_matter_is_what_the_hub_reads() -> None:
    """Library and tags are always there; base_model names models of the hub only, never a local folder."""
    local = front_matter(model_card(facts_of()))
    assert local == {"library_name": "transformers", "tags": ["merge", "mergesearch"]}
    cached = front_matter(model_card(facts_of(base=HUB)))
    assert cached["base_model"] == ["acme/tiny-vit"]
    assert cached["base_model_relation"] == "merge"


def test_hub_id_comes_from_the_hubs_cache() -> None:
    """A folder elsewhere has no id."""
    assert hub_id(ModelSource(HUB, "d")) == "acme/tiny-vit"
    assert hub_id(ModelSource("/cache/models--acme--a--b/snapshots/1", "d")) == "acme/a--b"
    assert hub_id(ModelSource("/models/base", "d")) is None


def test_each_split_has_the_baselines_that_were_scored_on_it() -> None:
    """Scores with their errors, the best λ alone of all, this merge last and bold; a mean where directions agree."""
    card = model_card(facts_of())
    assert row(card, "test", "this merge") == "| **this merge** | 0.76 ± 0.02 | 0.58 ± 0.02 | 0.67 ± 0.014 |"
    assert "0.9 ± 0.02" in row(card, "test", "expert mnist")
    assert row(card, "search", "best single λ (0.3)")
    assert "0.1" not in row(card, "test", "best single λ")
    assert "base" not in card.split("**confirm split**")[1].split("**test split**")[0]
    assert "(100 examples each)" in card


def test_objectives_that_point_both_ways_have_no_mean() -> None:
    """An accuracy and a loss are not averaged."""
    card = model_card(facts_of(objectives=(Objective("mnist"), Objective("fashion", Direction.MIN))))
    assert "fashion ↓" in card
    assert "weighted mean" not in card


def test_the_gap_between_search_and_test_is_told() -> None:
    """0.70 on search against 0.67 on test is a gap of 0.03 with the error of both."""
    card = model_card(facts_of())
    assert "0.03 ± 0.02 better on the search split" in card
    assert "within two standard errors" in card


def test_a_win_within_its_error_is_called_noise() -> None:
    """0.67 against the best λ's 0.655 with an error of 0.02 may be luck; against the average it is not."""
    card = model_card(facts_of())
    assert "Against the best single λ (0.3) it is 0.015 ± 0.02 better on the test split (within its error" in card
    assert "Against the uniform average it is 0.095 ± 0.02 better on the test split (more than twice its error)" in card


def test_a_merge_that_was_never_held_out_says_so() -> None:
    """Scores of the search split alone are not sold as results."""
    card = model_card(facts_of([*ROWS, ("sample", {Split.SEARCH: (0.9, 0.9)})], number=7))
    assert "scored on the search split alone" in card
    assert "**test split**" not in card


def test_an_exported_baseline_is_not_compared_with_itself() -> None:
    """The uniform average as the merge stands in the table once."""
    card = model_card(facts_of(number=3))
    assert "| uniform average |" not in card
    assert "Against the uniform average" not in card


def test_loading_and_rebuilding_are_told() -> None:
    """Code for every head, the models with digests, and why mergekit cannot."""
    card = model_card(facts_of(picture=True))
    assert 'model_mnist = ViTForImageClassification.from_pretrained("PATH_OF_THIS_FOLDER/mnist")' in card
    assert "| fashion | `/models/fashion` | `d2` |" in card
    assert "There is no `mergekit.yaml`: mergekit cannot express this merge, since the heads are kept apart." in card
    assert "front.png" in card
    with_mergekit = model_card(facts_of(mergekit=MergekitConfig("models: []")))
    assert "mergekit-yaml mergekit.yaml" in with_mergekit
    assert "front.png" not in with_mergekit
