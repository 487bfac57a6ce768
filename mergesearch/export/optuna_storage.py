"""A study as an Optuna storage, for optuna-dashboard and for whoever works with Optuna's own tools."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from mergesearch.errors import DataError, SpecError
from mergesearch.export.optuna_rows import add_rows, takes_rows
from mergesearch.export.tables import Times
from mergesearch.results import BASELINE
from mergesearch.space import Axis, Scale
from mergesearch.stored import StoredStudy
from mergesearch.types import Candidate, Direction, Failed, Outcome, Scored, Split

JOURNAL: Final = "journal://"
FIRST: Final = 5
CHUNK: Final = 100


def export_optuna(
    study: StoredStudy, times: Times, to: str, note: Callable[[int, int], None] = lambda _done, _all: None
) -> int:
    """Write the search's candidates that ended into a new Optuna study of the same name. Returns how many there are.

    Args:
        to: URL of a database as Optuna takes it ('sqlite:///optuna.db'), or the path of a journal file, which may also
            be written 'journal:///path'.
        note: told how many of how many were written, now and then.

    Each has its axes' natural values, the objectives' scores as values, and what else is known as user attributes:
    number, split, origin, cost, worker, its seconds, the scores of the held-out splits. Failed ones are FAIL; those
    scored on a share of the examples alone are PRUNED, since their scores are not comparable. Baselines have no
    point: their scores are user attributes of the study.

    Raises:
        SpecError: `to` cannot be understood, or holds a study of that name.
        DataError: the storage cannot be written.
    """
    with _quiet(), _refusals(to, study.record.name):
        storage = open_storage(to)
        ways = ["maximize" if o.direction is Direction.MAX else "minimize" for o in study.results.objectives]
        made = optuna.create_study(storage=storage, study_name=study.record.name, directions=ways)
        made.set_metric_names([o.name for o in study.results.objectives])
        for key, value in _attributes(study).items():
            made.set_user_attr(key, value)
        found = list(_converted(study, times))
        rows = isinstance(storage, RDBStorage) and takes_rows(storage)
        made.add_trials(found[:FIRST])  # these go through Optuna, so that what does not fit is refused by it
        for start in range(FIRST, len(found), CHUNK):
            chunk = found[start : start + CHUNK]
            if rows:
                add_rows(storage, made.study_name, chunk, start)
            else:
                made.add_trials(chunk)
            note(min(start + CHUNK, len(found)), len(found))
    return len(found)


def open_storage(to: str) -> BaseStorage:
    """The storage at a URL or path, made where there is none."""
    if to.startswith(JOURNAL) or "://" not in to:
        path = Path(to.removeprefix(JOURNAL))
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    if to.startswith("sqlite:///"):
        Path(to.removeprefix("sqlite:///").partition("?")[0]).parent.mkdir(parents=True, exist_ok=True)
    return RDBStorage(to)


def distribution(axis: Axis) -> BaseDistribution:
    """An axis' natural range. Optuna knows no logit scale: such an axis is an even one there."""
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high))
    return FloatDistribution(axis.low, axis.high, log=axis.scale is Scale.LOG)


def _converted(study: StoredStudy, times: Times) -> Iterator[FrozenTrial]:
    distributions = {axis.name: distribution(axis) for axis in study.space.axes}
    whole = [axis.whole for axis in study.space.axes]
    for (number, split), outcome in study.results.outcomes.items():
        candidate = study.results.candidates[number]
        if split is not Split.SEARCH or candidate.point is None:
            continue
        values = study.space.values(candidate.point).tolist()
        params = {
            name: int(value) if is_whole else value
            for name, value, is_whole in zip(distributions, values, whole, strict=True)
        }
        yield _frozen(study, candidate, outcome, params, distributions, times)


def _frozen(
    study: StoredStudy,
    candidate: Candidate,
    outcome: Outcome,
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    times: Times,
) -> FrozenTrial:
    state = TrialState.FAIL
    if isinstance(outcome, Scored):
        state = TrialState.COMPLETE if candidate.request.complete else TrialState.PRUNED
    values = _values(study, outcome) if state is TrialState.COMPLETE else None
    made = create_trial(
        params=params,
        distributions=distributions,
        values=values,
        state=state,
        user_attrs=_candidate_attributes(study, candidate, outcome),
    )
    asked, told = times.get((candidate.number, Split.SEARCH), (None, None))
    ended = study.record.updated if told is None else told
    made.datetime_start = datetime.fromtimestamp(ended if asked is None else asked)  # local time, as Optuna keeps it
    made.datetime_complete = datetime.fromtimestamp(ended)
    return made


def _values(study: StoredStudy, outcome: Outcome) -> list[float]:
    assert isinstance(outcome, Scored)
    return [outcome.scores[o.name].value for o in study.results.objectives]


def _candidate_attributes(study: StoredStudy, candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    timing, request = outcome.timing, candidate.request
    body: dict[str, Any] = {
        "number": candidate.number,
        "split": Split.SEARCH.value,
        "origin": candidate.origin,
        "cost": candidate.cost,
        "share": request.covers,
        "worker": outcome.worker,
        "seconds": {part: getattr(timing, part) for part in ("queue", "build", "score", "record")},
    }
    if isinstance(outcome, Failed):
        return {**body, "failure": f"{outcome.kind}: {outcome.message}"}
    body["stderr"] = {name: score.stderr for name, score in outcome.scores.items()}
    if not request.complete:
        body["scores"] = {name: score.value for name, score in outcome.scores.items()}
    for split in (Split.CONFIRM, Split.TEST):
        held_out = study.results.outcome(candidate.number, split)
        if held_out is not None:
            body[split.value] = {name: score.value for name, score in held_out.scores.items()}
    return body


def _attributes(study: StoredStudy) -> dict[str, Any]:
    """Of the study: where it comes from, its strategy and budget, and each baseline's scores by split."""
    body: dict[str, Any] = {
        "source": "mergesearch",
        "strategy": study.facts.get("strategy", ""),
        "budget": study.budget,
        "status": study.record.status.value,
        "chosen": study.chosen,
    }
    for (number, split), outcome in study.results.outcomes.items():
        origin = study.results.candidates[number].origin
        if origin.startswith(BASELINE) and isinstance(outcome, Scored):
            scores = {name: score.value for name, score in outcome.scores.items()}
            body.setdefault(origin, {})[split.value] = scores
    return body


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of each study it makes, and warns of its own experimental parts, on stderr; not of ours."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def _refusals(to: str, name: str) -> Iterator[None]:
    shown = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", to)
    try:
        yield
    except optuna.exceptions.DuplicatedStudyError:
        raise SpecError(f"{shown} already holds a study {name!r}; write to another file or database") from None
    except optuna.exceptions.StorageInternalError as error:
        raise DataError(f"{shown} cannot be written: {error.__cause__ or error}") from None
    except OSError as error:
        raise DataError(f"{shown} cannot be written: {error.strerror or error}") from None
    except Exception as error:
        if not type(error).__module__.startswith("sqlalchemy"):  # which this layer does not import
            raise
        raise DataError(f"{shown} cannot be written: {str(error).splitlines()[0]}") from None
