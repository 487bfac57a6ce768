"""Candidates and outcomes of a log as rows of numbers: a few dozen bytes each beside the point, however many there are.

Both look like the dictionaries they stand for; the objects are made when they are looked up.
"""

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Generic, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from mergesearch.types import Asked, Candidate, Event, Failed, Outcome, Request, Score, Scored, Split, Timing, Vector

T = TypeVar("T")

_ROWS = 256
_SPLITS = tuple(Split)
_PLACE = {split: place for place, split in enumerate(_SPLITS)}
_TIMES = len(astuple(Timing()))


class _Codes(Generic[T]):
    """A small number for each value, in the order they were first seen."""

    def __init__(self) -> None:
        self._codes: dict[T, int] = {}
        self.values: list[T] = []

    def of(self, value: T) -> int:
        code = self._codes.setdefault(value, len(self.values))
        if code == len(self.values):
            self.values.append(value)
        return code


@dataclass(frozen=True, eq=False)
class Columns:
    """Scored evaluations of one split as columns, far quicker than looking each up: candidates' `numbers` (n,),
    `scores` in their natural direction and standard `errors` (n, M), NaN where an objective has none, `timing` (n, 5)
    in seconds in the order of `Timing`'s fields."""

    numbers: NDArray[np.int64]
    scores: NDArray[np.float64]
    errors: NDArray[np.float64]
    timing: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Listed:
    """Candidates as columns, in the order they were added: `numbers` and `cost` (n,), `origin` (n,) as places in
    `origins`."""

    numbers: NDArray[np.int64]
    cost: NDArray[np.float64]
    origin: NDArray[np.int64]
    origins: tuple[str, ...]


@final
class Candidates(Mapping[int, Candidate]):
    """Candidate by number, in the order they were added.

    With `events`, which gives the log again, the points of what was `told` are forgotten: they are read from it once,
    when the first of them is asked for, and kept from then on.
    """

    def __init__(self, events: Callable[[], Iterable[Event]] | None = None) -> None:
        self._events = events
        self._numbers: array[int] = array("q")
        self._rows: dict[int, int] | None = None  # None: number and row are the same
        self._origins: _Codes[str] = _Codes()
        self._requests: _Codes[Request] = _Codes()
        self._origin: array[int] = array("I")
        self._request: array[int] = array("I")
        self._cost: array[float] = array("d")
        self._has_point = bytearray()
        self._chunks: list[NDArray[np.float64]] = []
        self._open: dict[int, Vector] = {}  # points by row, while those of the others are forgotten

    def add(self, candidate: Candidate) -> None:
        """The next candidate; nothing if it is there."""
        if candidate.number in self:
            return
        row = len(self._numbers)
        if self._rows is None and candidate.number != row:
            self._rows = {number: i for i, number in enumerate(self._numbers)}
        if self._rows is not None:
            self._rows[candidate.number] = row
        self._numbers.append(candidate.number)
        self._origin.append(self._origins.of(candidate.origin))
        self._request.append(self._requests.of(candidate.request))
        self._cost.append(candidate.cost)
        self._has_point.append(candidate.point is not None)
        if candidate.point is None:
            return
        if self._events is None:
            self._keep(row, candidate.point)
        else:
            self._open[row] = candidate.point

    def told(self, number: int) -> None:
        """The search's evaluation of a candidate has ended."""
        if self._events is not None:
            self._open.pop(self._row(number), None)

    def __getitem__(self, number: int) -> Candidate:
        row = self._row(number)
        origin, request = self._origins.values[self._origin[row]], self._requests.values[self._request[row]]
        return Candidate(number, self._point(row), origin, request, self._cost[row])

    def __contains__(self, number: object) -> bool:
        if self._rows is not None:
            return number in self._rows
        return isinstance(number, int) and 0 <= number < len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def origin(self, number: int) -> str:
        """Who proposed it. Raises KeyError."""
        return self._origins.values[self._origin[self._row(number)]]

    def columns(self) -> Listed:
        """All of them at once, without their points."""
        origin = np.array(self._origin, dtype=np.int64)
        return Listed(np.array(self._numbers), np.array(self._cost), origin, tuple(self._origins.values))

    def _row(self, number: int) -> int:
        if number not in self:
            raise KeyError(number)
        return number if self._rows is None else self._rows[number]

    def _point(self, row: int) -> Vector | None:
        if not self._has_point[row]:
            return None
        if row in self._open:
            return self._open[row]
        if self._events is not None:
            events, self._events = self._events, None
            for event in events():
                if isinstance(event, Asked) and event.candidate.point is not None and event.candidate.number in self:
                    self._keep(self._row(event.candidate.number), event.candidate.point)
            self._open.clear()
        point: Vector = self._chunks[row // _ROWS][row % _ROWS]
        return point

    def _keep(self, row: int, point: Vector) -> None:
        while len(self._chunks) <= row // _ROWS:
            self._chunks.append(np.empty((_ROWS, len(point))))
        self._chunks[row // _ROWS][row % _ROWS] = point


@final
class Keys(Collection[tuple[int, Split]]):
    """Pairs of a candidate's number and a split, each once, in the order they were added."""

    def __init__(self) -> None:
        self._keys: array[int] = array("q")
        self._search = bytearray()  # by number: whether its search split was added
        self._others: set[tuple[int, Split]] = set()

    def add(self, number: int, split: Split) -> None:
        """The next pair."""
        self._keys.append(_key(number, split))
        if split is not Split.SEARCH or number < 0:
            self._others.add((number, split))
            return
        if number >= len(self._search):
            self._search.extend(bytes(number + 1 - len(self._search)))
        self._search[number] = 1

    def numbers(self, split: Split) -> NDArray[np.int64]:
        """The numbers that were added on a split."""
        return _numbers_on(np.array(self._keys), split)

    def __contains__(self, pair: object) -> bool:
        if not (isinstance(pair, tuple) and len(pair) == 2):
            return False
        number, split = pair
        if split is Split.SEARCH and isinstance(number, int) and number >= 0:
            return number < len(self._search) and bool(self._search[number])
        return pair in self._others

    def __iter__(self) -> Iterator[tuple[int, Split]]:
        return map(_pair, self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _key(number: int, split: Split) -> int:
    return number * len(_SPLITS) + _PLACE[split]


def _numbers_on(keys: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    return np.asarray(keys[keys % len(_SPLITS) == _PLACE[split]] // len(_SPLITS))


def _pair(key: int) -> tuple[int, Split]:
    return key // len(_SPLITS), _SPLITS[key % len(_SPLITS)]


@final
class Outcomes(Mapping[tuple[int, Split], Outcome]):
    """Outcome by candidate number and split, in the order they were added: scores, metrics, times; no gradients."""

    def __init__(self) -> None:
        self._keys: array[int] = array("q")
        self._search: array[int] = array("q")  # by number: which outcome is that of the search split, or -1
        self._others: dict[tuple[int, Split], int] = {}
        self._shapes: _Codes[tuple[tuple[str, str], ...]] = _Codes()
        self._workers: _Codes[str] = _Codes()
        self._shape: array[int] = array("I")
        self._worker: array[int] = array("I")
        self._offset: array[int] = array("q")
        self._values: array[float] = array("d")
        self._failed: dict[int, Failed] = {}

    def add(self, number: int, split: Split, outcome: Outcome) -> None:
        """The next outcome."""
        place = len(self._keys)
        self._keys.append(_key(number, split))
        if split is Split.SEARCH and number >= 0:
            if number >= len(self._search):
                self._search.extend([-1] * (number + 1 - len(self._search)))
            self._search[number] = place
        else:
            self._others[number, split] = place
        self._offset.append(len(self._values))
        self._worker.append(self._workers.of(outcome.worker))
        if isinstance(outcome, Failed):
            self._failed[place] = outcome
            self._shape.append(0)
            return
        named = {("", objective): score for objective, score in outcome.scores.items()}
        named |= {(objective, m): score for objective, found in outcome.metrics.items() for m, score in found.items()}
        self._shape.append(self._shapes.of(tuple(named)))
        for score in named.values():
            self._values.extend((score.value, score.stderr, score.n))
        timing = outcome.timing
        self._values.extend((timing.queue, timing.build, timing.score, timing.record, timing.gpu))

    def __getitem__(self, key: tuple[int, Split]) -> Outcome:
        place = self._find(key)
        if place < 0:
            raise KeyError(key)
        if place in self._failed:
            return self._failed[place]
        at, values = self._offset[place], self._values
        scores: dict[str, Score] = {}
        metrics: dict[str, dict[str, Score]] = {}
        for objective, metric in self._shapes.values[self._shape[place]]:
            score = Score(values[at], values[at + 1], int(values[at + 2]))
            if objective:
                metrics.setdefault(objective, {})[metric] = score
            else:
                scores[metric] = score
            at += 3
        timing = Timing(*values[at : at + _TIMES])
        return Scored(scores, metrics, timing=timing, worker=self._workers.values[self._worker[place]])

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and len(key) == 2 and self._find(key) >= 0

    def __iter__(self) -> Iterator[tuple[int, Split]]:
        return map(_pair, self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def failures(self) -> Iterator[tuple[int, Split, Failed]]:
        """Every failure with its candidate's number and split, in the order they were told."""
        return ((*_pair(self._keys[place]), failed) for place, failed in self._failed.items())

    def failed(self, split: Split) -> NDArray[np.int64]:
        """Numbers of the candidates that failed on a split, in the order they were told."""
        return _numbers_on(np.array(self._keys)[list(self._failed)], split)

    def columns(self, split: Split, objectives: Sequence[str]) -> Columns:
        """All scores on a split at once, in the order they were added; failures are left out."""
        keys, offsets = np.array(self._keys), np.array(self._offset)
        shapes, values = np.array(self._shape), np.array(self._values)
        kept = keys % len(_SPLITS) == _PLACE[split]
        kept[list(self._failed)] = False
        places = np.flatnonzero(kept)
        shapes, offsets = shapes[places], offsets[places]
        found = np.full((len(places), len(objectives), 3), np.nan)
        timing = np.zeros((len(places), _TIMES))
        for code in np.unique(shapes):
            rows, shape = np.flatnonzero(shapes == code), self._shapes.values[code]
            for place, objective in enumerate(objectives):
                if ("", objective) in shape:
                    at = offsets[rows] + 3 * shape.index(("", objective))
                    found[rows, place] = values[at[:, None] + np.arange(3)]
            timing[rows] = values[(offsets[rows] + 3 * len(shape))[:, None] + np.arange(_TIMES)]
        return Columns(keys[places] // len(_SPLITS), found[..., 0], found[..., 1], timing)

    def _find(self, key: tuple[int, Split]) -> int:
        number, split = key
        if split is Split.SEARCH and number >= 0:
            return self._search[number] if number < len(self._search) else -1
        return self._others.get((number, split), -1)
