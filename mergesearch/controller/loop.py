"""The controller: holds the lease, records, submits, tells, until the plan says that the study is finished."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from mergesearch.controller.budget import Ledger
from mergesearch.controller.heartbeat import Heartbeat
from mergesearch.controller.holdout import Holdout
from mergesearch.controller.notes import Notes
from mergesearch.controller.observer import Observer, Progress
from mergesearch.controller.owner import acquire
from mergesearch.controller.plan import PLATEAU, SLACK, Action, Facts, ended, plan, search_is_over
from mergesearch.controller.run import StudyRun
from mergesearch.controller.searcher import Searcher
from mergesearch.errors import MergesearchError, StoreError, StudyFailed
from mergesearch.pool.base import Job, JobResult, WorkerPool
from mergesearch.results import RECOMMENDED, Results
from mergesearch.store.base import Lease, StudyStore
from mergesearch.study.limits import settle
from mergesearch.types import Asked, Candidate, Request, Scored, Split, Status, Told

__all__ = ["Controller", "StudyRun"]

LEASE_SECONDS = 30.0
POLL_SECONDS = 0.5

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Asking:
    """An evaluation under way: the seconds that it took to record, and what its scores will be known by."""

    record: float
    digests: Mapping[str, str]


class Controller:
    """Runs one study to its end. Record first, act second: a kill at any moment loses no told evaluation.

    `clock` gives seconds that only grow: the time between two events is measured with it. When something happened is
    said by the store's clock.
    """

    def __init__(
        self,
        run: StudyRun,
        store: StudyStore,
        pool: WorkerPool,
        observers: Sequence[Observer] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._store = store
        self._pool = pool
        self._clock = clock
        self._results = Results(run.objectives, again=lambda: store.events(run.name))
        self._ledger = Ledger(run.budget, self._results, run.count)
        self._searcher = Searcher(
            run.strategy,
            self._results,
            run.gradient_cost,
            run.needs,
            lambda number: store.examples(run.name, number, Split.SEARCH),
        )
        self._holdout = Holdout(
            self._results,
            run.finalists,
            lambda number, split: store.examples(run.name, number, split),
            lambda chosen: self._keep({"chosen": chosen}),
        )
        self._notes = Notes(run.name, run.strategy, observers, self._keep)
        self._baselines = list(run.baselines)
        self._running: dict[tuple[int, Split], _Asking] = {}
        self._waiting: deque[tuple[Candidate, Split]] = deque()
        self._failed_in_a_row = 0
        self._raised = 0
        self._ended = ""
        self._left = False
        self._seconds_before = 0.0
        self._started = 0.0
        self._wish_read = -math.inf
        self._wish = ""

    def run(self) -> Results:
        """Run the study until it is finished, paused, cancelled, failed, or interrupted; returns its results.

        Raises:
            LeaseError: another controller holds the study, or has taken it over.
            StudyFailed: too many evaluations failed in a row.
            PoolError: the workers cannot start, or their cluster is gone; the study is stopped and can be resumed.
            StoreError: the store refuses; what was recorded stays.
            KeyboardInterrupt: passed on, after the study was marked as stopped.
        """
        lease = acquire(self._store, self._run.name, LEASE_SECONDS)
        self._beat = Heartbeat(self._store, lease, LEASE_SECONDS)
        try:
            self._begin(lease)
            status, message = self._loop()
            if status is Status.FAILED:
                raise StudyFailed(f"study {self._run.name!r} stopped: {message}")
            self._beat.close()
            self._notes.last(self._pool.usage())
            self._leave(status, message)
        except BaseException as error:
            self._leave_after(error)
            raise
        return self._results

    def _leave(self, status: Status, message: str) -> None:
        if not self._left:
            self._store.set_status(self._beat.lease, status, message)
            self._left = True  # Ctrl-C from here on does not undo what was said
        self._store.release(self._beat.lease)

    def _leave_after(self, error: BaseException) -> None:
        """Leave without hiding `error`: what the store refuses now is of no interest beside it.

        Where the store is away, Ctrl-C does not wait for it: the lease of a process that has ended is taken over.
        """
        if not self._beat.close() and isinstance(error, KeyboardInterrupt):
            return
        message = "interrupted" if isinstance(error, KeyboardInterrupt) else "the controller ended; resume it"
        if isinstance(error, MergesearchError):
            message = str(error)
        if not isinstance(error, StoreError):
            with suppress(MergesearchError):  # of the pool too, whose cluster may be gone
                self._notes.last(self._pool.usage())
        with suppress(StoreError):
            self._leave(Status.FAILED if isinstance(error, StudyFailed) else Status.STOPPED, message)

    def _begin(self, lease: Lease) -> None:
        """Bring results and strategy to where the log ends; nothing is proposed or evaluated again."""
        store, name = self._store, self._run.name
        self._seconds_before = store.study(name).seconds
        self._started = self._clock()
        for event in store.events(name):
            self._take(event)
        facts = store.facts(name)
        self._notes.begin(facts)
        self._settle_limits(facts)
        self._failed_in_a_row = 0  # whoever resumes has mended something
        self._waiting = deque(self._results.pending)
        for command in store.open_commands(name):
            if command.created < lease.until - LEASE_SECONDS:  # meant for a controller that has ended
                store.finish_command(self._beat.lease, command)
        store.set_status(self._beat.lease, Status.RUNNING, "")

    def _settle_limits(self, facts: Mapping[str, object]) -> None:
        """Keep the budget that stands from now on. Where it is a higher one, the search that had ended goes on."""
        made, higher = settle(self._run.budget, facts)
        raised, self._ended = facts.get("raised"), str(facts.get("ended", ""))
        self._raised = raised if isinstance(raised, int) else 0
        if higher and self._results.search_asked:
            self._raised, self._ended = len(self._results.candidates), ""
            made |= {"raised": self._raised, "ended": ""}
        if made:
            self._keep(made)

    def _loop(self) -> tuple[Status, str]:
        actions: dict[Action, Callable[[], None]] = {
            Action.SUBMIT: lambda: self._submit(*self._waiting.popleft()),
            Action.BASELINE: self._ask_baseline,
            Action.PROPOSE: self._searcher.propose,
            Action.SEARCH: lambda: self._ask(self._searcher.candidate(), Split.SEARCH),
            Action.CONFIRM: lambda: self._ask_held_out(self._holdout.confirms(), Split.CONFIRM),
            Action.TEST: lambda: self._ask_held_out(self._holdout.tests(), Split.TEST),
            Action.WAIT: self._wait,
        }
        while True:
            self._beat.check()
            facts = self._facts()
            action = plan(facts)
            self._notes.progress(self._clock(), self._phase(), self._progress)
            if action in actions:
                actions[action]()
                continue
            if action is Action.RECOMMENDED:
                self._end(facts)
                self._ask(self._searcher.recommended(), Split.SEARCH)
                continue
            if action is Action.FINISH:
                return Status.DONE, ""
            if action is Action.FAIL:
                last = self._results.last_failure
                return Status.FAILED, f"{self._failed_in_a_row} evaluations in a row failed; the last one: " + (
                    f"{last.kind}: {last.message}" if last else "unknown"
                )
            for command in self._store.open_commands(self._run.name):
                self._store.finish_command(self._beat.lease, command)
            return (Status.PAUSED, "paused on request") if action is Action.PAUSE else (Status.STOPPED, "cancelled")

    def _facts(self) -> Facts:
        results, run, searcher = self._results, self._run, self._searcher
        last, cost = results.by_origin(RECOMMENDED), searcher.proposed
        facts = Facts(
            free=self._pool.size - len(self._running),
            running=len(self._running),
            unsubmitted=len(self._waiting),
            baselines_left=len(self._baselines),
            searching=results.search_asked - results.search_told,
            spent=results.cost_asked,
            budget=run.evaluations,
            confirms_left=0,
            tests_left=0,
            failed_in_a_row=self._failed_in_a_row,
            failures=run.failures,
            proposed=cost,
            dry=searcher.dry,
            closed=last is not None and last >= self._raised,
            amounts=self._ledger.amounts(searcher.request, cost or 0.0),
            reached=self._ledger.reached(self._seconds()),
            wish=self._read_wish(),
            lasting=run.lasting,
        )
        if not facts.closed and self._recommends(facts):
            facts = replace(facts, recommends=True)
        if facts.baselines_left or not search_is_over(facts):
            return facts
        self._end(facts)
        if not run.finalists or results.baselines_open or facts.unsubmitted:
            return facts
        confirms = len(self._holdout.confirms())
        # What is tested depends on every confirmation.
        tests = 0 if confirms or self._running else len(self._holdout.tests())
        return replace(facts, confirms_left=confirms, tests_left=tests)

    def _recommends(self, facts: Facts) -> bool:
        """Whether the strategy recommends something; looked up only where it decides, as it may be dear."""
        if not (facts.dry or facts.reached or facts.amounts) and facts.fits((facts.proposed or 0.0) + 1.0 + 4 * SLACK):
            return False
        would = replace(facts, recommends=True)
        decides = facts.dry or facts.reached == PLATEAU or would.lacks != ""
        return would.kept and decides and self._searcher.recommends()

    def _end(self, facts: Facts) -> None:
        """Keep why the search asks nothing more, once."""
        if not self._ended:
            self._ended = ended(facts)
            self._keep({"ended": self._ended})

    def _keep(self, facts: Mapping[str, object]) -> None:
        self._store.set_facts(self._beat.lease, facts)

    def _seconds(self) -> float:
        return self._seconds_before + self._clock() - self._started

    def _read_wish(self) -> str:
        now = self._clock()
        if now - self._wish_read >= POLL_SECONDS:
            self._wish_read = now
            open_wishes = self._store.open_commands(self._run.name)
            self._wish = open_wishes[-1].action if open_wishes else ""
        return self._wish

    def _ask_baseline(self) -> None:
        self._ask(Candidate(len(self._results.candidates), None, self._baselines[0]), Split.SEARCH)

    def _ask_held_out(self, numbers: list[int], split: Split) -> None:
        self._ask(self._results.candidates[numbers[0]], split)

    def _ask(self, candidate: Candidate, split: Split) -> None:
        began = self._clock()
        self._take(self._store.ask(self._beat.lease, candidate, split))
        self._submit(candidate, split, began)

    def _submit(self, candidate: Candidate, split: Split, began: float | None = None) -> None:
        """Give a candidate to the pool, or tell at once what the store knows of it. `began`: when its ask began."""
        began = self._clock() if began is None else began
        digests = {} if self._run.digests is None else self._run.digests(candidate, split)
        known = self._store.cached(digests) if digests else None
        if known is not None:
            outcome = replace(known, timing=replace(known.timing, record=max(0.0, self._clock() - began)))
            told = self._store.tell(self._beat.lease, candidate.number, split, outcome, digests=digests)
            if told is not None:
                self._take(told)
                self._notes.evaluated(told, 0)
            return
        self._running[candidate.number, split] = _Asking(self._clock() - began, digests)
        # Held-out splits are read whole: what a request says is how the search wanted it.
        request = candidate.request if split is Split.SEARCH else Request()
        job = Job(candidate.number, split, self._run.work(candidate), request, candidate.point, self._run.name)
        self._pool.submit(job)

    def _wait(self) -> None:
        results = self._pool.poll(POLL_SECONDS)
        arrived = self._clock()
        for done in results:
            self._record(done, arrived)
        if not self._running and not results:  # no workers are there just now, and a pool without jobs returns at once
            time.sleep(POLL_SECONDS / 10)

    def _record(self, done: JobResult, arrived: float) -> None:
        """Write down how a job ended; of one that had ended before, what differs is kept beside the log."""
        key = (done.job.number, done.job.split)
        asking = self._running.get(key)
        if asking is None:
            self._repeat(done)
            return
        outcome = self._searcher.recorded(done)
        record = asking.record + self._clock() - arrived
        outcome = replace(outcome, timing=replace(outcome.timing, record=record))
        digests = asking.digests if isinstance(outcome, Scored) else {}
        told = self._store.tell(self._beat.lease, *key, outcome, digests=digests)
        del self._running[key]
        if told is not None:
            self._take(told)
            self._notes.evaluated(told, done.attempt)

    def _repeat(self, done: JobResult) -> None:
        """A further outcome of an evaluation that was told before."""
        name, key = self._run.name, (done.job.number, done.job.split)
        outcome, before = self._searcher.recorded(done), len(self._store.repeats(name))
        self._store.tell(self._beat.lease, *key, outcome)
        if len(self._store.repeats(name)) > before:
            self._notes.repeated(Told(0, self._results.candidates[key[0]], key[1], outcome), done.attempt)

    def _take(self, event: Asked | Told) -> None:
        """Fold one log entry into results, accounts and strategy; the same for live entries and for a replay."""
        self._results.add(event)
        self._ledger.take(event)
        if isinstance(event, Told):
            worked = isinstance(event.outcome, Scored)
            self._failed_in_a_row = 0 if worked else self._failed_in_a_row + 1
        elif event.candidate.origin in self._baselines:
            self._baselines.remove(event.candidate.origin)
        if event.split is Split.SEARCH and (event.candidate.point is not None or isinstance(event, Told)):
            self._searcher.take(event)  # of a baseline only what it scores

    def _phase(self) -> str:
        if self._holdout.begun:
            return "confirm and test"
        return "search" if self._results.search_asked else "baselines"

    def _progress(self) -> Progress:
        results = self._results
        return Progress(
            results,
            results.search_told,
            results.cost_told,
            self._run.evaluations,
            len(self._running),
            self._seconds(),
            self._phase(),
            self._run.name,
            self._pool.usage(),
            self._ended,
        )
