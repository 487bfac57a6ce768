"""Tensors that a matrix method leaves at the base, beside those that it merges."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import final

import numpy as np

from mergesearch.operators.base import Differentiable, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.space import Settings


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that match a pattern."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


@final
class AtBase:
    """Prepared; see `operators/base.py`. `names` get the values of the first of the `models` of `stream`, the rest
    is left to `merged`."""

    def __init__(self, stream: Stream, models: int, names: Iterable[str], merged: Differentiable) -> None:
        self._stream, self._names, self._merged = stream, frozenset(names), merged
        self._models = models

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        kept = [name for name in names if name in self._names]
        self._stream.weighted_sum(kept, np.zeros((len(kept), self._models)), into, centred=True)
        self._merged.apply(settings, [name for name in names if name not in self._names], into)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: tensors at the base do not move."""
        moved = {name: slope for name, slope in slopes.items() if name not in self._names}
        return self._merged.pull_back(settings, moved)
