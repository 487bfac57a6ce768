"""What a scorer is. To add one: one file, one line in `SCORERS`; the contract suite finds it by itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.plugins import PluginOptions
from mergesearch.types import Direction, Split


@dataclass(frozen=True)
class Metric:
    """Which way a metric improves and its bounds, None where it has none."""

    direction: Direction
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class DifferentiableLoss:
    """What a differentiable loss needs beside the inputs: labels, or a teacher (the objective's own expert)."""

    labels: bool = False
    teacher: bool = False


@dataclass(frozen=True)
class ScorerContext:
    """What a study tells a scorer beside its options.

    `model` is the folder of the checkpoint whose configuration, label map, processor or tokenizer is used; `root` is
    what relative data paths are relative to; `seed` fixes the order of the examples.
    """

    model: Path
    root: Path
    seed: int


@dataclass(frozen=True)
class Built:
    """What is known of a candidate that stands in the live model: bytes to store beside the base."""

    stored_bytes: int


class Scorer(Protocol):
    """Per-example values of a merged model on a fixed, ordered list of examples.

    The examples of a split are a seeded permutation fixed by the study, so that two candidates are compared on the
    same examples and the first n are a nested subset. The three splits share no example.
    """

    Options: ClassVar[type[PluginOptions]]
    METRICS: ClassVar[Mapping[str, Metric]]  # the first is the default

    def __init__(self, options: PluginOptions, context: ScorerContext) -> None:
        """Cheap: opens no data."""
        ...

    def check(self) -> None:
        """Look at the data's columns, labels and sizes without a model.

        Raises:
            DataError: a missing file or column, an unseen label, a split that is too small.
        """
        ...

    def count(self, split: Split) -> int:
        """Examples of a split."""
        ...

    def score(
        self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64] | None = None
    ) -> Mapping[str, NDArray[np.float32]]:
        """Every metric's per-example values, float32 (n,), of `rows` (positions in the split's fixed order), in their
        order; None: of all.

        `model` is in eval mode on its device, with the right head in place; it is not changed. Data are read once and
        kept. Values may be NaN or infinite: the worker records the candidate as failed then.
        """
        ...


@runtime_checkable
class BuildScorer(Protocol):
    """A value of how a candidate is built or stored, not of what it answers. It reads no data."""

    Options: ClassVar[type[PluginOptions]]
    METRICS: ClassVar[Mapping[str, Metric]]  # the first is the default

    def __init__(self, options: PluginOptions, context: ScorerContext) -> None: ...

    def check(self) -> None:
        """As `Scorer.check`."""
        ...

    def score_build(self, built: Built) -> Mapping[str, NDArray[np.float32]]:
        """Every metric's one value, float32 (1,), the same on every split."""
        ...


@runtime_checkable
class DifferentiableScorer(Scorer, Protocol):
    """A scorer that also offers losses which can be differentiated through the model."""

    LOSSES: ClassVar[Mapping[str, DifferentiableLoss]]  # 'loss' (labelled) first where there is one

    def teach(self, model: torch.nn.Module, split: Split, loss: str) -> None:
        """Keep what an expert answers on a split: the losses that need a teacher are measured against it.

        Called once for each (split, loss), with the expert's own model live, before `losses` asks for that loss.
        """
        ...

    def losses(
        self, model: torch.nn.Module, split: Split, rows: NDArray[np.int64], loss: str
    ) -> Iterator[tuple[torch.Tensor, Mapping[str, NDArray[np.float32]]]]:
        """Batch by batch: the differentiable loss per example, (b,) with its graph, and every metric, float32 (b,).

        The batches cover `rows` (positions in the split's fixed order) in order. The caller runs backward on each
        before it takes the next, so that one graph lives at a time.
        """
        ...


AnyScorer: TypeAlias = Scorer | BuildScorer
