"""CPU time that a strategy takes for one ask and one tell, by the number of axes and of evaluations so far.

A strategy is shown a log of scattered evaluations of two quadratics up to each mark, then it is asked and told a few
times by itself. What takes longer than the cap is not driven further: its row ends there.
"""

import time
from typing import Any

import numpy as np
from search_blackboxes import cached_black_box
from search_ours import Ours, new_strategy
from search_runs import Target

from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Need, Strategy
from mergesearch.types import Candidate, Request

DIMS = (24, 96, 384)
MARKS = (100, 1000, 3000)
TURNS = 5
EVERY = 9  # evaluations shown for each one with a gradient: about the share that gradient_map spends on them
CAP = 5.0  # CPU seconds that one ask and tell may take
SHOWING = 30.0  # and showing the log up to a mark


def overhead_rows(kinds: list[str] | None = None, dims: tuple[int, ...] = DIMS) -> list[dict[str, Any]]:
    """A row for each kind and number of axes: mean and greatest CPU seconds at each mark."""
    rows = []
    for kind in kinds or sorted(STRATEGIES):
        for dim in dims:
            for gradients in (False, True):
                name = f"{kind}{'+gradients' if gradients else ''}"
                try:
                    row = measure(name, dim)
                except Exception as error:  # noqa: BLE001 - one that breaks must not end the table
                    row = {
                        "kind": kind,
                        "strategy": name,
                        "dim": dim,
                        "error": f"{type(error).__name__}: {error}"[:200],
                    }
                if row is not None:
                    rows.append(row)
                    print(row, flush=True)
    return rows


def measure(name: str, dim: int, marks: tuple[int, ...] = MARKS, cap: float = CAP) -> dict[str, Any] | None:
    """One row; None where gradients make no difference to the strategy or it cannot do without them."""
    target = cached_black_box(f"quad2-{dim}", 0)
    ours = Ours.parse(name)
    strategy = new_strategy(Ours(ours.kind, True), target, 2.0 * marks[-1], 0)
    if Need.GRADIENTS in strategy.NEEDS and not ours.gradients:
        return None
    if ours.gradients and not _asks_for_gradients(strategy):
        return None
    strategy = new_strategy(ours, target, 2.0 * marks[-1], 0)
    number, row = 0, {"kind": ours.kind, "strategy": name, "dim": dim, "marks": []}
    for mark in marks:
        begun = time.process_time()
        while number < mark and time.process_time() - begun < SHOWING:
            _show(strategy, target, number, ours.gradients)
            number += 1
        if number < mark:
            break
        taken = []
        for _ in range(TURNS):
            begun = time.process_time()
            proposal = strategy.ask(number)
            asked = time.process_time() - begun
            if proposal is None:
                break
            candidate = Candidate(number, proposal.point, proposal.origin, proposal.request)
            observation = target.observe(candidate, Need.EXAMPLES in strategy.NEEDS)
            begun = time.process_time()
            strategy.asked(candidate)
            strategy.tell(candidate, observation)
            taken.append(asked + time.process_time() - begun)
            number += 1
            if taken[-1] > cap:
                break
        if not taken:
            break
        row["marks"].append({"after": mark, "mean": round(float(np.mean(taken)), 5), "max": round(max(taken), 5)})
        if max(taken) > cap:
            break
    return row


def _asks_for_gradients(strategy: Strategy) -> bool:
    """Whether the first proposals want any."""
    if Need.GRADIENTS in strategy.NEEDS:
        return True
    proposal = strategy.ask(0)
    return proposal is not None and bool(proposal.request.gradient)


def _show(strategy: Strategy, target: Target, number: int, gradients: bool) -> None:
    """One scattered evaluation that the strategy did not ask for."""
    generator = np.random.default_rng([5, number])
    point = np.clip(target.start + 0.15 * generator.standard_normal(target.dim), 0.0, 1.0) if number else target.start
    wanted = "loss" if gradients and number % EVERY == 0 else ""
    candidate = Candidate(number, point, "sample" if number else "start", Request(gradient=wanted))
    strategy.asked(candidate)
    strategy.tell(candidate, target.observe(candidate, Need.EXAMPLES in strategy.NEEDS))
