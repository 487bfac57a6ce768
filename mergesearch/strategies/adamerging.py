"""AdaMerging: coefficients by the entropy of the merged model's predictions, without labels; needs heads, and care.

Reference: Yang et al., arXiv:2310.02575 (Adam, 1e-3 x 500 steps from 0.3, clamped in the forward pass). Ours: 1e-2 with
a cosine and about 100 steps, which go further for less, and projection after the step. Layer-wise or coarser is the
study's choice of groups; `tie: expert` learns one change per expert over all of them (task-wise). AdaMerging++ is the
same search over task vectors that TIES has trimmed and elected: `merge: {operator: ties_apart}` gives these.

Entropy minimisation is winner-take-all: in six pools of small networks it never beat the best single coefficient and
lost up to 15 points, the more the longer it ran, while label-free `kl` gained. So it stops, says so, and keeps the
best monitored point when monitored iterates are worse than the start, or when one expert's coefficients have gone to 0
while another's are at their bound (ours: below 2 % and above 85 % of the range up to 1). With `monitor: kl` it needs no
labels at all. It learns on the search examples, never on the test split, which the paper's transductive rows do.
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

_GONE, _TAKEN = 0.02, 0.85


class Options(PluginOptions):
    """`loss`: the differentiable loss to follow; 'kl' is the safer one without labels. `tie`: learn a change per
    expert and 'group', or one per 'expert'. `learning_rate`: of Adam, in coefficients. `steps`: aimed at; the batches
    are made so large that the budget gives about as many. `batch`: least examples of an objective in a batch.
    `batches_per_step`: gradients averaged per step; None: as many as are asked for at once, at most 8. `balance`:
    divide each objective's loss by its first value, so that tasks with many classes do not dominate. `monitor`: what
    ranks the iterates, the study's 'metric' or a differentiable loss such as 'kl'."""

    loss: str = "entropy"
    tie: Literal["group", "expert"] = "group"
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    steps: PositiveInt = 100
    batch: PositiveInt = 16
    batches_per_step: PositiveInt | None = None
    balance: bool = False
    monitor: str = "metric"


@final
class AdaMerging(Strategy):
    """Strategy; see `strategies/base.py` for the contract and `steps.py` for how it asks."""

    Options: ClassVar[type[PluginOptions]] = Options
    MULTI_OBJECTIVE: ClassVar[bool] = False
    NEEDS: ClassVar[frozenset[Need]] = frozenset({Need.GRADIENTS})

    def __init__(self, problem: Problem, seed: int, options: PluginOptions) -> None:
        chosen = cast(Options, options)
        loss = chosen_loss("adamerging", problem, chosen.loss, ())
        monitor = chosen_monitor("adamerging", problem, chosen.monitor)
        self._natural = Natural(problem)
        tied = None
        if chosen.tie == "expert":
            own, alone = self._natural.expert, self._natural.experts + np.arange(problem.dim)
            tied = np.where(own >= 0, own, alone)
        begin = self._natural.values(problem.start)
        self._rule = AdamRule(self._natural, begin, chosen.learning_rate, tied=tied)
        settings = Settings(loss, chosen.steps, chosen.batch, chosen.batches_per_step, monitor, chosen.balance)
        self._learner = Learner(problem, seed, settings, self._rule, self._natural)
        self._watches = loss == "entropy"

    def ask(self, number: int) -> Proposal | None:
        """The next check or batch; None while a step is awaited."""
        return self._learner.ask(number)

    def asked(self, candidate: Candidate) -> None:
        """Remembers what the candidate is for."""
        self._learner.asked(candidate)

    def tell(self, candidate: Candidate, observation: Observation | None) -> None:
        """Adds one result, then looks for a collapse."""
        self._learner.tell(candidate, observation)
        if self._watches and self._learner.active and self._collapsed():
            self._learner.stop("entropy has collapsed: an expert's coefficients are at 0 and another's at their bound")

    def recommend(self) -> Vector | None:
        """The best monitored point, the start among them."""
        return self._learner.recommend()

    def diagnostics(self) -> Mapping[str, float]:
        """Figures of the learner."""
        return self._learner.diagnostics()

    def notes(self) -> tuple[str, ...]:
        """What it decided."""
        return self._learner.notes()

    def _collapsed(self) -> bool:
        natural = self._natural
        used = np.isin(np.arange(natural.experts), natural.expert)
        if used.sum() < 2:
            return False
        mean, top = natural.by_expert(self._rule.values)[used], natural.by_expert(np.minimum(natural.high, 1.0))[used]
        return bool((mean <= _GONE * top).any() and (mean >= _TAKEN * top).any())
