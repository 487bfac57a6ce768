"""aTLAS: coefficients by AdamW on a labelled differentiable loss; the learner to take where labels are to be had.

Reference: Zhang et al., arXiv:2407.02880 (AdamW with decay 0.1, clip 1.0, cosine, from coefficients of 0; an optional
penalty on their sizes). Ours: it begins at the study's start unless `init: zero`, since from 0 many steps go into what
the start already has; the clip holds for the coefficients of the whole study; the best iterate is chosen by the
study's metrics on all search examples, not on a validation set of its own.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, cast, final

import numpy as np
from pydantic import Field, PositiveInt

from mergesearch.plugins import PluginOptions
from mergesearch.strategies.base import Need, Observation, Problem, Proposal, Strategy
from mergesearch.strategies.learning.adam import AdamRule
from mergesearch.strategies.learning.natural import Natural
from mergesearch.strategies.learning.rules import Settings, chosen_loss, chosen_monitor
from mergesearch.strategies.learning.steps import Learner
from mergesearch.types import Candidate, Vector


class Options(PluginOptions):
    """`loss`: the differentiable loss to follow; None: 'loss', the labelled one. `init`: begin at the study's 'start',
    or with coefficients of 'zero' as in the paper. `learning_rate`: of AdamW, in coefficients. `decay`: share of a
    coefficient that decays per step, times the rate. `l1`: penalty on the sizes of the coefficients. `clip`: longest
    gradient. `steps`: aimed at; the batches are made so large that the budget gives about as many. `batch`: least
    examples of an objective in a batch. `batches_per_step`: gradients averaged per step; None: as many as are asked
    for at once, at most 8. `monitor`: what ranks the iterates, the study's 'metric' or a differentiable loss."""

    loss: str | None = None
    init: Literal["start", "zero"] = "start"
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    decay: float = Field(default=0.1, ge=0)
    l1: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    steps: PositiveInt = 100
    batch: PositiveInt = 16
    batches_per_step: PositiveInt | None = None
    monitor: str = "metric"


@final
class Atlas(Strategy):
    """Strategy; see `strategies/base.py` for the contract and `steps.py` for how it asks."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS})

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        loss = chosen_loss("atlas", problem, chosen.loss, ("loss",))
        monitor = chosen_monitor("atlas", problem, chosen.monitor)
        natural = Natural(problem)
        begin = natural.values(problem.start)
        if chosen.init == "zero":
            begin = np.where(natural.expert >= 0, natural.clip(np.zeros(problem.dim)), begin)
        rule = AdamRule(natural, begin, chosen.learning_rate, chosen.decay, chosen.l1, chosen.clip)
        guarded = chosen.init == "start"  # from 0 the first iterates are worse than the start by nature
        settings = Settings(loss, chosen.steps, chosen.batch, chosen.batches_per_step, monitor, guarded=guarded)
        self._learner = Learner(problem, seed, settings, rule, natural)

    def ask(self, number: int) -> Proposal | None:
        """The next check or batch; None while a step is awaited."""
        return self._learner.ask(number)

    def asked(self, candidate: Candidate) -> None:
        """Remembers what the candidate is for."""
        self._learner.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds one result."""
        self._learner.tell(candidate, observation)

    def recommend(self) -> Vector | None:
        """The best monitored point, the start among them."""
        return self._learner.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Figures of the learner."""
        return self._learner.diagnostics()

    def notes(self) -> tuple[str, ...]:
        """What it decided."""
        return self._learner.notes()
