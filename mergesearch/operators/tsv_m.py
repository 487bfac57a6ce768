"""TSV-M: the leading singular directions of all experts, made orthogonal to each other. Strong for conflicting experts.

Source: Gargiulo et al., arXiv:2412.00081. merged = α Σ w_i U⊥,i diag(S_i) V⊥,iᵀ, where U⊥ and V⊥ are the polar factors
of the experts' first k = int(rank_share · min(out, in) / K) singular vectors, side by side. The directions do not
depend on the w_i, so a candidate is a weighted sum of K components; another rank_share costs one polar step per matrix
from the remembered singular vectors. Tensors that are no matrices get the mean change, Σ w_i τ_i / K.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, final

from mergesearch.operators.algebra.components import Components, Plan
from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes
from mergesearch.operators.algebra.singular import Directions, stored_entries
from mergesearch.operators.algebra.spectral import rank_of
from mergesearch.operators.base import Checked, Layout, MergeOperator, Prepared, Source, Tensors
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_LARGEST_SHARE = 2.0


class Options(PluginOptions):
    """Options of `tsv_m`."""

    exclude: tuple[str, ...] = NOT_MATRICES  # names that get the mean change though they are matrices
    keep_vectors: bool = True  # False: half the memory, but another rank_share costs the decompositions again


@final
class TsvM(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Task singular vectors",
        "arXiv:2412.00081",
        Checked.GOLDEN,
        (
            "Directions without a singular value (of an expert that left a matrix as it was, or changed it by a low "
            "rank) are left out of the polar step; the reference puts in whatever vectors its decomposition returns.",
            "A matrix shorter than the number of experts keeps one direction of each; the reference keeps none.",
            "Embeddings and heads are excluded by default; the reference excludes what it is told to.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 2.0, 1.0, searched=True, doc="w_i: how much of an expert's component is added"),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="α: a common factor on the merged change"),
        Knob("rank_share", 0.5, _LARGEST_SHARE, 1.0, Per.GROUP, doc="directions of an expert, in min(out, in) / K"),
    )
    CACHE = "P1"
    DIFFERENTIABLE = ("coefficient", "scale")

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        """Per matrix, in float32: the experts' singular vectors and their components."""
        entries = 0
        for form in matrix_shapes(shapes, self._options.exclude).values():
            entries += experts * form[0] * form[1]
            if self._options.keep_vectors:
                entries += stored_entries(form, experts, rank_of(form, experts, _LARGEST_SHARE))
        return 4 * entries

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        count = len(experts)
        names = matrix_names(base, layout.group_of, self._options.exclude)
        rank = {name: rank_of(base[name].shape, count, _LARGEST_SHARE) for name in names}
        directions = Directions(base, experts, names, rank.__getitem__, self._options.keep_vectors)
        return Components(
            Stream([base, *experts], list(layout.group_of)),
            layout,
            names,
            lambda name, key: directions.components(name, rank_of(base[name].shape, count, key[0])),
            _plan,
            weights,
            per_expert=True,
        )


def weights(settings: Settings, row: int) -> tuple[float, ...]:
    """α w_i of a group: of an expert's component, and of its change where the mean is taken."""
    return tuple(float(w) for w in settings["coefficient"][row] * settings["scale"][row, 0])


def _plan(settings: Settings, row: int) -> Plan:
    return Plan((float(settings["rank_share"][row, 0]),), weights(settings, row))
