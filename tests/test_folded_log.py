"""A folded log gives back what was added, however it is kept."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.folded import Candidates, Keys, Outcomes
from mergesearch.results import RECOMMENDED, Results
from mergesearch.types import (
    Asked,
    Candidate,
    Event,
    Failed,
    Objective,
    Outcome,
    Request,
    Score,
    Scored,
    Split,
    Timing,
    Told,
)

OBJECTIVES = (Objective("a"), Objective("b"))
number = st.floats(allow_nan=False, width=64)
scores = st.builds(Score, number, st.floats(0, 1), st.integers(1, 2**40))
metrics = st.dictionaries(st.sampled_from(["accuracy", "loss", "size"]), scores, max_size=3)
timings = st.builds(Timing, *[st.floats(0, 1e9)] * 5)
scored = st.builds(
    Scored,
    st.fixed_dictionaries({"a": scores, "b": scores}),
    st.dictionaries(st.sampled_from(["a", "b"]), metrics.filter(bool), max_size=2),
    timing=timings,
    worker=st.sampled_from(["", "w", "cache"]),
)
outcomes = st.one_of(scored, st.builds(Failed, st.just("ValueError"), st.text(), timings, st.just("w")))
keys = st.tuples(st.integers(0, 60), st.sampled_from(list(Split)))
requests = st.sampled_from([Request(), Request(0.25), Request(0.5, 0.5, continues=3), Request(gradient="loss")])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, outcomes, max_size=30))
def test_outcomes_come_back_as_they_were(given_outcomes: dict[tuple[int, Split], Outcome]) -> None:
    """In the order they were added, scores, metrics and times to the last bit; what was not added is not there."""
    kept = Outcomes()
    for (n, split), outcome in given_outcomes.items():
        kept.add(n, split, outcome)
    assert list(kept) == list(given_outcomes)
    assert len(kept) == len(given_outcomes)
    for key, outcome in given_outcomes.items():
        found = kept[key]
        assert type(found) is type(outcome)
        assert (found.timing, found.worker) == (outcome.timing, outcome.worker)
        if isinstance(outcome, Scored) and isinstance(found, Scored):
            assert (found.scores, found.metrics) == (outcome.scores, outcome.metrics)
        else:
            assert found == outcome
    missing = [(n, split) for n in (0, 7, 61, -1) for split in Split if (n, split) not in given_outcomes]
    assert not any(key in kept for key in missing)
    assert all(kept.get(key) is None for key in missing)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.booleans(), requests), unique_by=lambda row: row[0], max_size=40),
    st.booleans(),
)
def test_candidates_come_back_as_they_were(rows: list[tuple[int, bool, Request]], forgetful: bool) -> None:
    """Whatever their numbers, with points kept or read again from the log."""
    generator = np.random.default_rng(0)
    made = [
        Candidate(n, None if bare else generator.random(3), f"origin {n % 3}", request, n / 7)
        for n, bare, request in rows
    ]
    reads: list[int] = []

    def again() -> Iterator[Event]:
        reads.append(1)
        return (Asked(i, candidate, Split.SEARCH) for i, candidate in enumerate(made))

    kept = Candidates(again if forgetful else None)
    for i, candidate in enumerate(made):
        kept.add(candidate)
        kept.add(candidate)
        if i % 2:
            kept.told(candidate.number)
    assert list(kept) == [candidate.number for candidate in made]
    for candidate in made:
        found = kept[candidate.number]
        assert (found.origin, found.request, found.cost) == (candidate.origin, candidate.request, candidate.cost)
        assert (found.point is None) == (candidate.point is None)
        if found.point is not None and candidate.point is not None:
            assert found.point.tolist() == candidate.point.tolist()
    assert len(reads) <= 1
    assert kept.get(401) is None


@given(st.lists(keys, unique=True, max_size=30))
def test_keys_are_a_set_in_order(pairs: list[tuple[int, Split]]) -> None:
    """Iterated as they were added; a pair that was not is not there."""
    kept = Keys()
    for pair in pairs:
        kept.add(*pair)
    assert list(kept) == pairs
    for n in (0, 30, 60, 61):
        assert all(((n, split) in kept) == ((n, split) in pairs) for split in Split)


def events(count: int, dim: int) -> Iterator[Event]:
    """A log of candidates that were asked and told in turn."""
    generator = np.random.default_rng(0)
    for n in range(count):
        candidate = Candidate(n, generator.random(dim))
        a, b = generator.random(2)
        yield Asked(2 * n + 1, candidate, Split.SEARCH)
        found = {"a": Score(a, 0.1, 100), "b": Score(b, 0.1, 100)}
        yield Told(2 * n + 2, candidate, Split.SEARCH, Scored(found, {"a": {"accuracy": found["a"]}}, worker="w"))


def test_a_long_log_takes_few_bytes() -> None:
    """With points read again, under 400 bytes for an evaluation, whatever the number of axes."""
    for dim in (4, 400):
        tracemalloc.start()
        results = Results(OBJECTIVES, again=lambda d=dim: events(4000, d))  # type: ignore[misc]
        for i, event in enumerate(events(4000, dim)):
            results.add(event)
            if i == 2000:
                before = tracemalloc.get_traced_memory()[0]
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown / 3000 < 400


def test_the_last_recommended_candidate_counts() -> None:
    """A raised budget gives another one; of every other origin it is the first."""
    results = Results(OBJECTIVES)
    for n, origin in enumerate(["start", "sample", RECOMMENDED, "sample", RECOMMENDED]):
        results.add(Asked(n + 1, Candidate(n, np.full(2, 0.5), origin), Split.SEARCH))
    results.add(Asked(9, results.candidates[2], Split.CONFIRM))
    assert (results.by_origin("start"), results.by_origin("sample"), results.by_origin(RECOMMENDED)) == (0, 1, 4)
    assert [(c.number, split) for c, split in results.pending][-1] == (2, Split.CONFIRM)
