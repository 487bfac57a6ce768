"""Tree-structured Parzen estimator (Optuna's), one objective (several as a weighted sum). Sturdy, seldom the best.

Optuna keeps nothing here: the log is replayed into a study in memory. An ask samples with a fresh sampler seeded from
its number and leaves that study as it was. Slow beyond some hundred axes: seconds an ask at 384 axes and 3,000 results.
Reference: Watanabe, arXiv:2304.11127; the sampler and its constants are those of the package optuna.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, cast, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Observation, Problem, Proposal, Strategy, rng, weighted_loss
from mergesearch.strategies.turns import Turns
from mergesearch.types import Candidate, Vector


class Options(PluginOptions):
    """`startup`: results before the estimator is trusted; until then points are drawn around the start. `spread`: their
    standard deviation in unit-cube widths. `multivariate`: model axes together. `draws`: points weighed per ask.
    `constant_liar`: treat what is still being evaluated as bad, so that concurrent asks spread."""

    startup: int = Field(default=10, ge=1)
    spread: float = Field(default=0.2, gt=0, le=1)
    multivariate: bool = True
    draws: int = Field(default=24, ge=1)
    constant_liar: bool = True


@final
class Tpe(Strategy):
    """Strategy; see `strategies/base.py` for the contract. A failed candidate is told as infinitely bad."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        self._options = cast(Options, options)
        self._problem, self._seed = problem, seed
        self._axes: dict[str, BaseDistribution] = {f"x{i:05d}": FloatDistribution(0.0, 1.0) for i in range(problem.dim)}
        self._turns = Turns()
        self._log: list[tuple[int, Vector, float | None]] = []  # (number, point, None: asked, else told with this loss)
        self._losses: dict[int, tuple[float, Vector]] = {}  # told: number -> loss, point
        self._failed = 0
        # Optuna notes what it sampled on the trial it samples for: the scratch one, in a study which nobody reads.
        self._storage, self._study_id, self._scratch = _storage()
        self._study = Study("log", self._storage)  # filled from our log when it is needed
        self._ids: dict[int, int] = {}  # candidate number -> Optuna's id
        self._written = 0

    def ask(self, number: int) -> Proposal | None:
        """Never None."""
        if self._turns.of(number) == 0:
            return Proposal(self._problem.start, "start")
        generator = rng(self._seed, number)
        if len(self._losses) < self._options.startup:
            return Proposal(_around(self._problem.start, self._options.spread, generator), "startup")
        return Proposal(self._sample(int(generator.integers(2**32))), "sample")

    def asked(self, candidate: Candidate) -> None:
        """Notes the candidate as pending."""
        self._turns = self._turns.after(candidate)
        if candidate.point is not None:
            self._log.append((candidate.number, candidate.point, None))

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Notes its weighted loss; a second tell is ignored."""
        if candidate.point is None or candidate.number in self._losses:
            return
        self._failed += observation is None
        loss = math.inf if observation is None else weighted_loss(self._problem, observation.losses)
        self._log.append((candidate.number, candidate.point, loss))
        self._losses[candidate.number] = (loss, candidate.point)

    def recommend(self) -> Vector | None:
        """The middle of the estimator's good set (best tenth, at most 25); None before `startup` results."""
        scored = sorted((loss, number) for number, (loss, _) in self._losses.items() if loss < math.inf)
        if len(scored) < self._options.startup:
            return None
        good = scored[: min(math.ceil(0.1 * len(scored)), 25)]
        return cast(Vector, np.mean([self._losses[number][1] for _, number in good], axis=0))

    def diagnostics(self) -> Mapping[str, float]:
        """Counts of told and failed candidates, and the spread of the good set (mean deviation in unit-cube widths)."""
        scored = sorted((loss, number) for number, (loss, _) in self._losses.items() if loss < math.inf)
        good = [self._losses[number][1] for _, number in scored[: min(math.ceil(0.1 * len(scored)), 25)]]
        spread = float(np.std(good, axis=0).mean()) if good else 0.0
        return {"told": float(len(self._losses)), "failed": float(self._failed), "good_spread": spread}

    def _sample(self, seed: int) -> Vector:
        self._write()
        options = self._options
        sampler = TPESampler(
            n_startup_trials=options.startup,
            n_ei_candidates=options.draws,
            seed=seed,
            multivariate=options.multivariate,
            constant_liar=options.constant_liar,
        )
        trial = self._storage.get_trial(self._scratch)
        trial.number = len(self._ids)  # the next one, so that no trial of the log is taken for this one
        if options.multivariate:
            drawn = sampler.sample_relative(self._study, trial, self._axes)
        else:
            drawn = {
                name: sampler.sample_independent(self._study, trial, name, axis) for name, axis in self._axes.items()
            }
        point: Vector = np.clip(np.array([drawn[name] for name in self._axes], dtype=np.float64), 0.0, 1.0)
        return point

    def _write(self) -> None:
        """Bring Optuna's study up to the end of the log."""
        for number, point, loss in self._log[self._written :]:
            if number not in self._ids:
                template = FrozenTrial(
                    number=-1,
                    trial_id=-1,
                    state=TrialState.RUNNING,
                    value=None,
                    datetime_start=None,
                    datetime_complete=None,
                    params=dict(zip(self._axes, point.tolist(), strict=True)),
                    distributions=self._axes,
                    user_attrs={},
                    system_attrs={},
                    intermediate_values={},
                )
                self._ids[number] = self._storage.create_new_trial(self._study_id, template_trial=template)
            if loss is not None:
                self._storage.set_trial_state_values(self._ids[number], TrialState.COMPLETE, [loss])
        self._written = len(self._log)


def _storage() -> tuple[InMemoryStorage, int, int]:
    """Optuna's memory, the id of the study that holds the log, and that of the scratch trial.

    Optuna announces each new study on stderr at level INFO; its verbosity is put back at once.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        storage = InMemoryStorage()
        study = storage.create_new_study([StudyDirection.MINIMIZE], "log")
        scratch = storage.create_new_study([StudyDirection.MINIMIZE], "scratch")
    finally:
        optuna.logging.set_verbosity(before)
    return storage, study, storage.create_new_trial(scratch)


def _around(start: Vector, spread: float, generator: np.random.Generator) -> Vector:
    return np.clip(start + spread * generator.standard_normal(len(start)), 0.0, 1.0)
