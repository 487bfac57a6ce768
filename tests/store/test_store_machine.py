"""Random sequences of calls do the same to every store as to the one in memory."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from contracts.store import point, same, scored, url_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from mergesearch.errors import LeaseError, MergesearchError
from mergesearch.store.base import Lease, Repeat, StudyStore
from mergesearch.store.open import open_store
from mergesearch.types import Asked, Candidate, Failed, Request, Scored, Split, Status, Told

FAR = 4e9  # seconds since the epoch: a lease that runs until then runs by every clock
DIGESTS = st.sampled_from(["aa", "bb", "cc"])
NUMBERS = st.integers(0, 5)
SPLITS = st.sampled_from(Split)
LEASE_SECONDS = 10.0


def plain(repeat: Repeat) -> tuple[object, ...]:
    """A repeat as values that compare."""
    outcome = repeat.outcome
    scores = outcome.scores if isinstance(outcome, Scored) else str(outcome)
    return repeat.number, repeat.split, repeat.told, scores, outcome.timing, outcome.worker


class Stores(RuleBasedStateMachine):
    """Every call goes to all stores; each must answer, or refuse in the same words, as the first does."""

    stores: ClassVar[list[StudyStore]] = []
    names = (f"study-{number}" for number in itertools.count())
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        """A study of a new name in each store: making stores anew for each example would take most of the time."""
        self.name, self.now, self.seen = next(Stores.names), 1000.0, 0
        self.on_all(lambda store: store.create(self.name, "spec", "digest", self.now))
        self.told: set[tuple[int, Split]] = set()

    def on_all(self, call: Callable[[StudyStore], Any]) -> Any:
        """The answer that all stores agree on; None for a refusal."""
        answers = []
        for store in self.stores:
            try:
                answers.append((call(store), None))
            except MergesearchError as error:
                answers.append((None, (type(error), str(error))))
        for other in answers[1:]:
            assert same(other[0], answers[0][0]), answers
            assert other[1] == answers[0][1]
        return answers[0][0]

    @rule(seconds=st.sampled_from([0.0, 0.5, 4.0, 11.0, -1.0]))
    def pass_time(self, seconds: float) -> None:
        """Clocks go on, stand still, or step back a little."""
        self.now += seconds

    @rule(target=leases, owner=st.sampled_from(["a", "b"]))
    def acquire(self, owner: str) -> Lease:
        return self.on_all(lambda s: s.acquire(self.name, owner, LEASE_SECONDS, self.now)) or Lease(
            self.name, "c", 0, 0
        )

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        self.on_all(lambda store: store.renew(lease, LEASE_SECONDS, self.now))

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        self.on_all(lambda store: store.release(lease, self.now))

    @rule(lease=leases, number=NUMBERS, split=SPLITS, variant=st.sampled_from([0, 0, 0, 0, 7]))
    def ask(self, lease: Lease, number: int, split: Split, variant: int) -> None:
        values = None if number == 0 else point(number + variant)
        request = Request(1.0 / (1 + len(split)), gradient=split.value)  # the first one of a candidate stands
        candidate = Candidate(number, values, f"o{variant}", request, request.cost(3.0))
        asked = self.on_all(lambda s: s.ask(lease, candidate, split, self.now))
        assert asked is None or isinstance(asked, Asked)

    @rule(lease=leases, number=NUMBERS, split=SPLITS, kind=st.sampled_from([0, 0, 0, 7, None]), digest=DIGESTS)
    def tell(self, lease: Lease, number: int, split: Split, kind: int | None, digest: str) -> None:
        """A result that failed, or has the number's own scores, or others; told the second time it may be a repeat."""
        outcome = Failed("timeout", "too slow") if kind is None else scored(number + kind)
        # A name of this study's own: the stores are used for many studies, whose digests shall not meet.
        digests = {"mnist": f"{self.name}-{digest}"}
        told = self.on_all(lambda store: store.tell(lease, number, split, outcome, self.now, digests))
        assert told is None or isinstance(told, Told)
        if told is not None:
            assert (number, split) not in self.told
            self.told.add((number, split))

    @rule(digest=DIGESTS)
    def cached(self, digest: str) -> None:
        found = self.on_all(lambda store: store.cached({"x": f"{self.name}-{digest}"}))
        assert found is None or (isinstance(found, Scored) and found.worker == "cache")

    @rule(owner=st.sampled_from(["a", "b"]))
    def remove(self, owner: str) -> None:
        """A study that is held is not removed; one that is free goes, and begins anew under its name."""
        gone = self.on_all(lambda store: [store.remove(self.name)])
        if gone:
            self.on_all(lambda store: store.create(self.name, "spec", "digest", self.now))
            self.told, self.seen = set(), 0
        lease = self.on_all(lambda store: store.acquire(self.name, owner, FAR, self.now))
        if lease is not None:
            for store in self.stores:
                with pytest.raises(LeaseError, match=f"run by {owner} and is not removed"):
                    store.remove(self.name)
            self.on_all(lambda store: store.release(lease, self.now))

    @rule(lease=leases, status=st.sampled_from(Status))
    def set_status(self, lease: Lease, status: Status) -> None:
        self.on_all(lambda store: store.set_status(lease, status, f"m{status}", self.now))

    @rule(lease=leases, key=st.sampled_from("ab"), value=st.integers() | st.text(max_size=3) | st.none())
    def set_facts(self, lease: Lease, key: str, value: object) -> None:
        self.on_all(lambda store: store.set_facts(lease, {key: value}))

    @rule(number=NUMBERS, split=SPLITS)
    def examples(self, number: int, split: Split) -> None:
        self.on_all(lambda s: {k: v.tobytes() for k, v in s.examples(self.name, number, split).items()})

    @invariant()
    def same_state(self) -> None:
        """Records, facts and logs agree; logs count from 1 without holes, asks before tells, each once."""
        self.on_all(lambda store: store.study(self.name))
        self.on_all(lambda store: dict(store.facts(self.name)))
        self.on_all(lambda store: [plain(repeat) for repeat in store.repeats(self.name)])
        logs = [store.events(self.name) for store in self.stores]
        for log in logs:
            assert [event.seq for event in log] == list(range(1, len(log) + 1))
            assert all(same(*pair) for pair in zip(log, logs[0], strict=True))
        for store in self.stores:  # what is new since the last look is the log's tail
            tail = store.events(self.name, self.seen)
            assert all(same(*pair) for pair in zip(tail, logs[0][self.seen :], strict=True))
        self.seen = len(logs[0])
        keys = [(type(event), event.candidate.number, event.split) for event in logs[0]]
        assert len(set(keys)) == len(keys)
        for index, (kind, number, split) in enumerate(keys):
            assert kind is Asked or (Asked, number, split) in keys[:index]


@pytest.mark.postgres
def test_every_store_does_what_memory_does(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Hundreds of random calls, leases and lapses leave all stores with one and the same log."""
    Stores.stores = [open_store(url_of(kind, tmp_path, request)) for kind in ("memory", "sqlite", "postgresql")]
    machine = Stores.TestCase
    machine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)
    machine().runTest()
    for store in Stores.stores:
        store.close()
