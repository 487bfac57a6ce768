"""Black boxes with known fronts: shifted rotated quadratics, the same through a saturating link, DTLZ2, ZDT1, ZDT2.

Names are '<family><objectives>-<axes>': 'quad2-24', 'sat1-96', 'dtlz3-24', 'zdt1-24', 'zdt2-24'. `seed` draws the
instance (optimum, rotation), so that three seeds are three instances. A uniform random point scores 1 on average in
each quadratic; reference points and noise are those of `methods`' first measurements: 1 and 0.02 for quadratics, 2.5
and none for DTLZ2, (1.1, 6) and none for ZDT. Gradients are exact, with noise of five times the losses' own, relative
to a gradient's root mean square over the cube.
"""

import functools
import itertools
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from search_runs import shown_front

from mergesearch.pareto import hypervolume
from mergesearch.space import SearchSpace
from mergesearch.strategies.base import Geometry, Observation
from mergesearch.types import Candidate, Direction, Objective, Vector

EXAMPLES = 100  # simulated examples behind each loss
CONDITION = 100.0
NOISE = 0.02
LINK_RATE = 3.0
RIPPLE = 0.03

Function = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(eq=False)
class BlackBox:
    """Target with true values at hand. `function` (n, D) -> (n, M) losses; `guide` likewise: the differentiable one."""

    name: str
    dim: int
    function: Function
    guide: Function
    reference: Vector
    best: float  # hypervolume of the true front
    noise: float
    seed: int

    def __post_init__(self) -> None:
        self.objectives = tuple(Objective(f"f{j}", Direction.MIN) for j in range(len(self.reference)))
        self.start = np.full(self.dim, 0.5)
        self.seeds: tuple[Vector, ...] = ()
        self.gradients: tuple[str, ...] = ("loss",)
        self.gradient_cost = 3.0
        self.checkpoints = (30, 100, 125, 300, 1000)
        self.space: SearchSpace | None = SearchSpace.box(self.dim, 0.0, 1.0)
        probes = np.random.default_rng([self.seed, 2]).random((64, self.dim))
        self._unit = np.sqrt(np.mean([self.jacobian(p) ** 2 for p in probes], axis=(0, 2)))  # (M,)

    def geometry(self) -> Geometry | None:
        """None: there are no models."""
        return None

    def baselines(self) -> tuple[tuple[str, Observation], ...]:
        """None: there are no models."""
        return ()

    def jacobian(self, point: Vector) -> NDArray[np.float64]:
        """Exact gradients (M, D) of the guides, by a complex step."""
        step = 1e-30
        return np.imag(self.guide(point + 1j * step * np.eye(self.dim))).T / step

    def observe(self, candidate: Candidate, examples: bool = False) -> Observation:
        """True losses plus noise. The noise belongs to a candidate's examples, so one that continues another keeps
        what that one saw."""
        request, point, m = candidate.request, candidate.point, len(self.objectives)
        root = candidate.number if request.continues is None else request.continues
        drawn = np.random.default_rng([self.seed, 3, root]).standard_normal((m, EXAMPLES)) * self.noise * 10.0
        rows = request.rows(EXAMPLES)
        if request.continues is not None:
            rows = np.arange(rows[-1] + 1)
        losses = self.function(point[None])[0] + drawn[:, rows].mean(axis=1)
        stderr, n = np.full(m, self.noise * np.sqrt(EXAMPLES / len(rows))), np.full(m, float(len(rows)))
        each = tuple((self.function(point[None])[0, j] + drawn[j, rows]).astype(np.float32) for j in range(m))
        if not request.gradient:
            return Observation(losses, stderr, n, examples=each if examples else None)
        own = np.random.default_rng([self.seed, 4, candidate.number])
        scale = self.noise * np.sqrt(EXAMPLES / len(rows))
        guides = self.guide(point[None])[0] + scale * own.standard_normal(m)
        gradients = self.jacobian(point) + 5 * scale * self._unit[:, None] * own.standard_normal((m, self.dim))
        return Observation(losses, stderr, n, guides, gradients, each if examples else None)

    def worth(self, points: NDArray[np.float64], losses: NDArray[np.float64], chosen: Vector) -> dict[str, float]:
        """True mean loss of the chosen and of the best-looking point; with several objectives the share of the true
        front's hypervolume that the true values of the front that is shown have."""
        row = {"chosen": float(self.function(chosen[None])[0].mean())}
        if len(points):
            row["best_seen"] = float(self.function(points[losses.mean(axis=1).argmin()][None])[0].mean())
        if len(self.objectives) > 1:
            shown = self.function(points[shown_front(losses)]) if len(points) else losses
            row["hv"] = hypervolume(shown, self.reference) / self.best
        return row


def black_box(name: str, seed: int) -> BlackBox:
    """The black box of a name; `seed` draws the instance."""
    family, dim = name.split("-")
    kind, m = family[:-1], int(family[-1])
    return {"quad": _quadratics, "sat": _quadratics, "dtlz": _dtlz2, "zdt": _zdt}[kind](name, int(dim), m, seed)


def _generator(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.removeprefix("sat").removeprefix("quad").encode()), seed])


def _quadratics(name: str, dim: int, m: int, seed: int) -> BlackBox:
    """M quadratics with their own rotations, condition 100; optima within .2 of a common centre in each axis."""
    generator = _generator(name, seed)
    centre = generator.uniform(0.2, 0.8, dim) if m == 1 else generator.uniform(0.3, 0.7, dim)
    optima = centre + (0.2 if m > 1 else 0.0) * generator.uniform(-1.0, 1.0, (m, dim))
    roots = []
    for optimum in optima:
        rotation, _ = np.linalg.qr(generator.standard_normal((dim, dim)))
        root = rotation * CONDITION ** (0.5 * np.linspace(0.0, 1.0, dim))  # A = root root'
        offset = (0.5 - optimum) @ root
        roots.append(root / np.sqrt((root**2).sum() / 12.0 + offset @ offset))
    table = np.array(roots)  # (M, D, D)

    def plain(x: NDArray[Any]) -> NDArray[Any]:
        return np.stack([(((x - c) @ r) ** 2).sum(axis=1) for c, r in zip(optima, table, strict=True)], axis=1)

    def linked(x: NDArray[Any]) -> NDArray[Any]:
        ripple = np.stack([(np.sin(10 * np.pi * (x - c)) ** 2).mean(axis=1) for c in optima], axis=1)
        return 1.0 - np.exp(-LINK_RATE * plain(x)) + RIPPLE * ripple

    best = plain(_efficient(optima, table)) if m > 1 else np.zeros((1, 1))
    if name.startswith("sat"):
        best = 1.0 - np.exp(-LINK_RATE * best)  # without the ripple: a bound that no front reaches quite
    reference = np.ones(m)
    function = linked if name.startswith("sat") else plain
    return BlackBox(name, dim, function, plain, reference, hypervolume(best, reference), NOISE, seed)


def _efficient(optima: NDArray[np.float64], roots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, D) that minimise weighted sums of the quadratics in the box, weights on a lattice."""
    m, dim = optima.shape
    parts = 200 if m == 2 else 40
    lattice = [w for w in itertools.product(range(parts + 1), repeat=m) if sum(w) == parts]
    hessians = roots @ roots.transpose(0, 2, 1)
    points = []
    for weights in np.array(lattice) / parts:
        matrix = np.tensordot(weights, hessians, 1)
        point = np.linalg.solve(matrix, np.einsum("m,mij,mj->i", weights, hessians, optima))
        if point.min() < 0.0 or point.max() > 1.0:
            root = np.linalg.cholesky(matrix).T
            point = lsq_linear(root, root @ point, (0.0, 1.0)).x
        points.append(point)
    return np.array(points).reshape(-1, dim)


def _dtlz2(name: str, dim: int, m: int, seed: int) -> BlackBox:
    """DTLZ2 (Deb et al. 2002) with its distance variables' optimum moved into [.2, .8]; front: the unit sphere."""
    optimum = _generator(name, seed).uniform(0.2, 0.8, dim - m + 1)

    def function(x: NDArray[Any]) -> NDArray[Any]:
        radius = 1.0 + ((x[:, m - 1 :] - optimum) ** 2).sum(axis=1)
        columns = []
        for j in range(m):
            angles = x[:, : m - 1] * (np.pi / 2)
            value = radius * np.cos(angles[:, : m - 1 - j]).prod(axis=1)
            columns.append(value * np.sin(angles[:, m - 1 - j]) if j else value)
        return np.stack(columns, axis=1)

    ball = {2: np.pi / 4, 3: np.pi / 6}[m]  # of the unit ball within one orthant
    return BlackBox(name, dim, function, function, np.full(m, 2.5), 2.5**m - ball, 0.0, seed)


def _zdt(name: str, dim: int, which: int, seed: int) -> BlackBox:
    """ZDT1 (convex front) and ZDT2 (concave); Zitzler, Deb, Thiele 2000. The same instance for every seed."""

    def function(x: NDArray[Any]) -> NDArray[Any]:
        g = 1.0 + 9.0 * x[:, 1:].mean(axis=1)
        share = x[:, 0] / g
        return np.stack([x[:, 0], g * (1.0 - (np.sqrt(share + 1e-12) if which == 1 else share**2))], axis=1)

    best = 0.6 + (5.0 + 2.0 / 3.0 if which == 1 else 5.0 + 1.0 / 3.0)
    return BlackBox(name, dim, function, function, np.array([1.1, 6.0]), best, 0.0, seed)


@functools.lru_cache(maxsize=4)
def cached_black_box(name: str, seed: int) -> BlackBox:
    """`black_box`, the last few kept."""
    return black_box(name, seed)
