"""What every study store promises. A test module imports these tests and gives a fixture `store`, new and empty.

A new backend is one entry in KINDS and in `url_of`.
"""

import functools
import math
import threading
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from postgres import Server

from mergesearch.errors import LeaseError, SpecError, StoreError, StudyNotFound
from mergesearch.store.base import Artifact, Command, Lease, StudyStore
from mergesearch.store.open import open_store
from mergesearch.store.schema import metadata
from mergesearch.types import Asked, Candidate, Failed, Outcome, Request, Score, Scored, Split, Status, Timing, Told

KINDS = ("memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres))

SEARCH, CONFIRM, TEST = Split.SEARCH, Split.CONFIRM, Split.TEST


def url_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """The URL of an empty store of that kind, one at a time; what it needs is asked of `request`."""
    if kind == "postgresql":
        server = request.getfixturevalue("postgres")
        name = _made_before(server)
        with server.admin(name) as connection:
            connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")
        return str(server.url(name))
    return "memory://" if kind == "memory" else f"sqlite:///{folder}/study.db"


@functools.cache
def _made_before(server: Server) -> str:
    """A database with the tables of a store. Emptying it takes a tenth of the time and files that a new one does."""
    name = server.new_database()
    open_store(server.url(name)).close()
    return name


def point(number: int, dim: int = 5) -> np.ndarray:
    """A point that depends on its number alone."""
    return np.random.default_rng(number).random(dim)


def scored(number: int = 0) -> Scored:
    """An outcome with two objectives, three metrics, per-example values and a gradient."""
    own = {"mnist": Score(0.1 * number, 0.01, 40), "fashion": Score(1 / 3, 0.0, 7)}
    metrics = {"mnist": {"accuracy": own["mnist"], "loss": Score(2.5, 0.5, 40)}, "fashion": {"f1": own["fashion"]}}
    examples = {"mnist": np.arange(40, dtype=np.float32) * number, "fashion": np.zeros(7, dtype=np.float32)}
    gradients = {"fashion": point(number) - 0.5}
    return Scored(own, metrics, examples, gradients, timing=Timing(0.5, 0.25, 1.5, 0.125, 3.5), worker="worker-1")


def begin(store: StudyStore, name: str = "digits", now: float = 100.0) -> Lease:
    """A new study and its lease for 60 s."""
    store.create(name, "name: digits", "d1", now)
    return store.acquire(name, "host:1", 60.0, now)


def same(one: object, other: object) -> bool:
    """Whether two events, candidates or outcomes hold the same, bit for bit; per-example values aside."""
    match one, other:
        case (Asked(), Asked()):
            return one.seq == other.seq and one.split is other.split and same(one.candidate, other.candidate)
        case (Told(), Told()):
            heads = (one.seq, one.split) == (other.seq, other.split)
            return heads and same(one.candidate, other.candidate) and same(one.outcome, other.outcome)
        case (Candidate(), Candidate()):
            bits = [None if c.point is None else c.point.tobytes() for c in (one, other)]
            return astuple(replace(one, point=None)) == astuple(replace(other, point=None)) and bits[0] == bits[1]
        case (Scored(), Scored()):
            heads = (one.timing, one.worker) == (other.timing, other.worker)
            bits = [{name: values.tobytes() for name, values in s.gradients.items()} for s in (one, other)]
            return heads and (one.scores, one.metrics) == (other.scores, other.metrics) and bits[0] == bits[1]
    return one == other


def test_new_study_reads_back(store: StudyStore) -> None:
    """A study is NEW, holds what it was created with, and belongs to nobody."""
    made = store.create("digits", "name: digits\n# ü", "d1", 100.0)
    assert made == store.study("digits")
    assert (made.spec, made.digest, made.status) == ("name: digits\n# ü", "d1", Status.NEW)
    assert (made.created, made.updated, made.seconds, made.message) == (100.0, 100.0, 0.0, "")
    assert (made.owner, made.until) == ("", 0.0)


def test_taken_name_is_refused(store: StudyStore) -> None:
    """The second study of a name is refused and the first stays as it was."""
    store.create("digits", "one", "d1", 1.0)
    with pytest.raises(StoreError, match="'digits' stands in this store already"):
        store.create("digits", "two", "d2", 2.0)
    assert store.study("digits").spec == "one"


def test_studies_newest_first(store: StudyStore) -> None:
    """Studies are listed by age, the later of two of one moment first."""
    for name, created in (("b", 2.0), ("a", 1.0), ("c", 2.0)):
        store.create(name, "", "", created)
    assert [study.name for study in store.studies()] == ["c", "b", "a"]


def test_unknown_study_is_named_with_a_guess(store: StudyStore) -> None:
    """Every method that takes a name says which study is unknown and which was perhaps meant."""
    store.create("digits", "", "", 1.0)
    gone = Lease("digts", "host:1", 1, 9.0)
    calls = [
        lambda: store.study("digts"),
        lambda: store.acquire("digts", "host:1", 60.0, 1.0),
        lambda: store.renew(gone, 60.0, 1.0),
        lambda: store.set_status(gone, Status.DONE, "", 1.0),
        lambda: store.set_facts(gone, {"a": 1}),
        lambda: store.facts("digts"),
        lambda: store.ask(gone, Candidate(0, point(0)), SEARCH, 1.0),
        lambda: store.tell(gone, 0, SEARCH, scored(), 1.0),
        lambda: store.events("digts"),
        lambda: store.examples("digts", 0, SEARCH),
        lambda: store.command("digts", "pause", 1.0),
        lambda: store.open_commands("digts"),
        lambda: store.finish_command(gone, Command(1, "pause", 1.0), 1.0),
        lambda: store.add_artifact("digts", Artifact(0, "export", "out", "ab", 1.0)),
        lambda: store.artifacts("digts"),
        lambda: store.repeats("digts"),
        lambda: store.remove("digts"),
    ]
    for call in calls:
        with pytest.raises(StudyNotFound, match="'digts' is not in this store; did you mean 'digits'"):
            call()


def test_log_reads_back_in_order(store: StudyStore) -> None:
    """Asks and tells share one sequence from 1 on without holes, and read back bit for bit."""
    lease = begin(store)
    baseline = Candidate(0, None, "baseline:average")
    log = [store.ask(lease, baseline, SEARCH, 101.0)]
    log.append(store.ask(lease, Candidate(1, point(1), "start"), SEARCH, 102.0))
    log.append(store.tell(lease, 1, SEARCH, scored(1), 103.0))
    log.append(store.ask(lease, Candidate(1, point(1)), TEST, 104.0))
    log.append(store.tell(lease, 0, SEARCH, Failed("not_finite", "loss is NaN", Timing(1, 2, 3), "w"), 105.0))
    events = store.events("digits")
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert all(same(*pair) for pair in zip(events, log, strict=True))
    assert same(events[3].candidate, Candidate(1, point(1), "start"))  # the first row of a candidate stands
    assert events[0].candidate.point is None
    assert store.study("digits").updated == 105.0


@pytest.mark.parametrize("after", range(-1, 8))
def test_events_after_a_number_are_the_tail(store: StudyStore, after: int) -> None:
    """`after` and `limit` cut the log at numbers: a tell is read even where its ask lies before the cut."""
    lease = begin(store)
    for number in range(3):
        store.ask(lease, Candidate(number, point(number)), SEARCH, 101.0)
    for number in (2, 0, 1):
        store.tell(lease, number, SEARCH, scored(number), 102.0)
    events, tail = store.events("digits"), store.events("digits", after)
    assert [e.seq for e in tail] == list(range(max(0, after) + 1, 7))
    assert all(same(*pair) for pair in zip(events[max(0, after) :], tail, strict=True))
    piece = store.events("digits", after, limit=2)
    assert all(same(*pair) for pair in zip(tail[:2], piece, strict=True))


def test_points_keep_their_bits(store: StudyStore) -> None:
    """A point of any size comes back bit for bit, its end points included."""
    lease = begin(store)
    points = [np.empty(0), np.array([0.0]), np.array([1.0, np.nextafter(1.0, 0), 5e-324]), point(3, 1000)]
    for number, values in enumerate(points):
        store.ask(lease, Candidate(number, values), SEARCH, 101.0)
    for event, values in zip(store.events("digits"), points, strict=True):
        assert event.candidate.point is not None
        assert event.candidate.point.tobytes() == values.tobytes()


def test_examples_are_kept_apart_from_the_log(store: StudyStore) -> None:
    """Per-example values come only when asked for, as float32, by split."""
    lease = begin(store)
    outcome = scored(3)
    for split in (SEARCH, CONFIRM):
        store.ask(lease, Candidate(3, point(3)), split, 101.0)
    store.tell(lease, 3, SEARCH, outcome, 102.0)
    examples = store.examples("digits", 3, SEARCH)
    assert set(examples) == {"mnist", "fashion"}
    for name, values in examples.items():
        assert values.dtype == np.float32
        assert values.tobytes() == outcome.examples[name].tobytes()
    told = store.events("digits")[-1]
    assert isinstance(told, Told)
    assert isinstance(told.outcome, Scored)
    assert told.outcome.examples == {}
    assert store.examples("digits", 3, CONFIRM) == {}
    assert store.examples("digits", 99, SEARCH) == {}


@pytest.mark.parametrize(
    ("request_", "cost"),
    [
        (Request(), 1.0),
        (Request(gradient="entropy"), 3.0),
        (Request(1 / 3, 0.1 + 0.2), 1 / 3),
        (Request(0.25, 0.5, gradient="loss"), 0.75),
        (Request(0.5, 0.5, continues=12), 0.5),
    ],
)
def test_a_request_reads_back(store: StudyStore, request_: Request, cost: float) -> None:
    """What was wanted of a candidate and what it costs stand in its ask and its tell, bit for bit, on every split."""
    lease = begin(store)
    wanted = Candidate(13, point(13), "race", request_, cost)
    log = [store.ask(lease, wanted, SEARCH, 101.0), store.tell(lease, 13, SEARCH, scored(1), 102.0)]
    log.append(store.ask(lease, Candidate(13, point(13)), TEST, 103.0))
    for event, entry in zip(store.events("digits"), log, strict=True):
        assert same(event, entry)
        assert same(event.candidate, wanted)


def test_gradients_come_with_the_log(store: StudyStore) -> None:
    """Gradients are float64, read-only, in the tell and in the log bit for bit, NaN and infinity too."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0), request=Request(gradient="loss")), SEARCH, 101.0)
    store.ask(lease, Candidate(1, point(1)), SEARCH, 101.0)
    given = {"mnist": point(9, 300) - 0.5, "fashion": np.array([np.nan, -np.inf, 5e-324, -0.0])}
    told = store.tell(lease, 0, SEARCH, replace(scored(1), gradients=given), 102.0)
    store.tell(lease, 1, SEARCH, replace(scored(2), gradients={}), 103.0)
    bits = {name: values.tobytes() for name, values in given.items()}
    given["mnist"][:] = 7.0
    for event in (told, store.events("digits")[2], store.events("digits", 2)[0]):
        assert isinstance(event, Told)
        assert isinstance(event.outcome, Scored)
        assert {name: values.tobytes() for name, values in event.outcome.gradients.items()} == bits
        assert all(values.dtype == np.float64 for values in event.outcome.gradients.values())
        assert not any(values.flags.writeable for values in event.outcome.gradients.values())
    last = store.events("digits")[-1]
    assert isinstance(last, Told)
    assert isinstance(last.outcome, Scored)
    assert last.outcome.gradients == {}
    assert set(store.examples("digits", 0, SEARCH)) == {"mnist", "fashion"}


def test_second_tell_changes_nothing(store: StudyStore) -> None:
    """An evaluation is told once: the second tell returns None and leaves log, examples and times alone."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    assert store.tell(lease, 0, SEARCH, scored(1), 102.0) is not None
    before, record = store.events("digits"), store.study("digits")
    assert store.tell(lease, 0, SEARCH, scored(2), 103.0) is None
    assert store.tell(lease, 0, SEARCH, Failed("timeout", "too slow"), 103.0) is None
    assert all(same(*pair) for pair in zip(before, store.events("digits"), strict=True))
    assert store.study("digits") == record
    assert store.examples("digits", 0, SEARCH)["mnist"][1] == 1.0
    assert store.ask(lease, Candidate(1, point(1)), SEARCH, 104.0).seq == 3


def test_second_ask_is_refused(store: StudyStore) -> None:
    """A (candidate, split) is asked once, told or not; the sequence has no hole where one was refused."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    for _ in range(2):
        with pytest.raises(StoreError, match="candidate 0 was asked on split 'search' before"):
            store.ask(lease, Candidate(0, point(0)), SEARCH, 102.0)
    assert store.ask(lease, Candidate(0, point(0)), TEST, 103.0).seq == 2


def test_a_candidate_keeps_its_point(store: StudyStore) -> None:
    """A number that stands for one point cannot be asked with another, on no split."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    for other in (point(1), None, point(0, 4)):
        with pytest.raises(StoreError, match="candidate 0 stands in the log with another point"):
            store.ask(lease, Candidate(0, other), TEST, 102.0)
    assert len(store.events("digits")) == 1


def test_what_was_not_asked_cannot_be_told(store: StudyStore) -> None:
    """A tell without its ask is refused, for an unknown candidate and for an unknown split of a known one."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    for number, split in ((1, SEARCH), (0, TEST)):
        with pytest.raises(StoreError, match=f"candidate {number} was never asked on split '{split}'"):
            store.tell(lease, number, split, scored(), 102.0)
    assert len(store.events("digits")) == 1


def test_studies_do_not_mix(store: StudyStore) -> None:
    """Two studies of one store have their own numbers, candidates, facts and commands."""
    one, two = begin(store, "one"), begin(store, "two")
    for lease in (one, two):
        store.ask(lease, Candidate(0, point(7 if lease is one else 8)), SEARCH, 101.0)
    store.tell(two, 0, SEARCH, scored(2), 102.0)
    store.set_facts(two, {"a": 1})
    store.command("two", "pause", 103.0)
    assert [event.seq for event in store.events("one")] == [1]
    assert [event.seq for event in store.events("two")] == [1, 2]
    assert same(store.events("one")[0].candidate, Candidate(0, point(7)))
    assert store.examples("one", 0, SEARCH) == {}
    assert (store.facts("one"), store.open_commands("one")) == ({}, [])


@pytest.mark.parametrize(
    "outcome",
    [
        Scored({}),
        Scored({"a": Score(1.0)}),
        Scored({"b": Score(-0.5, 0.1, 3), "a": Score(1e300, 0.0, 1)}, {"a": {"x": Score(math.inf), "y": Score(0.0)}}),
        Failed("", ""),
        Failed("ValueError", "'; DROP TABLE studies; -- ü \U0001f600\nsecond line", Timing(1e-9, 0.0, 1e9), "node/3"),
    ],
)
def test_any_outcome_reads_back(store: StudyStore, outcome: Outcome) -> None:
    """Outcomes with and without metrics, infinite metrics and odd texts come back as they were, in their order."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    told = store.tell(lease, 0, SEARCH, outcome, 102.0)
    read = store.events("digits")[-1]
    assert told is not None
    assert isinstance(read, Told)
    assert same(read, told)
    assert same(read.outcome, outcome)
    if isinstance(outcome, Scored) and isinstance(read.outcome, Scored):
        assert list(read.outcome.scores) == list(outcome.scores)


def test_a_metric_that_is_nan_is_kept(store: StudyStore) -> None:
    """A secondary metric without a value (an undefined F1) does not lose the evaluation."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    metrics = {"a": {"f1": Score(math.nan, math.nan, 3)}}
    store.tell(lease, 0, SEARCH, Scored({"a": Score(1.0)}, metrics, {"a": np.array([np.nan, 1.0])}), 102.0)
    told = store.events("digits")[-1]
    assert isinstance(told, Told)
    assert isinstance(told.outcome, Scored)
    f1 = told.outcome.metrics["a"]["f1"]
    assert math.isnan(f1.value)
    assert math.isnan(f1.stderr)
    assert np.isnan(store.examples("digits", 0, SEARCH)["a"]).tolist() == [True, False]


def test_unreadable_message_does_not_lose_the_outcome(store: StudyStore) -> None:
    """Half a character or a NUL in an error's text is replaced, not refused."""
    lease = begin(store)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    store.tell(lease, 0, SEARCH, Failed("OSError", "no file caf\udce9\0.png"), 102.0)
    told = store.events("digits")[-1]
    assert isinstance(told, Told)
    assert isinstance(told.outcome, Failed)
    assert told.outcome.message == "no file caf?\N{REPLACEMENT CHARACTER}.png"


def test_what_a_caller_changes_later_is_not_in_the_log(store: StudyStore) -> None:
    """The store keeps copies: changing an array or a dict after the call changes nothing recorded."""
    lease = begin(store)
    values, own = np.zeros(3, dtype=np.float32), {"a": Score(1.0)}
    store.ask(lease, Candidate(0, point(0)), SEARCH, 101.0)
    store.tell(lease, 0, SEARCH, Scored(own, {}, {"a": values}), 102.0)
    values[:] = 9.0
    own["b"] = Score(2.0)
    told = store.events("digits")[-1]
    assert isinstance(told, Told)
    assert same(told.outcome, Scored({"a": Score(1.0)}))
    assert store.examples("digits", 0, SEARCH)["a"].tolist() == [0.0, 0.0, 0.0]


def test_second_controller_is_refused_by_name(store: StudyStore) -> None:
    """While a lease runs, another owner is told who holds it and until when; the holder goes on."""
    lease = begin(store, now=0.0)
    with pytest.raises(LeaseError, match=r"host:1 until 1970-01-01 00:01:00 UTC \(1 s from now\)"):
        store.acquire("digits", "host:2", 60.0, 59.0)
    assert store.study("digits").owner == "host:1"
    assert store.study("digits").until == 60.0
    store.ask(lease, Candidate(0, point(0)), SEARCH, 59.5)


def test_expired_lease_is_taken_over_and_fenced(store: StudyStore) -> None:
    """From its end on a lease can be taken; its old holder can then write nothing at all."""
    old = begin(store, now=0.0)
    store.ask(old, Candidate(0, point(0)), SEARCH, 1.0)
    wish = store.command("digits", "pause", 1.0)
    new = store.acquire("digits", "host:2", 60.0, 60.0)
    assert new.token > old.token
    refused = [
        lambda: store.renew(old, 60.0, 61.0),
        lambda: store.set_status(old, Status.DONE, "", 61.0),
        lambda: store.set_facts(old, {"a": 1}),
        lambda: store.ask(old, Candidate(1, point(1)), SEARCH, 61.0),
        lambda: store.tell(old, 0, SEARCH, scored(), 61.0),
        lambda: store.finish_command(old, wish, 61.0),
    ]
    before = store.study("digits")
    for write in refused:
        with pytest.raises(LeaseError, match=r"lease of host:1 .* is gone, host:2 took it over"):
            write()
    store.release(old, 61.0)  # no error, and it does not take the new lease away
    assert store.study("digits") == before
    assert len(store.events("digits")) == 1
    assert store.facts("digits") == {}
    assert store.tell(new, 0, SEARCH, scored(), 62.0) is not None


def test_late_holder_goes_on_where_nobody_came(store: StudyStore) -> None:
    """A controller that slept past its lease keeps it if no other took it: nothing could have been spoilt."""
    lease = begin(store, now=0.0)
    store.ask(lease, Candidate(0, point(0)), SEARCH, 500.0)
    assert store.renew(lease, 60.0, 510.0).until == 570.0


def test_released_lease_is_free_at_once(store: StudyStore) -> None:
    """After a release another owner may begin; the released lease writes nothing; releasing twice is no error."""
    lease = begin(store, now=0.0)
    store.release(lease, 5.0)
    store.release(lease, 5.0)
    store.release(Lease("nowhere", "host:1", 1, 9.0), 5.0)
    with pytest.raises(LeaseError, match="it was released"):
        store.ask(lease, Candidate(0, point(0)), SEARCH, 6.0)
    assert store.study("digits").owner == ""
    assert store.acquire("digits", "host:2", 60.0, 6.0).token > lease.token


def test_an_owner_seen_dead_is_replaced_at_once(store: StudyStore) -> None:
    """`replacing` takes over a running lease of exactly that owner; the old holder's writes are then refused."""
    lease = begin(store)
    with pytest.raises(LeaseError):
        store.acquire("digits", "host:2", 60.0, 101.0, replacing="host:3")
    taken = store.acquire("digits", "host:2", 60.0, 101.0, replacing="host:1")
    assert taken.token > lease.token
    with pytest.raises(LeaseError):
        store.set_status(lease, Status.DONE, "", 102.0)


def test_a_study_begins_with_its_facts(store: StudyStore) -> None:
    """Facts given at creation are there as if they had been set."""
    store.create("digits", "name: digits", "d1", 100.0, {"budget": 3, "groups": ["L0"]})
    assert dict(store.facts("digits")) == {"budget": 3, "groups": ["L0"]}


def test_same_owner_may_come_again(store: StudyStore) -> None:
    """An owner that lost its lease object gets a new one at once, which fences the old one."""
    old = begin(store, now=0.0)
    new = store.acquire("digits", "host:1", 60.0, 1.0)
    with pytest.raises(LeaseError):
        store.ask(old, Candidate(0, point(0)), SEARCH, 2.0)
    store.ask(new, Candidate(0, point(0)), SEARCH, 2.0)


def test_seconds_add_up_over_controllers(store: StudyStore) -> None:
    """Time between acquire, renewals and release counts; time that nobody held the study does not, nor a clock's
    step back."""
    lease = begin(store, now=0.0)
    lease = store.renew(lease, 60.0, 10.0)
    assert lease.until == 70.0
    assert store.study("digits").seconds == 10.0
    lease = store.renew(lease, 60.0, 4.0)
    lease = store.renew(lease, 60.0, 5.0)
    assert store.study("digits").seconds == 11.0
    store.release(lease, 7.0)
    later = store.acquire("digits", "host:2", 60.0, 1000.0)
    store.renew(later, 60.0, 1001.5)
    assert store.study("digits").seconds == 14.5


def test_status_and_message(store: StudyStore) -> None:
    """Every status can be set, with the sentence that explains it."""
    lease = begin(store)
    for moment, status in enumerate(Status):
        store.set_status(lease, status, f"because {status}", 200.0 + moment)
        record = store.study("digits")
        assert (record.status, record.message, record.updated) == (status, f"because {status}", 200.0 + moment)


def test_facts_are_replaced_key_by_key(store: StudyStore) -> None:
    """Facts hold JSON values; a key set again is replaced, the others stay."""
    lease = begin(store)
    store.set_facts(lease, {"r2": {"mnist": 0.9}, "chosen": 3})
    store.set_facts(lease, {"chosen": [1, None, "ü", 2.5, True]})
    store.set_facts(lease, {})
    assert store.facts("digits") == {"r2": {"mnist": 0.9}, "chosen": [1, None, "ü", 2.5, True]}
    with pytest.raises(StoreError, match="fact 'x' cannot be kept as JSON"):
        store.set_facts(lease, {"y": 1, "x": np.zeros(2)})
    assert "y" not in store.facts("digits")


def test_commands_wait_until_done(store: StudyStore) -> None:
    """Wishes are read in order, stay open until finished, and unknown ones are refused with a guess."""
    lease = begin(store)
    wishes = [store.command("digits", action, 101.0) for action in ("pause", "resume", "cancel")]
    assert store.open_commands("digits") == wishes
    store.finish_command(lease, wishes[1], 102.0)
    store.finish_command(lease, wishes[1], 103.0)
    assert store.open_commands("digits") == [wishes[0], wishes[2]]
    with pytest.raises(SpecError, match="command 'pase' is unknown; did you mean 'pause'"):
        store.command("digits", "pase", 104.0)
    begin(store, "other")
    foreign = store.command("other", "pause", 105.0)
    with pytest.raises(StoreError, match=f"study 'digits' has no command {foreign.id}"):
        store.finish_command(lease, foreign, 106.0)
    assert store.open_commands("other") == [foreign]


def test_artifacts_in_order(store: StudyStore) -> None:
    """Artifacts come back as they were added, and need no lease."""
    store.create("digits", "", "", 1.0)
    made = [Artifact(n, "export", f"out/{n}", "ab" * 32, 2.0) for n in (3, 1)]
    for artifact in made:
        store.add_artifact("digits", artifact)
    assert store.artifacts("digits") == made


def test_threads_share_a_store(store: StudyStore) -> None:
    """Several threads tell and renew on one lease at once: each evaluation is told once, the sequence has no hole."""
    lease = begin(store)
    count, told = 20, []
    for number in range(count):
        store.ask(lease, Candidate(number, point(number)), SEARCH, 101.0)

    def tell_all() -> None:
        for number in range(count):
            told.append(store.tell(lease, number, SEARCH, scored(number), 102.0))
            store.renew(lease, 60.0, 102.0)
            store.events("digits", 2 * count - 3)

    threads = [threading.Thread(target=tell_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(entry is not None for entry in told) == count
    assert [event.seq for event in store.events("digits")] == list(range(1, 2 * count + 1))
