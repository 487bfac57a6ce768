"""What a merge operator is. To add one: one file, one line in `OPERATORS`; the contract suite finds it by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import torch

from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Settings

Tensors: TypeAlias = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """How a model's tensors fall into layer groups. `group_of[name]` is a row of a knob's (G, K) table; a tensor it
    does not name is not merged."""

    experts: tuple[str, ...]
    groups: tuple[str, ...]
    group_of: Mapping[str, int]


class Prepared(Protocol):
    """What an operator knows of one set of models, ready to build any number of candidates from it."""

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """Write the tensors `names` of the candidate into `into`, in place.

        `settings[knob]` has shape (G, K); every knob the operator declares is there. `into[name]` is a live parameter
        with the base's shape and dtype. Always built from base and experts, never from what `into` held, so the same
        settings give the same bits whatever came before. Accumulates in float32 and rounds once. Allocates no memory
        of model size. One thread at a time.

        Raises:
            EvaluationError: these settings cannot be built (weights that sum to zero under `normalize`, say).
        """
        ...


class MergeOperator(Protocol):
    """A way to combine K experts with their base. Stateless: all state is in what `prepare` returns."""

    Options: ClassVar[type[PluginOptions]]
    KNOBS: ClassVar[tuple[Knob, ...]]
    CACHE: ClassVar[str]  # P0 to P4: what a candidate costs once prepared (P0 a weighted sum, P4 everything anew)
    WHOLE_MODEL: ClassVar[bool]  # True: settings of one group change tensors of others (a global threshold, say)
    MAX_EXPERTS: ClassVar[int | None]  # None: any number

    def __init__(self, options: PluginOptions) -> None: ...

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        """Do once all that does not depend on the settings.

        `base` and each of `experts` (in the order of `layout.experts`) hold the same names, shapes and dtypes, on one
        device; they are kept by reference and never changed. Only names in `layout.group_of` are merged.
        """
        ...
