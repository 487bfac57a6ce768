"""Candidates built into one live model, in place, again and again."""

from collections.abc import Sequence
from typing import cast, final

import numpy as np
import torch

from mergesearch.checkpoints.adapter import ExpertTensors, is_adapter
from mergesearch.errors import CheckpointError, EvaluationError
from mergesearch.merging import prepare
from mergesearch.operators.base import AnyOperator, Compressed, Differentiable, Layout, Tensors
from mergesearch.space import Settings


@final
class CandidateBuilder:
    """Builds candidates into a live model, again and again.

    Tensors of groups whose settings are those of the last candidate are left as they stand: they hold those same bits.
    Nothing else may write to the merged tensors of `live`. One thread at a time.
    """

    def __init__(
        self, operator: AnyOperator, base: Tensors, experts: Sequence[ExpertTensors], layout: Layout, live: Tensors
    ) -> None:
        missing = [name for name in layout.group_of if name not in live]
        if missing:
            raise CheckpointError(f"the live model has no tensor {missing[0]!r} ({len(missing)} are missing)")
        models = [base, *(cast("Tensors", e) for e in experts if not is_adapter(e))]
        memory = {model[n].data_ptr() for model in models for n in layout.group_of if n in model}
        shared = [n for n in layout.group_of if live[n].numel() and live[n].data_ptr() in memory]
        if shared:
            raise CheckpointError(
                f"live tensor {shared[0]!r} shares memory with a base or expert; give the model its own"
            )
        # Of names that are one tensor in the live model, one is written: a file holds only one of them.
        first: dict[int, str] = {}
        for name in sorted(layout.group_of, key=lambda n: n not in base):
            first.setdefault(live[name].data_ptr(), name)
        kept = {n: g for n, g in layout.group_of.items() if not live[n].numel() or first[live[n].data_ptr()] == n}
        self._layout = Layout(layout.experts, layout.groups, kept)
        self._names: list[list[str]] = [[] for _ in layout.groups]
        for name, group in kept.items():
            self._names[group].append(name)
        self._live = {name: live[name] for name in kept}
        shape = (len(layout.groups), len(layout.experts))
        self._defaults = {knob.name: np.full(shape, knob.start(shape[1])) for knob in operator.KNOBS}
        self._whole_model = operator.WHOLE_MODEL
        self._operator = type(operator).__name__
        self.differentiable = bool(operator.DIFFERENTIABLE)
        self._prepared = prepare(operator, base, experts, self._layout)
        self._rows: list[tuple[bytes, ...] | None] = [None] * len(layout.groups)

    def build(self, settings: Settings) -> int:
        """Write the candidate into the live model; returns how many groups had to be written.

        A knob that `settings` does not name is at its start: it may be newer than a stored recipe.

        Raises:
            EvaluationError: these settings cannot be built. The next call then writes all it needs.
        """
        settings = {**self._defaults, **settings}
        # Adding 0.0 turns -0.0 into 0.0, so that equal numbers have equal bytes.
        tables = [np.asarray(settings[knob], dtype=np.float64) + 0.0 for knob in sorted(settings)]
        rows = [tuple(table[g].tobytes() for table in tables) for g in range(len(self._names))]
        stale = [g for g, row in enumerate(rows) if row != self._rows[g]]
        if self._whole_model and stale:
            stale = list(range(len(rows)))
        if not stale:
            return 0
        for g in stale:
            self._rows[g] = None
        with torch.no_grad():
            self._prepared.apply(settings, [name for g in stale for name in self._names[g]], self._live)
        for g in stale:
            self._rows[g] = rows[g]
        return len(stale)

    def rebuild(self, settings: Settings, expert: int) -> None:
        """Write the model of one expert, rebuilt from what the merge keeps of it, into the live model.

        An operator that keeps nothing of single experts serves them all with the candidate itself, which is built.

        Raises:
            EvaluationError: this expert cannot be rebuilt.
        """
        if not isinstance(self._prepared, Compressed):
            self.build(settings)
            return
        self.forget()
        with torch.no_grad():
            self._prepared.rebuild({**self._defaults, **settings}, expert, list(self._live), self._live)

    def pull_back(self, settings: Settings, slopes: Tensors) -> Settings:
        """The gradient with respect to the settings; see `Differentiable.pull_back`.

        `slopes` are named as the live tensors. Of names that are one live tensor, one counts.

        Raises:
            EvaluationError: the operator gives no gradients.
        """
        if not (self.differentiable and isinstance(self._prepared, Differentiable)):
            raise EvaluationError(
                f"operator {self._operator} gives no gradients; take one that does, such as task_arithmetic, or a "
                "strategy that needs none"
            )
        kept = {name: slopes[name] for name in self._live if name in slopes}
        return self._prepared.pull_back({**self._defaults, **settings}, kept)

    def stored_bytes(self, settings: Settings) -> int:
        """Bytes to keep beside the base: what rebuilds every expert, or the merged tensors as one more model."""
        if isinstance(self._prepared, Compressed):
            return self._prepared.stored_bytes({**self._defaults, **settings})
        return sum(tensor.numel() * tensor.element_size() for tensor in self._live.values())

    def forget(self) -> None:
        """Write everything at the next build: something else wrote to the live model."""
        self._rows = [None] * len(self._rows)
