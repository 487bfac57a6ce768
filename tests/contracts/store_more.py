"""More of what every study store promises: further outcomes, the cache, removal, the clock."""

import time
from dataclasses import replace

import numpy as np
import pytest
from contracts.store import CONFIRM, SEARCH, begin, point, same, scored

from mergesearch.errors import LeaseError, StoreError, StudyNotFound
from mergesearch.store.base import Artifact, StudyStore
from mergesearch.types import Asked, Candidate, Failed, Score, Scored, Status, Timing, Told


def others(number: int, value: float) -> Scored:
    """The outcome of a number with another score."""
    return replace(scored(number), scores={"mnist": Score(value, 0.01, 40), "fashion": Score(1 / 3, 0.0, 7)})


def test_the_stores_clock_is_taken_where_none_is_given(store: StudyStore) -> None:
    """Without `now` all times are of now, and a lease runs for its seconds from now on."""
    start = time.time() - 1.0
    record = store.create("digits", "", "")
    lease = store.acquire("digits", "host:1", 60.0)
    assert start < record.created == store.study("digits").created < time.time() + 1.0
    assert start + 60.0 < lease.until == store.study("digits").until < time.time() + 61.0
    with pytest.raises(LeaseError, match=r"is being run by host:1 until .* \((60|59|58) s from now\)"):
        store.acquire("digits", "host:2", 60.0)
    renewed = store.renew(lease, 120.0)
    assert renewed.until == store.study("digits").until > lease.until + 59.0
    for write in (
        lambda: store.set_status(lease, Status.RUNNING, ""),
        lambda: store.ask(lease, Candidate(0, point(0)), SEARCH),
        lambda: store.tell(lease, 0, SEARCH, scored(0)),
        lambda: store.finish_command(lease, store.command("digits", "pause")),
        lambda: store.release(lease),
    ):
        before = store.study("digits").updated
        write()
        assert before <= store.study("digits").updated < time.time() + 1.0
    assert 0.0 <= store.study("digits").seconds < 30.0
    assert store.acquire("digits", "host:2", 0.0).until < time.time() + 1.0
    assert store.acquire("digits", "host:1", 60.0).token == 3


def test_other_scores_are_kept_as_repeats(store: StudyStore) -> None:
    """A second outcome with equal scores leaves no trace; one with others is kept beside the log, in order."""
    lease = begin(store)
    for split in (SEARCH, CONFIRM):
        store.ask(lease, Candidate(3, point(3)), split, 101.0)
    store.tell(lease, 3, CONFIRM, scored(3), 102.0)
    store.tell(lease, 3, SEARCH, Failed("worker_lost", "gone"), 102.0)
    before, record = store.events("digits"), store.study("digits")
    assert store.repeats("digits") == []
    late = replace(scored(3), metrics={}, examples={}, timing=Timing(9.0), worker="another")
    for outcome in (scored(3), late):
        assert store.tell(lease, 3, CONFIRM, outcome, 103.0) is None
    assert store.tell(lease, 3, SEARCH, Failed("timeout", "another failure"), 103.0) is None
    assert store.repeats("digits") == []
    assert store.tell(lease, 3, CONFIRM, others(3, 0.7), 104.0) is None
    assert store.tell(lease, 3, SEARCH, scored(3), 105.0) is None
    assert store.tell(lease, 3, CONFIRM, Failed("OSError", "no\0 file", Timing(1.0, 2.0), "w"), 106.0) is None
    one, two, three = store.repeats("digits")
    assert (one.number, one.split, one.told) == (3, CONFIRM, 104.0)
    assert same(one.outcome, Scored(others(3, 0.7).scores, timing=scored().timing, worker="worker-1"))
    assert (two.number, two.split, two.told) == (3, SEARCH, 105.0)
    assert same(two.outcome, Scored(scored(3).scores, timing=scored().timing, worker="worker-1"))
    assert list(two.outcome.scores) == ["mnist", "fashion"]
    failed = Failed("OSError", "no\N{REPLACEMENT CHARACTER} file", Timing(1.0, 2.0), "w")
    assert (three.number, three.split, three.told, three.outcome) == (3, CONFIRM, 106.0, failed)
    assert all(same(*pair) for pair in zip(before, store.events("digits"), strict=True))
    assert store.study("digits") == record
    begin(store, "other")
    assert store.repeats("other") == []


def test_a_late_worker_writes_nothing_without_the_lease(store: StudyStore) -> None:
    """A repeat is fenced as everything is."""
    old = begin(store, now=0.0)
    store.ask(old, Candidate(0, point(0)), SEARCH, 1.0)
    store.tell(old, 0, SEARCH, scored(0), 2.0)
    store.acquire("digits", "host:2", 60.0, 60.0)
    with pytest.raises(LeaseError):
        store.tell(old, 0, SEARCH, others(0, 0.5), 61.0)
    assert store.repeats("digits") == []


def test_what_was_scored_is_found_by_digest(store: StudyStore) -> None:
    """The earliest score of a digest is found whole from any study, under the asker's names, if all are there."""
    assert store.cached({"mnist": "aa"}) is None
    assert store.cached({}) is None
    for study, first in (("one", 5.0), ("two", 3.0)):
        lease = begin(store, study)
        for number in (1, 2):
            store.ask(lease, Candidate(number, point(number)), SEARCH, 101.0)
        store.tell(lease, 1, SEARCH, scored(int(first)), 100.0 + first, {"mnist": "aa", "fashion": f"bb-{study}"})
    assert isinstance(told := store.events("two")[-1], Told)
    assert same(told.outcome, replace(scored(3), examples={}))
    found = store.cached({"mnist": "aa", "fashion": "bb-one"})
    assert found is not None
    assert (found.timing, found.worker) == (Timing(), "cache")
    assert found.scores == {"mnist": scored(3).scores["mnist"], "fashion": scored(5).scores["fashion"]}
    assert found.metrics == scored(3).metrics
    assert found.examples["mnist"].tobytes() == scored(3).examples["mnist"].tobytes()
    assert found.examples["fashion"].dtype == np.float32
    assert found.gradients["fashion"].tobytes() == scored(5).gradients["fashion"].tobytes()
    assert set(found.gradients) == {"fashion"}
    named = store.cached({"first": "aa", "second": "aa"})
    assert named is not None
    assert named.scores == {"first": scored(3).scores["mnist"], "second": scored(3).scores["mnist"]}
    assert list(named.metrics["second"]) == ["accuracy", "loss"]
    assert store.cached({"mnist": "aa", "fashion": "never"}) is None


def test_only_scores_in_the_log_are_found(store: StudyStore) -> None:
    """A failure has no score to find, nor has what was told again, or an objective that was not scored."""
    lease = begin(store)
    for number in (1, 2):
        store.ask(lease, Candidate(number, point(number)), SEARCH, 101.0)
    store.tell(lease, 1, SEARCH, Failed("timeout", ""), 102.0, {"mnist": "aa"})
    store.tell(lease, 1, SEARCH, scored(1), 103.0, {"mnist": "aa"})
    store.tell(lease, 2, SEARCH, Scored({"mnist": Score(1.0)}), 104.0, {"fashion": "bb"})
    assert store.cached({"mnist": "aa"}) is None
    assert store.cached({"fashion": "bb"}) is None


def test_a_removed_study_is_gone_with_all_that_was_its_own(store: StudyStore) -> None:
    """Log, facts, repeats, wishes, artifacts and cache entries go; other studies stay; the name is free again."""
    for name in ("one", "two"):
        lease = begin(store, name)
        store.set_facts(lease, {"a": name})
        store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
        store.tell(lease, 0, SEARCH, scored(0), 102.0, {"mnist": f"digest-{name}", "fashion": "both"})
        store.tell(lease, 0, SEARCH, others(0, 0.5), 103.0)
        store.command(name, "pause", 104.0)
        store.add_artifact(name, Artifact(0, "export", "out", "ab" * 32, 2.0))
    before = store.events("two")
    store.remove("one")
    assert [record.name for record in store.studies()] == ["two"]
    with pytest.raises(StudyNotFound):
        store.events("one")
    with pytest.raises(StudyNotFound):
        store.remove("one")
    assert all(same(*pair) for pair in zip(store.events("two"), before, strict=True))
    assert (store.facts("two"), len(store.repeats("two")), len(store.open_commands("two"))) == ({"a": "two"}, 1, 1)
    assert len(store.artifacts("two")) == 1
    assert set(store.examples("two", 0, SEARCH)) == {"mnist", "fashion"}
    assert store.cached({"mnist": "digest-one"}) is None
    assert store.cached({"mnist": "both"}) is not None
    lease = begin(store, "one")
    assert (store.events("one"), store.facts("one"), store.repeats("one")) == ([], {}, [])
    assert store.ask(lease, Candidate(0, point(1)), SEARCH, 101.0).seq == 1
    with pytest.raises(StoreError):
        store.create("one", "", "")


def test_a_study_that_runs_is_not_removed(store: StudyStore) -> None:
    """While a controller holds a study it stays; once the lease was released or ran out it can go."""
    store.create("digits", "", "")
    lease = store.acquire("digits", "host:1", 60.0)
    with pytest.raises(LeaseError, match="is being run by host:1 and is not removed"):
        store.remove("digits")
    assert isinstance(store.ask(lease, Candidate(0, point(0)), SEARCH), Asked)
    store.release(lease)
    store.remove("digits")
    begin(store, now=100.0)  # a lease that ran out long ago
    store.remove("digits")
    assert store.studies() == []


def test_compacting_gives_space_back_and_loses_nothing(store: StudyStore) -> None:
    """After a removal the store gets smaller where it has a size; what is left reads as before."""
    kept = begin(store, "kept")
    store.ask(kept, Candidate(0, point(0)), SEARCH, 101.0)
    lease = begin(store, "removed")
    for number in range(100):
        store.ask(lease, Candidate(number, point(number, 2000)), SEARCH, 101.0)
    log = store.events("kept")
    store.remove("removed")
    before, after = store.compact()
    assert (before, after) == (0, 0) or after < before - 1_000_000
    assert all(same(*pair) for pair in zip(store.events("kept"), log, strict=True))
    assert store.tell(kept, 0, SEARCH, scored(0), 102.0) is not None


def test_times_of_asks_and_tells(store: StudyStore) -> None:
    """When each evaluation was asked and told is kept; one that is open has no second time."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    store.ask(lease, Candidate(1, point(1)), SEARCH, 102.0)
    store.tell(lease, 0, SEARCH, scored(), 103.0)
    assert store.times("digits") == {(0, SEARCH): (101.0, 103.0), (1, SEARCH): (102.0, None)}
    with pytest.raises(StudyNotFound):
        store.times("digts")


def test_the_record_of_an_artifact_can_be_removed(store: StudyStore) -> None:
    """That one goes, others stay; one that is not there is no error."""
    begin(store)
    one, two = Artifact(0, "export", "out/a", "ab", 1.0), Artifact(0, "export", "out/b", "cd", 2.0)
    for artifact in (one, two):
        store.add_artifact("digits", artifact)
    for _ in range(2):
        store.remove_artifact("digits", one)
    assert store.artifacts("digits") == [two]


def test_the_clock_is_the_one_that_leases_go_by(store: StudyStore) -> None:
    """A lease that begins now ends its seconds after what the clock says."""
    store.create("digits", "", "")
    before = store.clock()
    lease = store.acquire("digits", "host:1", 60.0)
    assert before <= lease.until - 60.0 <= store.clock()


def test_a_store_tells_what_it_is(store: StudyStore) -> None:
    """Kind, schema version and size."""
    info = store.info()
    assert set(info) == {"kind", "schema", "bytes"}
    assert str(info["kind"]).split()[0] in ("memory", "SQLite", "PostgreSQL")
