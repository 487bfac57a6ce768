"""Evaluations made outside, by programs in any language that ask the service for work and tell it what they found.

Each job is an offer in the study's store, which `mergesearch serve` leases to whoever asks. No worker is started here,
so no model is loaded; what comes back was checked by the service. Offers outlive the controller: one that is resumed
finds what was leased still leased, and what was told meanwhile.
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, final

import numpy as np
from pydantic import Field, PositiveInt

from mergesearch.errors import PoolError
from mergesearch.plugins import PluginOptions
from mergesearch.pool.base import Job, JobResult, Usage, WorkerOptions
from mergesearch.recipe import Recipe
from mergesearch.store.base import StudyStore
from mergesearch.store.offering import Answer, Offer
from mergesearch.store.values import same_scores
from mergesearch.types import Failed, Split

SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.2  # seconds between two looks for answers
LOOK_SECONDS: Final = 2.0  # between two looks at who holds what

Key = tuple[int, Split]


class Options(WorkerOptions):
    """How many evaluations are out at once, and for how long one is somebody's."""

    offers: PositiveInt = 8  # evaluations that are out at once
    lease_seconds: Annotated[float, Field(gt=0)] = 300.0  # who neither tells nor renews for so long has lost it
    attempts: PositiveInt = 5  # so many holders may lose one: then it counts as failed
    gradients: bool = False  # whether the scorers send gradients, so that strategies may ask for them


@final
class ExternalPool:
    """WorkerPool; see `pool/base.py` for the contract. Raises StoreError where the store refuses."""

    Options: ClassVar[type[PluginOptions]] = Options

    def __init__(self, options: PluginOptions, store: StudyStore) -> None:
        assert isinstance(options, Options)
        self._options, self._store = options, store
        self._jobs: dict[Key, Job] = {}
        self._done: set[Key] = set()
        self._returned: list[Answer] = []
        self._study: str | None = None
        self._before: Mapping[Key, tuple[float, float | None]] | None = None
        self._looked = -float("inf")
        self._busy = 0.0
        self._first: dict[str, float] = {}  # when each scorer was first, and last, seen at work
        self._last: dict[str, float] = {}
        self._closed = False

    @property
    def size(self) -> int:
        """The option `offers`: how many scorers there are is not known."""
        return self._options.offers

    @property
    def gpus(self) -> float:
        """0: what the scorers hold is not known."""
        return 0.0

    def usage(self) -> Usage:
        """Workers are the names that were seen at work within the time of a lease. Each counts from its first lease on,
        and is busy between a lease and its answer."""
        now = time.monotonic()
        workers = sum(now - last <= self._options.lease_seconds for last in self._last.values())
        available = sum(now - first for first in self._first.values())
        return Usage(workers, min(self._busy, available), available)

    def submit(self, job: Job) -> None:
        """Offer a job. Raises PoolError after `close`."""
        if self._closed:
            raise PoolError("this pool is closed; open another")
        key = secrets.token_hex(8)
        self._study = job.study
        self._store.offers.put(job.study, job.number, job.split, body_of(job), key, seconds=self._options.lease_seconds)
        self._jobs[job.number, job.split] = job

    def poll(self, timeout: float) -> Sequence[JobResult]:
        """What was told, waiting at most `timeout` seconds for the first. What was returned before is in the log by
        now and is not returned again, also not by the pool of a resumed controller."""
        if self._closed or self._study is None:
            return []
        self._store.offers.take(self._study, self._returned)
        self._returned = []
        end, pause = time.monotonic() + timeout, SHORTEST_PAUSE
        while True:
            self._look(self._study)
            results = [result for answer in self._store.offers.answers(self._study) for result in self._result(answer)]
            left = end - time.monotonic()
            if results or not self._jobs or left <= 0.0:
                return results
            time.sleep(min(left, pause))
            pause = min(LONGEST_PAUSE, 1.5 * pause)

    def close(self) -> None:
        """Forget the jobs. Their offers stand: what is told of them waits for the next controller."""
        self._closed = True
        self._jobs.clear()

    def _result(self, answer: Answer) -> Sequence[JobResult]:
        """The answer as a result; none while its job was not submitted by a controller that was resumed."""
        key = (answer.number, answer.split)
        job = self._jobs.pop(key, None)
        if job is None and key not in self._done:
            if not self._told_before(key):
                return []
            if self._kept_before(answer):
                self._returned.append(answer)
                return []
        self._done.add(key)
        self._returned.append(answer)
        spent = max(0.0, answer.told - answer.leased)
        self._busy += spent
        self._seen(answer.holder, spent)
        timing = answer.outcome.timing
        queue = max(0.0, answer.leased - answer.offered) if answer.leased else 0.0
        timing = replace(timing, queue=queue, score=timing.score or spent)
        outcome = replace(answer.outcome, timing=timing, worker=answer.holder)
        late = Job(answer.number, answer.split, np.empty(0), study=self._study or "")
        return [JobResult(late if job is None else job, outcome, answer.attempt)]

    def _told_before(self, key: Key) -> bool:
        """Whether an earlier controller wrote that evaluation's outcome into the log."""
        if self._before is None:
            self._before = self._store.times(self._study or "")
        return self._before.get(key, (0.0, None))[1] is not None

    def _kept_before(self, answer: Answer) -> bool:
        """Whether an earlier controller kept that answer as a repeat, and ended before it could be marked as taken."""
        return any(
            (repeat.number, repeat.split) == (answer.number, answer.split)
            and same_scores(repeat.outcome, answer.outcome)
            for repeat in self._store.repeats(self._study or "")
        )

    def _look(self, study: str) -> None:
        """Now and then: who works, and whether somebody's last attempt is over."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        clock = self._store.clock()
        held = [offer for offer in self._store.offers.waiting(study) if offer.holders]
        for offer in held:
            if offer.until > clock:
                self._seen(offer.holders[-1], 0.0)
            elif len(offer.holders) >= self._options.attempts:
                self._give_up(study, offer)

    def _seen(self, name: str, spent: float) -> None:
        now = time.monotonic()
        self._first.setdefault(name, now - spent)
        self._last[name] = now

    def _give_up(self, study: str, offer: Offer) -> None:
        count = len(offer.holders)
        why = (
            f"its lease ran out {count} times, the last one {offer.holders[-1]}'s; renew it while a scoring takes long"
        )
        self._store.offers.tell(study, offer.number, offer.split, offer.token, Failed("worker_lost", why))


def body_of(job: Job) -> str:
    """What an offer says of a job, as JSON: 'recipe' or 'values' [D], 'point' [D] (None for a baseline), 'request'."""
    work: dict[str, Any] = {"recipe": job.work.to_dict()} if isinstance(job.work, Recipe) else {}
    if not isinstance(job.work, Recipe):
        work["values"] = [float(value) for value in job.work]
    request = {"share": job.request.share, "offset": job.request.offset, "gradient": job.request.gradient}
    point = None if job.point is None else [float(unit) for unit in job.point]
    return json.dumps({**work, "point": point, "request": request})
