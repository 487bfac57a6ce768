"""Which entries of each tensor are its largest, exactly, for ranks that change with every candidate.

An *edge* (bits, last) parts the `rank` largest entries from the rest: those of a greater magnitude, and of equal ones
those up to the position `last`. (mergekit leaves the choice among equals to an unstable sort.) Nothing of a tensor's
size is kept: large CPU tensors have a table of how many entries reach each of about N / 128 magnitudes, made by sorting
once, in parts. An edge then lies between two of them, and one pass finds the few entries there. Elsewhere an edge
takes a few passes of plain torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.operators.passes.chunked import chunks, magnitude_bits, spread_bits
from mergesearch.operators.passes.largest import BINS, bin_of
from mergesearch.operators.passes.stream import Stream, offsets

SPREAD = -1
"""In place of an expert: entries are ranked by the variance of the experts' changes."""
OPEN = 0x7FFFFFFF
"""Above the bits of every magnitude."""
BYTES_PER_ENTRY = 12 / 128
"""What the tables hold of each entry and column, at most."""
_GAP, _VALUES = 128, 1 << 16  # entries between two values of a table, and how many values it has at most
_SORTED = 1 << 21  # entries sorted at a time
_SAMPLES = 1 << 11  # runs of 512 entries from which the values are chosen, where not all are sorted at a time

Edge: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Table:
    """Of one tensor and column: `at_least[i]` entries have bits of at least `values[i]` (ascending int32)."""

    values: NDArray[np.int32]
    at_least: NDArray[np.int64]

    def around(self, rank: int) -> tuple[int, int, int, int]:
        """(first bits, span, rank within, entries within) of a span in which the rank-th largest (rank >= 1) lies."""
        i = len(self.values) - int(np.searchsorted(self.at_least[::-1], rank, "left")) - 1
        inner = i + 1 < len(self.values)
        first, below = int(self.values[i]), int(self.at_least[i])
        upper, above = (int(self.values[i + 1]), int(self.at_least[i + 1])) if inner else (OPEN, 0)
        return first, upper - first, rank - above, below - above


@final
class Trim:
    """Edges of the tensors of a stream. `columns`: what each column ranks by, an expert's change or `SPREAD`."""

    def __init__(self, stream: Stream, columns: Sequence[int]) -> None:
        self._stream, self._columns = stream, tuple(columns)
        self._tables: dict[tuple[str, int], Table] = {}  # by tensor and expert
        self._edges: dict[tuple[str, int], tuple[int, Edge]] = {}  # the last rank asked for, and its edge
        self._positive: dict[tuple[str, int], int] = {}

    def edges(self, names: Sequence[str], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """(len(names), 2, columns): bits and last of the edge below the `ranks` (len(names), columns) largest entries.

        A rank beyond either end is taken as that end: nothing is above the edge, or everything is.
        """
        asked: dict[str, list[int]] = {}
        for name, row in zip(names, ranks.tolist(), strict=True):
            for column, rank in enumerate(row):
                if self._edges.get((name, column), (None, None))[0] == rank:
                    continue
                if rank <= 0 or rank >= self._stream.flat(0, name).numel():
                    self._edges[name, column] = rank, (OPEN, -1) if rank <= 0 else (-1, -1)
                else:
                    self._edges[name, column] = rank, (OPEN, -1)  # until it is found
                    asked.setdefault(name, []).append(column)
        self._find(asked)
        columns = range(len(self._columns))
        table = [[self._edges[name, column][1] for column in columns] for name in names]
        return np.array(table, dtype=np.int64).reshape(len(names), len(columns), 2).transpose(0, 2, 1)

    def positive(self, names: Sequence[str], column: int) -> NDArray[np.int64]:
        """(len(names),): how many entries of a column are not 0."""
        missing = [name for name in names if (name, column) not in self._positive]

        def torch_pass(i: int) -> None:
            bits = (self._bits(missing[i], column, part) for part in self._parts(missing[i]))
            self._positive[missing[i], column] = sum(int((b > 0).sum()) for b in bits)

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            self._sort({missing[i]: [column] for i in rows}, sample)
            for i in rows:
                table = self._tables[missing[i], self._columns[column]]
                self._positive[missing[i], column] = int(table.at_least[np.searchsorted(table.values, 1)])

        self._stream.run([self._stream.flat(0, name) for name in missing], torch_pass, compiled_pass)
        return np.array([self._positive[name, column] for name in names], dtype=np.int64)

    def _find(self, asked: Mapping[str, Sequence[int]]) -> None:
        """Replace the edges that are asked for, {name: columns}."""
        names = list(asked)

        def torch_pass(i: int) -> None:
            for column in asked[names[i]]:
                self._put(names[i], column, self._by_counting(names[i], column, self._edges[names[i], column][0]))

        def compiled_pass(rows: list[int], sample: NDArray[Any]) -> None:
            self._by_table({names[i]: asked[names[i]] for i in rows}, sample)

        self._stream.run([self._stream.flat(0, name) for name in names], torch_pass, compiled_pass)

    def _put(self, name: str, column: int, edge: Edge) -> None:
        self._edges[name, column] = self._edges[name, column][0], edge

    def _parts(self, name: str) -> Iterator[slice]:
        base = self._stream.flat(0, name)
        return chunks(base.numel(), base.device)

    def _bits(self, name: str, column: int, part: slice) -> torch.Tensor:
        """What a chunk's entries are ranked by, int32."""
        stream, expert = self._stream, self._columns[column]
        base = stream.flat(0, name)[part]
        if expert == SPREAD:
            return spread_bits(base, [stream.flat(m, name)[part] for m in range(1, stream.models)])
        return magnitude_bits(base, stream.flat(expert + 1, name)[part])

    def _by_counting(self, name: str, column: int, rank: int) -> Edge:
        """The edge from counts of the bits' upper halves, then of the lower halves in the bin that holds it."""
        upper, above = bin_of(self._halves(name, column, None), rank)
        lower, more = bin_of(self._halves(name, column, upper), rank - above)
        edge, equal = (upper << 16) | lower, rank - above - more
        for part in self._parts(name):
            same = self._bits(name, column, part) == edge
            found = int(same.sum())
            if found >= equal:
                return edge, part.start + int(same.nonzero()[equal - 1])
            equal -= found
        raise AssertionError("fewer entries than were counted")

    def _halves(self, name: str, column: int, upper: int | None) -> torch.Tensor:
        total = torch.zeros(BINS, dtype=torch.int64, device=self._stream.flat(0, name).device)
        for part in self._parts(name):
            bits = self._bits(name, column, part)
            half = bits >> 16 if upper is None else bits[bits >> 16 == upper] & (BINS - 1)
            total += torch.bincount(half, minlength=BINS)
        return total

    def _by_table(self, asked: Mapping[str, Sequence[int]], sample: NDArray[Any]) -> None:
        """All edges from their tables and one compiled pass over the tensors."""
        from mergesearch.operators.passes import compiled_trim

        self._sort(asked, sample)
        names, stream = list(asked), self._stream
        bases = [stream.flat(0, name) for name in names]
        address, offset = stream.addresses(names, bases), offsets(bases)
        rows, keys, sizes = [], [], []
        for t, name in enumerate(names):  # columns of one expert side by side, so that its changes are formed once
            for column in sorted(asked[name], key=lambda c: self._columns[c]):
                table = self._tables[name, self._columns[column]]
                first, span, rank, within = table.around(self._edges[name, column][0])
                if span == 1 and rank == within:
                    self._put(name, column, (first, bases[t].numel() - 1))
                    continue
                rows.append((t, self._columns[column], first, span, rank))
                keys.append((name, column))
                sizes.append(-(-bases[t].numel() // compiled_trim.PART))
        if not rows:
            return
        questions, place = np.array(rows, dtype=np.int64), np.cumsum([0, *sizes], dtype=np.int64)
        counts, found = np.zeros(int(place[-1]), np.uint16), np.zeros((len(rows), 2), np.int64)
        stream.split(offset, lambda a, b: compiled_trim.count(address, questions, place, counts, offset, a, b, sample))
        step = -(-len(rows) // 64)
        stream.each(
            lambda a: compiled_trim.answer(
                address, questions, place, counts, offset, a, min(a + step, len(rows)), sample, found
            ),
            range(0, len(rows), step),
        )
        for (name, column), (bits, last) in zip(keys, found.tolist(), strict=True):
            self._put(name, column, (bits, last))

    def _sort(self, asked: Mapping[str, Sequence[int]], sample: NDArray[Any]) -> None:
        """Make the tables that are missing."""
        from mergesearch.operators.passes import compiled_trim

        names, stream = list(asked), self._stream
        wanted = {(name, self._columns[column]): None for name in names for column in asked[name]}
        jobs = [(names.index(name), expert) for name, expert in wanted if (name, expert) not in self._tables]
        bases = [stream.flat(0, name) for name in names]
        address = stream.addresses(names, bases)

        def sort(job: tuple[int, int]) -> None:
            t, expert = job

            def bits(begin: int, out: NDArray[np.int32]) -> None:
                compiled_trim.magnitudes(address, t, expert, begin, sample, out)

            self._tables[names[t], expert] = _table(bits, bases[t].numel())

        stream.each(sort, jobs)


def _table(bits: Callable[[int, NDArray[np.int32]], None], size: int) -> Table:
    """The table of a tensor of `size` entries, where `bits(begin, out)` fills `out` with those from `begin` on."""
    wanted = min(_VALUES, -(-size // _GAP))
    memory = np.empty(min(size, _SORTED), np.int32)
    if size <= _SORTED:
        bits(0, memory)
        chosen = memory
    else:
        run = 512
        chosen = np.empty(_SAMPLES * run, np.int32)
        for i, begin in enumerate(np.linspace(0, size - run, _SAMPLES, dtype=np.int64)):
            bits(int(begin), chosen[i * run : (i + 1) * run])
    chosen.sort()
    # Bits of 0 and of 1, so that every rank has a value below it, and the entries that are 0 are apart.
    values = np.unique(np.concatenate([[0, 1], chosen[np.arange(wanted) * len(chosen) // wanted]])).astype(np.int32)
    at_least, above = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
    for begin in range(0, size, _SORTED):
        part = memory[: min(_SORTED, size - begin)]
        if size > _SORTED:
            bits(begin, part)
            part.sort()
        at_least += len(part) - np.searchsorted(part, values, "left")
        above += len(part) - np.searchsorted(part, values, "right")
    # A value that many entries share has a span of its own: none of these need then be looked at to be counted.
    shared = at_least - above > 1
    both = np.concatenate([values, values[shared] + 1])
    kept, first = np.unique(both, return_index=True)
    return Table(kept.astype(np.int32), np.concatenate([at_least, above[shared]])[first])
