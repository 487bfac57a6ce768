"""Karcher mean: the point on the sphere with the least summed squared angle to the experts, at their mean length.

Source: the Riemannian centre of mass (Karcher 1977) as in mergekit, arXiv:2603.04972. On whole models, as in the
reference, angles are tiny and it is an average with its length restored; `task_vectors: true` makes it differ from one.
The iteration runs on the cosines between the experts alone, so a candidate is one weighted sum.
"""

from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from mergesearch.operators.algebra.gram import cosines
from mergesearch.operators.algebra.sphere import GramSum, Table, dot, matvec, shares
from mergesearch.operators.base import Checked, Layout, MergeOperator, Prepared, Source, Tensors
from mergesearch.plugins import PluginOptions
from mergesearch.space import Knob, Per, Settings

_NOISE = 1e-7  # lengths on the unit sphere that are rounding alone: squares of size 1 that cancel, in float64


class Options(PluginOptions):
    """Options of `karcher`."""

    task_vectors: bool = False  # the mean of the changes from the base instead of the whole models
    normalize: bool = True  # divide the coefficients by their sum; off, a sum other than 1 rescales the result
    tolerance: PositiveFloat = 1e-5  # a step shorter than this angle ends the iteration


@final
class Karcher(MergeOperator):
    """MergeOperator; see `operators/base.py` for the contract."""

    Options: ClassVar[type[PluginOptions]] = Options
    SOURCE: ClassVar[Source] = Source(
        "Karcher mean",
        "arXiv:2603.04972",
        Checked.GOLDEN,
        (
            "An expert is left out only where it is exactly 0 (the reference: where its norm is at most 1e-5), and no "
            "small angle is skipped: angles between fine-tunes can all be below 1e-5.",
            "Experts without a common direction to start from are averaged; the reference starts from the first.",
        ),
    )
    KNOBS = (
        Knob("coefficient", 0.0, 1.0, None, searched=True, doc="weight α_k of an expert"),
        Knob("iterations", 1.0, 20.0, 10.0, Per.GROUP, doc="the most steps towards the mean", whole=True),
        Knob("scale", 0.0, 2.0, 1.0, Per.GROUP, doc="λ: how far from the base (0) to the mean (1), or beyond"),
    )
    CACHE = "P0"  # with scalars of a Gram matrix that is known

    def __init__(self, options: PluginOptions) -> None:
        assert isinstance(options, Options)
        self._options = options

    def prepare(self, base: Tensors, experts: Sequence[Tensors], layout: Layout) -> Prepared:
        return GramSum(base, experts, layout, self._factors, task_vectors=self._options.task_vectors)

    def _factors(self, gram: Table, settings: Settings, rows: list[int]) -> Table:
        alpha = shares("karcher", settings, rows, self._options.normalize)
        norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))  # (T, K)
        turned = np.where(norms > 0, alpha, 0.0)
        mass = np.abs(turned).sum(axis=1)
        sums = turned.sum(axis=1)
        usable = np.abs(sums) > _NOISE * mass
        share = turned / np.where(usable, sums, 1.0)[:, None]
        cosine = cosines(gram)
        start = np.sqrt(np.maximum(dot(share, matvec(cosine, share)), 0.0))
        usable &= start > _NOISE
        mean = share / np.where(usable, start, 1.0)[:, None]  # u = Σ_j mean_j u_j, a unit vector
        steps = settings["iterations"][rows, 0]
        moving = usable
        for step in range(int(steps.max())):
            moving = moving & (step < steps)
            if not moving.any():
                break
            mean, length = _step(cosine, share, mean, moving, self._options.tolerance)
            moving = moving & (length >= self._options.tolerance)
        along = mean / np.where(norms > 0, norms, 1.0) * dot(alpha, norms)[:, None]
        return np.where(usable[:, None], along, alpha)


def _step(cosine: Table, share: Table, mean: Table, moving: NDArray[np.bool_], tolerance: float) -> tuple[Table, Table]:
    """One step along Σ α θ/sin θ (u_i - cos θ u): the mean (T, K), kept where not `moving`; its length (T,)."""
    inner = np.clip(matvec(cosine, mean), -1.0, 1.0)  # ⟨u, u_i⟩
    angle = 2 * np.arctan2(
        _distance(cosine, mean, -1.0), _distance(cosine, mean, 1.0)
    )  # acos would lose half the digits
    sine = np.sin(angle)
    stretch = np.where(sine > _NOISE, angle / np.where(sine > _NOISE, sine, 1.0), np.where(angle < 1, 1.0, 0.0))
    pull = share * stretch
    tangent = pull - dot(pull, inner)[:, None] * mean
    length = np.sqrt(np.maximum(dot(tangent, matvec(cosine, tangent)), 0.0))
    go = moving & (length >= tolerance)
    safe = np.where(go, length, 1.0)[:, None]
    moved = np.cos(safe) * mean + np.sin(safe) * tangent / safe
    size = np.sqrt(np.maximum(dot(moved, matvec(cosine, moved)), 0.0))
    go &= size > _NOISE
    return np.where(go[:, None], moved / np.where(go, size, 1.0)[:, None], mean), length


def _distance(cosine: Table, mean: Table, sign: float) -> Table:
    """(T, K): ‖u + sign · u_i‖ for every expert i."""
    found = np.zeros_like(mean)
    for i in range(mean.shape[1]):
        other = mean.copy()
        other[:, i] += sign
        found[:, i] = np.sqrt(np.maximum(dot(other, matvec(cosine, other)), 0.0))
    return found
