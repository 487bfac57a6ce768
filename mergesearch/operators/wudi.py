"""WUDI: the change that disturbs every expert least on its own inputs, for which its task vector stands in.

Sources: Cheng et al., arXiv:2503.08099 (WUDI); the closed forms SWUDI and ASWUDI of the authors of OptMerge
(arXiv:2505.19892, github.com/WalkerWorldPeace/MLLMerging). `solver: closed` (the default) goes to the minimiser along
the largest `rank_ratio` of the eigenvectors, each as far as gradient flow would in `time`; `adaptive` all the way along
as many as `rank_rule` finds; `gradient` takes the paper's Adam steps, which move no entry by more than about
`steps` · `learning_rate`, whatever the size of the task vectors, and swing by about one step at a minimum. Tensors that
are no matrices get the mean change.

The eigenvectors depend on the ratios of the coefficients alone and are remembered, so `rank_ratio`, `time` and a common
factor of the coefficients cost one product per matrix. Other coefficients cost a new factorisation: keeping the Gram
matrix of every expert would save a fifth of that for twice the memory, so it is not done.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, final

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from mergesearch.errors import EvaluationError
from mergesearch.operators.algebra.adam import adam
from mergesearch.operators.algebra.at_base import AtBase, matching
from mergesearch.operators.algebra.components import Components, Key, Plan
from mergesearch.operators.algebra.matrices import NOT_MATRICES, matrix_names, matrix_shapes, task_matrices
from mergesearch.operators.algebra.wudi_closed import RankRule, Spectrum, gram, rank, solve, spectrum
from mergesearch.operators.base import Checked, Layout, MergeOperator, Source, Tensors
from mergesearch.operators.passes.chunked import wide
from mergesearch.operators.passes.stream import Stream
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Scale, Settings


class Options(PluginOptions):
    """Options of `wudi`."""

    solver: Literal["closed", "adaptive", "gradient"] = "closed"  # SWUDI, ASWUDI, the paper's Adam
    init: Literal["sum", "mean", "zero"] = "sum"  # the change that the solver starts from; 'sum' needs a scale below 1
    rank_rule: RankRule = "participation_sqrt"  # of 'adaptive'; 'gavish_donoho' is its authors' choice for LLMs
    share: float = Field(0.9, gt=0.0, le=1.0)  # of Σ e that rank_rule 'cumvar' keeps
    steps: PositiveInt = 300  # of 'gradient'
    learning_rate: PositiveFloat = 1e-5  # of 'gradient', absolute
    exclude: tuple[str, ...] = NOT_MATRICES  # names that get the mean change though they are matrices
    at_base: tuple[str, ...] = ()  # names that keep the base's values


@final
class Wudi(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "WUDI, SWUDI, ASWUDI",
        "arXiv:2503.08099",
        Checked.GOLDEN,
        (
            "A task vector of only zeros adds nothing; the paper's code divides by its norm.",
            "The closed forms average tensors whose task vectors have a squared norm below 1e-12 in the authors' code, "
            "here none: the constant is absolute and small fine-tunes would fall under it.",
            "Embeddings and heads are excluded by default; one port solves for every two-dimensional tensor.",
        ),
    )
    KNOBS = (
        Knob("scale", 0.0, 1.2, 1.0, Per.GROUP, searched=True, doc="λ: a common factor on the merged change"),
        Knob("coefficient", 0.2, 3.0, 1.0, doc="w_k: weight of an expert's interference; 0 leaves it out"),
        Knob("rank_ratio", 0.3, 1.0, 0.85, Per.GROUP, doc="r: share of the eigenvectors that 'closed' solves along"),
        Knob("time", 10.0, 1e5, 300.0, Per.GROUP, Scale.LOG, doc="T: how far 'closed' goes towards the minimiser"),
    )
    CACHE = "P3"
    DIFFERENTIABLE = ("scale",)

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def extra_bytes(self, shapes: Mapping[str, tuple[int, ...]], experts: int) -> int:
        """Per matrix, in float32: its change, and for the closed forms eigenvectors, start and target."""
        del experts
        forms = matrix_shapes(shapes, (*self._options.exclude, *self._options.at_base)).values()
        if self._options.solver == "gradient":
            return 4 * sum(height * width for height, width in forms)
        return 4 * sum((3 * height + width + 1) * width for height, width in forms)

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> "Solved":
        return Solved(base, experts, layout, self._options)


@final
class Solved:
    """Prepared models of `wudi`. Remembers the eigenvectors of every matrix, and its change at the last settings."""

    def __init__(self, base: Tensors, experts: Sequence[Tensors], layout: Layout, options: Options) -> None:
        self._base, self._experts, self._options = base, experts, options
        self._stream = Stream([base, *experts], list(layout.group_of))
        matrices = matrix_names(base, layout.group_of, (*options.exclude, *options.at_base))
        merged = Components(self._stream, layout, matrices, self._change, self._plan, _mean)
        self._merged = AtBase(self._stream, 1 + len(experts), matching(layout.group_of, options.at_base), merged)
        self._spectra: dict[str, tuple[Key, Spectrum]] = {}  # by matrix: ratios of the coefficients, what they gave

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`.

        Raises:
            EvaluationError: a coefficient below 0: the loss would have no minimum.
        """
        if (settings["coefficient"] < 0).any():
            raise EvaluationError("wudi: coefficients must be at least 0, or the loss has no minimum")
        self._merged.apply(settings, names, into)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """See `Differentiable.pull_back`: of `scale`."""
        return self._merged.pull_back(settings, slopes)

    def _plan(self, settings: Settings, row: int) -> Plan:
        knobs = (float(settings["rank_ratio"][row, 0]), float(settings["time"][row, 0]))
        if self._options.solver == "gradient":
            knobs = (0.0, 0.0)
        elif self._options.solver == "adaptive":
            knobs = (knobs[0] if self._options.rank_rule == "ratio" else 0.0, 0.0)
        return Plan((*knobs, *map(float, settings["coefficient"][row])), (float(settings["scale"][row, 0]),))

    def _change(self, name: str, key: Key) -> list[torch.Tensor]:
        """M, the change of one matrix for (rank_ratio, time, coefficients ...)."""
        (ratio, time), weights = key[:2], key[2:]
        used = sum(weight != 0 for weight in weights)
        start = {"sum": 1.0, "mean": 1.0 / max(used, 1), "zero": 0.0}[self._options.init]
        if used == 0:
            return [torch.zeros_like(self._stream.flat(0, name), dtype=torch.float32)]
        if self._options.solver == "gradient":
            return [self._descend(name, weights, start)]
        largest = max(weights)
        found = self._spectrum(name, tuple(round(weight / largest, 12) for weight in weights))
        closed = self._options.solver == "closed"
        rule: RankRule = "ratio" if closed else self._options.rank_rule
        keep = rank(found.values * largest, tuple(found.target.shape), rule, ratio, self._options.share)
        return [solve(found, largest, start, keep, time if closed else None)]

    def _spectrum(self, name: str, ratios: Key) -> Spectrum:
        if name not in self._spectra or self._spectra[name][0] != ratios:
            self._spectra.pop(name, None)
            tasks = task_matrices(self._base, self._experts, name)
            self._spectra[name] = (ratios, spectrum(tasks, ratios, wide(self._base[name].dtype)))
        return self._spectra[name][1]

    def _descend(self, name: str, weights: Key, start: float) -> torch.Tensor:
        """The paper's form: Adam on L from M0, the gradient being 2 (M C - D)."""
        tasks = task_matrices(self._base, self._experts, name)
        c, d = gram(tasks, weights)
        total = sum((task for task, weight in zip(tasks, weights, strict=True) if weight != 0), torch.zeros_like(d))
        gradient = lambda m: torch.addmm(d, m, c, beta=-2.0, alpha=2.0)  # noqa: E731
        return adam(total * start, gradient, self._options.steps, self._options.learning_rate)


def _mean(settings: Settings, row: int) -> list[float]:
    """Weights of the experts in tensors that are no matrices: Σ w τ / K, times the scale."""
    return [float(w) for w in settings["coefficient"][row] * settings["scale"][row, 0]]
