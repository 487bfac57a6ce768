"""Which candidate an export takes."""

import numpy as np
import pytest

from mergesearch.errors import SpecError
from mergesearch.export.select import describe_candidate, parse_preference, select
from mergesearch.results import Results
from mergesearch.space import SearchSpace
from mergesearch.store.base import StudyRecord
from mergesearch.stored import StoredStudy
from mergesearch.types import Asked, Candidate, Failed, Objective, Outcome, Score, Scored, Split, Status, Told

OBJECTIVES = (Objective("acc"), Objective("size"))


def told(rows: list[tuple[str, Outcome | None]], **facts: object) -> StoredStudy:
    """A study with candidates 0, 1, ... given as (origin, outcome on search; None: not told yet)."""
    results = Results(OBJECTIVES)
    for number, (origin, outcome) in enumerate(rows):
        point = None if origin.startswith("baseline") else np.array([0.5])
        candidate = Candidate(number, point, origin)
        results.add(Asked(2 * number + 1, candidate, Split.SEARCH))
        if outcome is not None:
            results.add(Told(2 * number + 2, candidate, Split.SEARCH, outcome))
    record = StudyRecord("study", "", "", Status.DONE, 0.0, 0.0)
    return StoredStudy(record, facts, SearchSpace.box(1, 0.0, 1.0), results, 100)


def scored(acc: float, size: float) -> Scored:
    """An outcome of the two objectives."""
    return Scored({"acc": Score(acc), "size": Score(size)})


FRONT = [
    ("baseline:base", scored(0.0, 0.0)),
    ("baseline:expert:a", scored(1.0, 0.0)),
    ("baseline:expert:b", scored(0.0, 100.0)),
    ("start", scored(0.1, 95.0)),
    ("sample", scored(0.9, 90.0)),
    ("sample", scored(1.0, 5.0)),
    ("sample", Failed("ValueError", "no such weight")),
    ("sample", None),
]


def test_best_is_the_studys_choice_then_the_recommended_then_the_best_score() -> None:
    """The confirmed choice comes first."""
    assert select(told(FRONT, chosen=5)) == 5
    assert select(told(FRONT)) == told(FRONT).results.best == 3
    assert select(told([*FRONT, ("recommended", scored(0.2, 1.0))])) == 8


def test_a_chosen_candidate_without_scores_is_passed_over() -> None:
    """A fact that names a failed candidate does not lead to an export of it."""
    assert select(told(FRONT, chosen=6)) == 3


def test_by_number_takes_a_baseline_too() -> None:
    """Any scored candidate can be exported by its number."""
    assert select(told(FRONT), candidate=4) == 4
    assert select(told(FRONT), candidate=1) == 1


@pytest.mark.parametrize(
    ("number", "words"),
    [(99, "no candidate 99; its candidates are 0 to 7"), (6, "candidate 6 failed .*no such weight"), (7, "not scored")],
)
def test_a_number_that_cannot_be_exported_says_why(number: int, words: str) -> None:
    """Unknown, failed and unscored candidates each get their own sentence."""
    with pytest.raises(SpecError, match=words):
        select(told(FRONT), candidate=number)


def test_knee_is_the_balanced_candidate() -> None:
    """The knee is neither end of the front."""
    assert select(told(FRONT), knee=True) == 4


def test_preference_counts_in_units_from_base_to_expert() -> None:
    """A size in the hundreds does not drown an accuracy between 0 and 1."""
    results = told(FRONT)
    assert select(results, prefer={"acc": 0.95, "size": 0.05}) == 5
    assert select(results, prefer={"acc": 0.5, "size": 0.5}) == 4
    assert select(results, prefer={"size": 1.0}) == 3


def test_preference_without_baselines_uses_the_fronts_span() -> None:
    """A study without baselines can still be asked for a preference."""
    results = told(FRONT[3:])
    assert select(results, prefer={"acc": 1.0}) == 2


@pytest.mark.parametrize(
    ("prefer", "words"),
    [
        ({"ac": 1.0}, "no objective 'ac'; did you mean 'acc'"),
        ({"acc": -1.0}, "at least 0"),
        ({"acc": 0.0}, "at least one weight above 0"),
    ],
)
def test_a_wrong_preference_says_what_is_wrong(prefer: dict[str, float], words: str) -> None:
    """Unknown names, negative weights and all zeros are refused."""
    with pytest.raises(SpecError, match=words):
        select(told(FRONT), prefer=prefer)


def test_nothing_scored_yet_is_said_for_every_way() -> None:
    """An empty study gives one sentence, not a traceback."""
    empty = told([])
    for options in ({}, {"knee": True}, {"prefer": {"acc": 1.0}}, {"candidate": 0}):
        with pytest.raises(SpecError, match="yet"):
            select(empty, **options)


def test_two_ways_at_once_are_refused() -> None:
    """--candidate with --knee is a contradiction."""
    with pytest.raises(SpecError, match="one of"):
        select(told(FRONT), candidate=4, knee=True)


def test_a_candidate_is_described_by_how_sure_its_study_is_of_it() -> None:
    """What the recipe and the card say of the candidate."""
    study = told([*FRONT, ("recommended", scored(0.2, 1.0))], chosen=4)
    said = [describe_candidate(study, number) for number in (1, 3, 4, 5, 8)]
    assert said == [
        "the baseline 'expert:a'",
        "the best weighted score on the search split, not confirmed",
        "chosen on the confirm split",
        "on the front of the search split",
        "recommended by the strategy, not confirmed",
    ]


def test_preference_takes_the_command_lines_form() -> None:
    """As text or as a mapping."""
    assert select(told(FRONT), prefer="acc=0.95,size=0.05") == select(told(FRONT), prefer={"acc": 0.95, "size": 0.05})


def test_parse_preference_reads_names_and_numbers() -> None:
    """The command line's form of a preference."""
    assert parse_preference("a=0.7, b=0.3") == {"a": 0.7, "b": 0.3}
    for wrong in ("a", "a=x", "=1", "", "a=nan"):
        with pytest.raises(SpecError, match=r"a=0\.7"):
            parse_preference(wrong)
    with pytest.raises(SpecError, match="twice"):
        parse_preference("a=1,a=2")
