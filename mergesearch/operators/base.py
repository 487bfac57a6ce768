"""What a merge operator is. To add one: one file, one line in `OPERATORS`; the contract suite finds it by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import torch

from mergesearch.checkpoints.adapter import Adapter
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


class Checked(StrEnum):
    """How it is known that an operator does what its source says."""

    GOLDEN = "golden"  # outputs of a reference implementation are met
    FORMULA = "formula"  # the properties that follow from the published formula are tested
    ABSTRACT = "after the abstract"  # the details are ours: only an abstract or summaries were at hand


@dataclass(frozen=True)
class Source:
    """Where an operator comes from: `where` is an arXiv id, or who published it otherwise. `differs`: one sentence for
    each thing that a reference implementation does and this one does not, with the reason."""

    title: str
    where: str
    checked: Checked
    differs: tuple[str, ...] = ()


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


@runtime_checkable
class Compressed(Prepared, Protocol):
    """A merge that also keeps a small code of each expert beside the shared weights, to serve every task its own."""

    def rebuild(self, settings: Settings, expert: int, names: Sequence[str], into: Tensors) -> None:
        """As `apply`, but write the model that the code of one expert gives back."""
        ...

    def stored_bytes(self, settings: Settings) -> int:
        """Bytes of all that must be kept beside the base to rebuild every expert."""
        ...


@runtime_checkable
class Differentiable(Prepared, Protocol):
    """A merge through which gradients pass back to the settings: one backward pass of the model serves all axes."""

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """The gradient with respect to the settings, from that with respect to the merged weights.

        `slopes[name]` is ∂L/∂W of a merged tensor, in its shape; a tensor that is not named has none. Returns float64
        (G, K) tables for those knobs whose gradient is exact; a knob it does not name is not differentiable (a
        density). A Per.GROUP knob's gradient stands in column 0, a Per.STUDY knob's at [0, 0]. For a linear operator
        ∂L/∂λ_kg is the sum over tensors in g of <∂L/∂W, τ_k>, accumulated in float64, with no tensor of model size
        allocated.
        """
        ...


class OperatorTraits(Protocol):
    """What is known of an operator before it has seen a model. Subclass it (through `MergeOperator` or
    `AdapterOperator`) and give `Options`, `SOURCE`, `KNOBS` and `CACHE`; the rest have the usual values."""

    Options: ClassVar[type[PluginOptions]]
    SOURCE: ClassVar[Source]
    KNOBS: tuple[Knob, ...]  # one of them is `scale`: base + scale · (merged - base)
    CACHE: str  # P0 to P4: what a candidate costs once prepared (P0 a weighted sum, P4 everything anew)
    WHOLE_MODEL: bool = False  # True: settings of one group change tensors of others (a global threshold, say)
    MIN_EXPERTS: int = 1
    MAX_EXPERTS: int | None = None  # None: any number
    COMPRESSES: bool = False  # True: what `prepare` returns is `Compressed`
    DIFFERENTIABLE: tuple[str, ...] = ()  # knobs with exact gradients; where any, `prepare` gives a `Differentiable`

    def __init__(self, options: PluginOptions) -> None: ...

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        """Bytes that the prepared models remember beside base and experts; `shapes` are those of the merged tensors."""
        del shapes, experts
        return 0


@runtime_checkable
class MergeOperator(OperatorTraits, Protocol):
    """A way to combine K experts with their base. Stateless: all state is in what `prepare` returns."""

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        """Do once all that does not depend on the settings.

        `base` and each of `experts` (in the order of `layout.experts`) hold the same names, shapes and dtypes, on one
        device; they are kept by reference and never changed. Only names in `layout.group_of` are merged.
        """
        ...


@runtime_checkable
class AdapterOperator(OperatorTraits, Protocol):
    """A way to combine K LoRA adapters of one base, from their factors. Stateless, as a `MergeOperator`."""

    def prepare_adapters(self, base: Tensors, experts: Sequence[Adapter], layout: Layout) -> Prepared:
        """As `MergeOperator.prepare`; an adapter that does not name a tensor leaves it as it is."""
        ...


AnyOperator: TypeAlias = MergeOperator | AdapterOperator
