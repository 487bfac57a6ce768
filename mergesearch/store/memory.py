"""A store in this process's memory: for tests and for searching black boxes. It ends with the process."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from mergesearch.store import refusals
from mergesearch.store.base import Artifact, Command, Lease, Repeat, StudyRecord
from mergesearch.store.memory_offers import MemoryOffers, StudyOffers
from mergesearch.store.values import CACHE, check_action, facts_json, repeated, same_scores, without_examples
from mergesearch.types import Asked, Candidate, Event, Outcome, Score, Scored, Split, Status, Told, Vector


@dataclass
class _Study:
    """One study's state. `log[i]` has seq i + 1; `token` is that of the last lease given."""

    record: StudyRecord
    token: int = 0
    renewed: float = 0.0
    log: list[Event] = field(default_factory=list)
    candidates: dict[int, Candidate] = field(default_factory=dict)
    asked: set[tuple[int, Split]] = field(default_factory=set)
    told: dict[tuple[int, Split], Told] = field(default_factory=dict)
    repeats: list[Repeat] = field(default_factory=list)
    examples: dict[tuple[int, Split], dict[str, NDArray[np.float32]]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    commands: dict[int, Command] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    artifacts: list[Artifact] = field(default_factory=list)
    times: dict[tuple[int, Split], tuple[float, float | None]] = field(default_factory=dict)
    offers: StudyOffers = field(default_factory=StudyOffers)


@final
class MemoryStore:
    """StudyStore; see `store/base.py` for the contract. Safe to use from several threads of one process."""

    def __init__(self, url: str = "memory://", *, create: bool = True) -> None:  # noqa: ARG002 (as every store)
        self._studies: dict[str, _Study] = {}
        self._commands = 0
        # Digest of a score -> where it stands: when it was told, the study, the evaluation, the objective.
        self._digests: dict[str, list[tuple[float, _Study, tuple[int, Split], str]]] = {}
        self._lock = threading.RLock()
        self._offers = MemoryOffers(lambda name: self._find(name).offers, self._lock)

    @property
    def offers(self) -> MemoryOffers:
        return self._offers

    def create(
        self, name: str, spec: str, digest: str, now: float | None = None, facts: Mapping[str, object] | None = None
    ) -> StudyRecord:
        texts = facts_json(facts or {})
        with self._lock:
            if name in self._studies:
                raise refusals.name_taken(name)
            now = _moment(now)
            record = StudyRecord(name, spec, digest, Status.NEW, float(now), float(now))
            self._studies[name] = _Study(record, facts=texts)
            return record

    def study(self, name: str) -> StudyRecord:
        with self._lock:
            return self._find(name).record

    def studies(self) -> Sequence[StudyRecord]:
        with self._lock:
            # Reversed first, so that of two studies of one moment the later one comes first.
            records = [study.record for study in reversed(self._studies.values())]
            return sorted(records, key=lambda record: -record.created)

    def acquire(self, name: str, owner: str, seconds: float, now: float | None = None, replacing: str = "") -> Lease:
        with self._lock:
            study, now = self._find(name), _moment(now)
            record = study.record
            if record.owner not in ("", owner, replacing) and record.until > now:
                raise refusals.held_by_other(name, record.owner, record.until, now)
            study.token += 1
            study.renewed = now
            study.record = replace(record, owner=owner, until=now + seconds, updated=now)
            return Lease(name, owner, study.token, now + seconds)

    def renew(self, lease: Lease, seconds: float, now: float | None = None) -> Lease:
        with self._lock:
            study, now = self._held(lease), _moment(now)
            spent = study.record.seconds + max(0.0, now - study.renewed)
            study.renewed = now
            study.record = replace(study.record, seconds=spent, until=now + seconds, updated=now)
            return replace(lease, until=now + seconds)

    def release(self, lease: Lease, now: float | None = None) -> None:
        with self._lock:
            study = self._studies.get(lease.study)
            if study is None or not _holds(study, lease):
                return
            now = _moment(now)
            spent = study.record.seconds + max(0.0, now - study.renewed)
            study.record = replace(study.record, seconds=spent, owner="", until=0.0, updated=now)

    def set_status(self, lease: Lease, status: Status, message: str, now: float | None = None) -> None:
        with self._lock:
            study = self._held(lease)
            study.record = replace(study.record, status=status, message=message, updated=_moment(now))

    def set_facts(self, lease: Lease, facts: Mapping[str, object]) -> None:
        texts = facts_json(facts)
        with self._lock:
            self._held(lease).facts.update(texts)

    def facts(self, name: str) -> Mapping[str, object]:
        with self._lock:
            return {key: json.loads(text) for key, text in sorted(self._find(name).facts.items())}

    def ask(self, lease: Lease, candidate: Candidate, split: Split, now: float | None = None) -> Asked:
        with self._lock:
            study = self._held(lease)
            stored = study.candidates.get(candidate.number, candidate)
            if not _same_point(stored, candidate):
                raise refusals.other_point(lease.study, candidate.number)
            if (candidate.number, split) in study.asked:
                raise refusals.asked_before(lease.study, candidate.number, split)
            study.candidates[candidate.number] = stored
            study.asked.add((candidate.number, split))
            asked = Asked(len(study.log) + 1, stored, split)
            study.log.append(asked)
            study.times[candidate.number, split] = (_moment(now), None)
            study.record = replace(study.record, updated=_moment(now))
            return asked

    def tell(
        self,
        lease: Lease,
        number: int,
        split: Split,
        outcome: Outcome,
        now: float | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> Told | None:
        with self._lock:
            study = self._held(lease)
            key = (number, split)
            if key not in study.asked:
                raise refusals.never_asked(lease.study, number, split)
            if key in study.told:
                if not same_scores(study.told[key].outcome, outcome):
                    study.repeats.append(Repeat(number, split, repeated(outcome), _moment(now)))
                return None
            now = _moment(now)
            told = Told(len(study.log) + 1, study.candidates[number], split, without_examples(outcome))
            if isinstance(outcome, Scored):
                if outcome.examples:
                    study.examples[key] = {name: _frozen(values) for name, values in sorted(outcome.examples.items())}
                for objective in set(digests or {}) & set(outcome.scores):
                    self._digests.setdefault((digests or {})[objective], []).append((now, study, key, objective))
            study.told[key] = told
            study.times[key] = (study.times[key][0], _moment(now))
            study.log.append(told)
            study.record = replace(study.record, updated=now)
            return told

    def repeats(self, name: str) -> Sequence[Repeat]:
        with self._lock:
            return list(self._find(name).repeats)

    def cached(self, digests: Mapping[str, str]) -> Scored | None:
        with self._lock:
            scores: dict[str, Score] = {}
            metrics: dict[str, Mapping[str, Score]] = {}
            gradients: dict[str, Vector] = {}
            examples: dict[str, NDArray[np.float32]] = {}
            for name, digest in digests.items():
                if not self._digests.get(digest):
                    return None
                _, study, key, objective = min(self._digests[digest], key=lambda place: place[0])
                outcome = study.told[key].outcome
                assert isinstance(outcome, Scored)
                scores[name] = outcome.scores[objective]
                metrics |= {name: outcome.metrics[objective]} if objective in outcome.metrics else {}
                gradients |= {name: outcome.gradients[objective]} if objective in outcome.gradients else {}
                kept = study.examples.get(key, {})
                examples |= {name: kept[objective]} if objective in kept else {}
            return Scored(scores, metrics, examples, gradients, worker=CACHE) if scores else None

    def remove(self, name: str) -> None:
        with self._lock:
            study, now = self._find(name), time.time()
            if study.record.owner and study.record.until > now:
                raise refusals.held_while_removed(name, study.record.owner, study.record.until, now)
            del self._studies[name]
            for places in self._digests.values():
                places[:] = [place for place in places if place[1] is not study]

    def compact(self) -> tuple[int, int]:
        return 0, 0

    def events(self, name: str, after: int = 0, limit: int | None = None) -> Sequence[Event]:
        first = max(0, after)
        with self._lock:
            return self._find(name).log[first : None if limit is None else first + limit]

    def examples(self, name: str, number: int, split: Split) -> Mapping[str, NDArray[np.float32]]:
        with self._lock:
            return dict(self._find(name).examples.get((number, split), {}))

    def command(self, name: str, action: str, now: float | None = None) -> Command:
        check_action(action)
        with self._lock:
            study = self._find(name)
            self._commands += 1
            command = Command(self._commands, action, _moment(now))
            study.commands[command.id] = command
            return command

    def open_commands(self, name: str) -> Sequence[Command]:
        with self._lock:
            study = self._find(name)
            return [command for command in study.commands.values() if command.id not in study.done]

    def finish_command(self, lease: Lease, command: Command, now: float | None = None) -> None:
        with self._lock:
            study = self._held(lease)
            if command.id not in study.commands:
                raise refusals.unknown_command(lease.study, command)
            study.done.add(command.id)
            study.record = replace(study.record, updated=_moment(now))

    def add_artifact(self, name: str, artifact: Artifact) -> None:
        with self._lock:
            self._find(name).artifacts.append(artifact)

    def artifacts(self, name: str) -> Sequence[Artifact]:
        with self._lock:
            return list(self._find(name).artifacts)

    def remove_artifact(self, name: str, artifact: Artifact) -> None:
        with self._lock:
            study = self._find(name)
            study.artifacts = [one for one in study.artifacts if one != artifact]

    def times(self, name: str) -> Mapping[tuple[int, Split], tuple[float, float | None]]:
        with self._lock:
            return dict(self._find(name).times)

    def clock(self) -> float:
        return time.time()

    def info(self) -> Mapping[str, object]:
        return {"kind": "memory", "schema": 0, "bytes": 0}

    def close(self) -> None:
        """Nothing to close; what was kept stays readable."""

    def _find(self, name: str) -> _Study:
        if name not in self._studies:
            raise refusals.unknown_study(name, self._studies)
        return self._studies[name]

    def _held(self, lease: Lease) -> _Study:
        study = self._find(lease.study)
        if not _holds(study, lease):
            raise refusals.lease_lost(lease, study.record.owner)
        return study


def _moment(now: float | None) -> float:
    return time.time() if now is None else float(now)


def _holds(study: _Study, lease: Lease) -> bool:
    return study.record.owner != "" and (study.record.owner, study.token) == (lease.owner, lease.token)


def _same_point(one: Candidate, other: Candidate) -> bool:
    if one.point is None or other.point is None:
        return one.point is other.point
    return np.array_equal(one.point, other.point)


def _frozen(values: NDArray[np.float32]) -> NDArray[np.float32]:
    array = np.array(values, dtype=np.float32)
    array.setflags(write=False)
    return array
