"""The controller: holds the lease, records, submits, tells, until the plan says that the study is finished."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mergesearch.controller.finalists import choose, compared, finalists
from mergesearch.controller.heartbeat import Heartbeat
from mergesearch.controller.owner import is_dead, owner_name
from mergesearch.controller.plan import Action, Facts, plan, search_is_over
from mergesearch.controller.searcher import Searcher
from mergesearch.errors import LeaseError, PoolError, StudyFailed
from mergesearch.pool.base import Job, WorkerPool
from mergesearch.recipe import Recipe
from mergesearch.results import RECOMMENDED, Results
from mergesearch.store.base import Lease, StudyStore
from mergesearch.strategies.base import Need, Strategy
from mergesearch.types import Asked, Candidate, Objective, Request, Scored, Split, Status, Told, Vector

LEASE_SECONDS = 30.0
POLL_SECONDS = 0.5
NOTE_SECONDS = 5.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class StudyRun:
    """What a controller needs of a study: `work` turns a candidate into what a worker evaluates.

    `evaluations` is the budget: the cost of all that the search asks, an evaluation with a gradient at `gradient_cost`.
    `needs` adds to what the strategy itself says that it needs.
    `baselines` are origins 'baseline:...' to evaluate beside the budget; `finalists` 0 means no confirm or test split.
    """

    name: str
    objectives: tuple[Objective, ...]
    evaluations: float
    strategy: Strategy
    work: Callable[[Candidate], Recipe | Vector]
    baselines: tuple[str, ...] = ()
    finalists: int = 0
    hours: float | None = None
    failures: int = 5
    gradient_cost: float = 3.0
    needs: frozenset[Need] = frozenset()


@dataclass(frozen=True)
class Progress:
    """A picture of a running study, handed to whoever watches; `results` is live and must only be read.

    `evaluations` counts what was told of the search, `cost` is what that took of the `budget`.
    """

    results: Results = field(repr=False)
    evaluations: int
    cost: float
    budget: float
    running: int
    seconds: float
    phase: str


class Controller:
    """Runs one study to its end. Record first, act second: a kill at any moment loses no told evaluation."""

    def __init__(
        self,
        run: StudyRun,
        store: StudyStore,
        pool: WorkerPool,
        watch: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._store = store
        self._pool = pool
        self._watch = watch
        self._clock = clock
        self._results = Results(run.objectives)
        self._running: set[tuple[int, Split]] = set()
        self._failed_in_a_row = 0
        self._searcher = Searcher(
            run.strategy,
            self._results,
            run.gradient_cost,
            run.needs,
            lambda number: store.examples(run.name, number, Split.SEARCH),
        )
        self._notes = 0
        self._finalists: list[int] | None = None
        self._chosen: int | None = None
        self._seconds_before = 0.0
        self._started = 0.0
        self._noted = 0.0
        self._wish_read = 0.0
        self._wish = ""
        self._waiting: list[tuple[Candidate, Split]] = []

    def run(self) -> Results:
        """Run the study until it is finished, paused, cancelled, failed, or interrupted; returns its results.

        Raises:
            LeaseError: another controller holds the study.
            StudyFailed: too many evaluations failed in a row.
            PoolError: the workers cannot start.
            StoreError: the store refuses; what was recorded stays.
            KeyboardInterrupt: passed on, after the study was marked as stopped.
        """
        name = self._run.name
        lease = acquire(self._store, name, self._clock)
        self._beat = Heartbeat(self._store, lease, LEASE_SECONDS, self._clock)
        status, message = Status.STOPPED, "the controller ended; resume it"
        try:
            self._replay()
            self._store.set_status(self._beat.lease, Status.RUNNING, "", self._clock())
            status, message = self._loop()
            if status is Status.FAILED:
                raise StudyFailed(f"study {name!r} stopped: {message}")
        except KeyboardInterrupt:
            status, message = Status.STOPPED, "interrupted"
            raise
        except (StudyFailed, PoolError) as error:
            status, message = Status.FAILED, str(error)
            raise
        finally:
            self._leave(status, message)
        return self._results

    def _leave(self, status: Status, message: str) -> None:
        self._beat.close()
        try:
            self._keep_notes()
            self._store.set_facts(self._beat.lease, {"diagnostics": dict(self._run.strategy.diagnostics())})
            self._store.set_status(self._beat.lease, status, message, self._clock())
        finally:
            self._store.release(self._beat.lease, self._clock())

    def _replay(self) -> None:
        """Bring results and strategy to where the log ends; nothing is proposed or evaluated again."""
        self._seconds_before = self._store.study(self._run.name).seconds
        self._started = self._clock()
        for event in self._store.events(self._run.name):
            self._take(event)
        self._notes = len(_texts(self._store.facts(self._run.name).get("notes")))
        self._failed_in_a_row = 0  # whoever resumes has mended something
        self._waiting = self._results.pending

    def _loop(self) -> tuple[Status, str]:
        actions: dict[Action, Callable[[], None]] = {
            Action.SUBMIT: self._submit_waiting,
            Action.BASELINE: self._ask_baseline,
            Action.PROPOSE: self._searcher.propose,
            Action.SEARCH: lambda: self._ask(self._searcher.candidate(), Split.SEARCH),
            Action.RECOMMENDED: lambda: self._ask(self._searcher.recommended(), Split.SEARCH),
            Action.CONFIRM: lambda: self._ask_split(Split.CONFIRM),
            Action.TEST: lambda: self._ask_split(Split.TEST),
            Action.WAIT: self._wait,
        }
        while True:
            self._beat.check()
            action = plan(self._facts())
            if action in actions:
                actions[action]()
                continue
            if action is Action.FINISH:
                return Status.DONE, ""
            if action is Action.FAIL:
                last = self._results.last_failure
                return Status.FAILED, f"{self._failed_in_a_row} evaluations in a row failed; the last one: " + (
                    f"{last.kind}: {last.message}" if last else "unknown"
                )
            self._obey()
            return (Status.PAUSED, "paused on request") if action is Action.PAUSE else (Status.STOPPED, "cancelled")

    def _facts(self) -> Facts:
        results, run = self._results, self._run
        known = results.baselines()
        facts = Facts(
            free=self._pool.size - len(self._running),
            running=len(self._running),
            unsubmitted=len(self._waiting),
            baselines_left=sum(origin not in known for origin in run.baselines),
            searching=results.search_asked - results.search_told,
            spent=results.cost_asked,
            budget=run.evaluations,
            confirms_left=0,
            tests_left=0,
            failed_in_a_row=self._failed_in_a_row,
            failures=run.failures,
            proposed=self._searcher.proposed,
            dry=self._searcher.dry,
            recommends=self._searcher.recommends(run.evaluations),
            recommended=results.by_origin(RECOMMENDED) is not None,
            out_of_time=run.hours is not None and self._seconds() > run.hours * 3600,
            wish=self._read_wish(),
        )
        if not run.finalists or facts.baselines_left or not search_is_over(facts) or self._baselines_running():
            return facts
        return Facts(
            **{
                **facts.__dict__,
                "confirms_left": len(self._left(Split.CONFIRM)),
                "tests_left": len(self._left(Split.TEST)),
            }
        )

    def _baselines_running(self) -> bool:
        return any(split is Split.SEARCH for _, split in self._running)

    def _left(self, split: Split) -> list[int]:
        """Candidates still to be asked on a held-out split. The finalists are fixed when the search is over."""
        results = self._results
        if self._finalists is None:
            self._finalists = finalists(results, self._run.finalists)
        if split is Split.CONFIRM:
            wanted = [*self._finalists, *compared(results)]
        elif self._running or self._left(Split.CONFIRM):
            return []  # what is tested depends on every confirmation
        else:
            chosen = self._choose()
            wanted = [*([] if chosen is None else [chosen]), *compared(results)]
        return [n for n in dict.fromkeys(wanted) if (n, split) not in results.asked]

    def _choose(self) -> int | None:
        if self._chosen is None:
            name = self._run.name
            self._chosen = choose(
                self._results, self._finalists or [], lambda n, split: self._store.examples(name, n, split)
            )
            self._store.set_facts(self._beat.lease, {"chosen": self._chosen})
        return self._chosen

    def _seconds(self) -> float:
        return self._seconds_before + self._clock() - self._started

    def _read_wish(self) -> str:
        now = self._clock()
        if now - self._wish_read >= POLL_SECONDS:
            self._wish_read = now
            open_wishes = self._store.open_commands(self._run.name)
            self._wish = open_wishes[-1].action if open_wishes else ""
        return self._wish

    def _obey(self) -> None:
        for command in self._store.open_commands(self._run.name):
            self._store.finish_command(self._beat.lease, command, self._clock())

    def _ask_baseline(self) -> None:
        known = self._results.baselines()
        origin = next(origin for origin in self._run.baselines if origin not in known)
        self._ask(Candidate(len(self._results.candidates), None, origin), Split.SEARCH)

    def _ask_split(self, split: Split) -> None:
        self._ask(self._results.candidates[self._left(split)[0]], split)

    def _ask(self, candidate: Candidate, split: Split) -> None:
        asked = self._store.ask(self._beat.lease, candidate, split, self._clock())
        self._take(asked)
        self._submit(candidate, split)

    def _submit_waiting(self) -> None:
        self._submit(*self._waiting.pop(0))

    def _submit(self, candidate: Candidate, split: Split) -> None:
        self._running.add((candidate.number, split))
        # Held-out splits are read whole: what a request says is how the search wanted it.
        request = candidate.request if split is Split.SEARCH else Request()
        self._pool.submit(Job(candidate.number, split, self._run.work(candidate), request, candidate.point))

    def _wait(self) -> None:
        for done in self._pool.poll(POLL_SECONDS):
            key = (done.job.number, done.job.split)
            told = self._store.tell(self._beat.lease, *key, self._searcher.recorded(done), self._clock())
            self._running.discard(key)
            if told is not None:
                self._take(told)
        self._note()

    def _take(self, event: Asked | Told) -> None:
        """Fold one log entry into results and strategy; the same for live entries and for a replay."""
        self._results.add(event)
        if isinstance(event, Told):
            worked = isinstance(event.outcome, Scored)
            self._failed_in_a_row = 0 if worked else self._failed_in_a_row + 1
        if event.split is Split.SEARCH and (event.candidate.point is not None or isinstance(event, Told)):
            self._searcher.take(event)  # of a baseline only what it scores

    def _keep_notes(self) -> None:
        """Log what the strategy said since, and keep all of it."""
        notes = self._run.strategy.notes()
        if len(notes) > self._notes:
            for note in notes[self._notes :]:
                _LOG.info("study %r: %s", self._run.name, note)
            self._notes = len(notes)
            self._store.set_facts(self._beat.lease, {"notes": list(notes)})

    def _note(self) -> None:
        self._keep_notes()
        now = self._clock()
        if now - self._noted >= NOTE_SECONDS:
            self._noted = now
            self._store.set_facts(self._beat.lease, {"diagnostics": dict(self._run.strategy.diagnostics())})
        phase = "search" if self._results.search_asked else "baselines"
        if self._finalists is not None:
            phase = "confirm and test"
        if self._watch is not None:
            told, cost = self._results.search_told, self._results.cost_told
            budget, running = self._run.evaluations, len(self._running)
            self._watch(Progress(self._results, told, cost, budget, running, self._seconds(), phase))


def acquire(store: StudyStore, name: str, clock: Callable[[], float]) -> Lease:
    """The study's lease, taken over at once if its holder was a process of this machine that has died."""
    held_by = store.study(name).owner
    try:
        return store.acquire(name, owner_name(), LEASE_SECONDS, clock())
    except LeaseError:
        if not is_dead(held_by):
            raise
        return store.acquire(name, owner_name(), LEASE_SECONDS, clock(), replacing=held_by)


def _texts(value: object) -> list[object]:
    return value if isinstance(value, list) else []
