"""How much a candidate takes to store beside the base: an objective for operators that compress, to trade for scores.

A merge that can rebuild every expert (EMR, consensus masks, BitDelta, T-Switch, RMM) counts what it keeps for that,
masks by the entropy of their share of ones (`operators/passes/packing.py`); any other counts as one model of its own.
There is nothing to sample: one number, without a standard error.
"""

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from mergesearch.plugins import PluginOptions
from mergesearch.scorers.base import Built, Metric, ScorerContext
from mergesearch.types import Direction


class Options(PluginOptions):
    """`stored_bytes` has no options and reads no data."""


@final
class StoredBytes:
    """BuildScorer; see `scorers/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    METRICS: ClassVar[Mapping[str, Metric]] = {"megabytes": Metric(Direction.MIN, low=0.0)}

    def __init__(self, options: PluginOptions, context: ScorerContext) -> None:
        del context
        assert isinstance(options, Options)

    def check(self) -> None:
        """Nothing can be missing."""

    def score_build(self, built: Built) -> Mapping[str, NDArray[np.float32]]:
        """See `BuildScorer.score_build`."""
        return {"megabytes": np.array([built.stored_bytes / 1e6], dtype=np.float32)}
