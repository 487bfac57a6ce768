"""What `quadratic` knows of the losses: priors learned now and then, fits near any centre, and where they lead.

Everything here is a function of the results told so far; nothing is computed before it is asked for.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from mergesearch.pareto import front
from mergesearch.strategies.surrogates.quadratic_fit import Kernel, Matrix, Prior, Quadratic, learn
from mergesearch.strategies.surrogates.quadratic_links import Link, candidates
from mergesearch.types import Objective, Vector

AUGMENTED = 0.05  # weight of the sum beside the maximum (ParEGO; pareto.md card 10)
_REACH = 4.0  # a point at mean square distance 1 from the centre, in radii, has exp(0.5 / _REACH) times the noise
_NEAREST = 400  # points in one fit
_JUDGED = 250  # points by which forms and links are judged
_BETTER = 0.97  # a link must lower the error to this share to be taken
_SMOOTH = (0.1, 0.01)  # temperatures of the maximum, first and last


@dataclass(frozen=True, eq=False)
class Results:
    """Scored points (k, D), their losses, standard errors and items (k, M), in the order they were told."""

    points: Matrix
    losses: Matrix
    stderr: Matrix
    n: Matrix

    def first(self, count: int) -> "Results":
        """The first `count` of them."""
        return Results(self.points[:count], self.losses[:count], self.stderr[:count], self.n[:count])

    def scaled(self) -> tuple[Vector, Vector]:
        """The best losses (M,), and the spans (M,) from there to the worst on the front: what preferences weigh."""
        low = self.losses.min(axis=0)
        span = np.maximum(self.losses[front(self.losses)].max(axis=0) - low, 0.0)
        whole = np.ptp(self.losses, axis=0)
        span = np.where(span > 1e-3 * whole, span, whole)
        return low, np.where(span > 0.0, span, 1.0)

    def badness(self, preference: Vector) -> Vector:
        """Augmented Chebyshev value (k,) of every point under a preference (M,)."""
        low, span = self.scaled()
        shares = (self.losses - low) / span * preference
        value: Vector = shares.max(axis=1) + AUGMENTED * shares.sum(axis=1)
        return value

    def centre(self, preference: Vector) -> Vector:
        """Mean of the few best points under a preference: one alone would be the luckiest."""
        few = 1 + min(len(self.points) // 20, 4)
        best = np.argsort(self.badness(preference), kind="stable")[:few]
        mean: Vector = self.points[best].mean(axis=0)
        return mean


@dataclass(frozen=True, eq=False)
class Belief:
    """Of one objective: the ceiling of its link, the prior, and the leave-one-out R² of its losses."""

    ceiling: float
    prior: Prior
    r2: float


@dataclass(frozen=True, eq=False)
class Local:
    """Fits near `centre`, one per objective, trusted between `low` and `high` (D,)."""

    fits: tuple[Quadratic, ...]
    links: tuple[Link, ...]
    centre: Vector
    low: Vector
    high: Vector

    def losses(self, points: Matrix) -> Matrix:
        """Predicted losses (k, M) at points (k, D)."""
        return np.stack(
            [link.back(fit.values(points)) for fit, link in zip(self.fits, self.links, strict=True)], axis=1
        )


def believe(objectives: tuple[Objective, ...], results: Results, radius: float) -> tuple[Belief, ...]:
    """Link and prior of each objective, from results around its own best points and around those of the middle."""
    many = len(objectives)
    preferences = [np.full(many, 1.0 / many), *(np.eye(many) if many > 1 else ())]
    centres = np.array([results.centre(preference) for preference in preferences])
    distance = np.min([_distance(results.points, centre, radius) for centre in centres], axis=0)
    beliefs = []
    for j, objective in enumerate(objectives):
        best: tuple[float, Belief] | None = None
        for ceiling in candidates(objective):
            link = Link.of(objective, ceiling, results.losses[:, j])
            z, noise = _data(results, j, link, distance)
            kept = np.sort(np.argsort(noise, kind="stable")[:_JUDGED])
            prior = learn(results.points[kept], z[kept], noise[kept], centres[0], radius)
            fit = Kernel(results.points[kept], centres[0], radius).fit(prior, z[kept], noise[kept])
            error, r2 = _error(link.back(fit.left_out), results.losses[kept, j], distance[kept])
            if best is None or error < _BETTER * best[0]:
                best = error, Belief(ceiling, prior, r2)
        assert best is not None
        beliefs.append(best[1])
    return tuple(beliefs)


def local(
    objectives: tuple[Objective, ...], beliefs: tuple[Belief, ...], results: Results, centre: Vector, radius: float
) -> Local:
    """Fits of all objectives near a centre (D,), of at most 400 results."""
    distance = _distance(results.points, centre, radius)
    if len(distance) > _NEAREST:
        kept = np.sort(np.argsort(distance, kind="stable")[:_NEAREST])
        results = Results(results.points[kept], results.losses[kept], results.stderr[kept], results.n[kept])
        distance = distance[kept]
    kernel = Kernel(results.points, centre, radius)
    links, fits = [], []
    for j, (objective, belief) in enumerate(zip(objectives, beliefs, strict=True)):
        links.append(Link.of(objective, belief.ceiling, results.losses[:, j]))
        z, noise = _data(results, j, links[-1], distance)
        fits.append(kernel.fit(belief.prior, z, noise))
    low, high = np.maximum(centre - radius, 0.0), np.minimum(centre + radius, 1.0)
    return Local(tuple(fits), tuple(links), centre, low, high)


def widened(model: Local, point: Vector, factor: float) -> Local | None:
    """The same fits in a wider box, where a quarter of a point's coordinates (D,) lie on faces that are not the cube's;
    None where fewer do."""
    held = ((point <= model.low) & (model.low > 0.0)) | ((point >= model.high) & (model.high < 1.0))
    if np.mean(held) < 0.25:
        return None
    reach = factor * np.maximum(model.high - model.centre, model.centre - model.low)
    low, high = np.maximum(model.centre - reach, 0.0), np.minimum(model.centre + reach, 1.0)
    return Local(model.fits, model.links, model.centre, low, high)


def best_point(model: Local, preference: Vector, low: Vector, span: Vector) -> Vector:
    """The point (D,) of the trust box whose predicted losses are best: by augmented Chebyshev under a preference (M,).

    Losses are taken from `low` in units of `span`, both (M,). One objective: the least predicted loss.
    """
    bounds = list(zip(model.low, model.high, strict=True))
    start = np.clip(model.centre, model.low, model.high)
    if len(model.fits) == 1:
        found = minimize(model.fits[0].at, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 80})
        return np.clip(found.x, model.low, model.high)

    def value(x: Vector, temperature: float) -> tuple[float, Vector]:
        shares, slopes = [], []
        for fit, link, weight, zero, unit in zip(model.fits, model.links, preference, low, span, strict=True):
            z, slope = fit.at(x)
            shares.append(weight * (float(link.back(np.array(z))) - zero) / unit)
            slopes.append(weight * link.slope(z) / unit * slope)
        t = np.array(shares)
        e = np.exp((t - t.max()) / temperature)
        total = t.max() + temperature * np.log(e.sum()) + AUGMENTED * t.sum()
        return float(total), (e / e.sum() + AUGMENTED) @ np.array(slopes)

    for temperature in _SMOOTH:
        found = minimize(value, start, (temperature,), "L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": 40})
        start = np.clip(found.x, model.low, model.high)
    return start


def metric(model: Local, preference: Vector, noise: Vector) -> Vector:
    """Noise (D,) half of it stretched along the directions in which predicted losses bend least, of the same size."""
    curvature = np.zeros((len(noise), len(noise)))
    for fit, weight in zip(model.fits, preference, strict=True):
        bent = np.diag(fit.A) if fit.A.ndim == 1 else fit.A
        bend = float(np.trace(bent))
        if bend > 0.0:
            curvature += weight / bend * bent
    if float(np.trace(curvature)) <= 0.0:
        return noise
    eigenvalues, q = np.linalg.eigh(curvature)
    stretch = 1.0 / np.sqrt(np.maximum(eigenvalues, 0.0) + 0.02 * float(eigenvalues.max()))
    stretch /= np.sqrt(np.mean(stretch * stretch))
    mixed: Vector = (noise + q @ (stretch * (q.T @ noise))) / np.sqrt(2.0)
    return mixed


def _distance(points: Matrix, centre: Vector, radius: float) -> Vector:
    """Mean square distance (k,) per axis from a centre, in radii."""
    value: Vector = np.mean(np.square((points - centre) / radius), axis=1)
    return value


def _data(results: Results, j: int, link: Link, distance: Vector) -> tuple[Vector, Vector]:
    """Linked losses (k,) of objective j and their relative noise (k,): by distance, link and standard error."""
    z, magnified = link.forward(results.losses[:, j], results.n[:, j])
    noise = np.exp(np.minimum(0.5 * distance / _REACH, 8.0)) * np.minimum(magnified, 1e4)
    stderr = results.stderr[:, j]
    known = stderr > 0.0
    if known.any() and link.ceiling == 0.0:
        usual = float(np.median(stderr[known]))
        noise = noise * np.where(known, np.clip(np.square(stderr / usual), 0.1, 10.0), 1.0)
    return z, noise


def _error(predicted: Vector, losses: Vector, distance: Vector) -> tuple[float, float]:
    """Weighted mean square error of predictions (k,), and the R² it amounts to (0.0 where losses do not vary)."""
    weight = np.exp(-np.minimum(0.5 * distance / _REACH, 8.0))
    error = float(np.average(np.square(predicted - losses), weights=weight))
    spread = float(np.average(np.square(losses - np.average(losses, weights=weight)), weights=weight))
    return error, 1.0 - error / spread if spread > 1e-24 else 0.0
