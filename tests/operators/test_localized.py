"""EMR and consensus merging: what their formulas promise, merged and rebuilt."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import EvaluationError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.base import Compressed, Layout

ENTRIES = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=6, max_size=6)


def prepared(kind: str, base: torch.Tensor, experts: list[torch.Tensor]) -> Compressed:
    """The operator over models of one tensor 'w' in one group."""
    layout = Layout(tuple(map(str, range(len(experts)))), ("model",), {"w": 0})
    found = make_operator(kind, {}).prepare({"w": base}, [{"w": e} for e in experts], layout)
    assert isinstance(found, Compressed)
    return found


def rebuilt(model: Compressed, expert: int, base: torch.Tensor, **knobs: float) -> torch.Tensor:
    """Tensor 'w' of one expert's rebuilt model."""
    into = {"w": torch.full_like(base, float("nan"))}
    model.rebuild({k: np.full((1, 8), v) for k, v in knobs.items()}, expert, ["w"], into)
    return into["w"]


@given(a=ENTRIES, b=ENTRIES, c=ENTRIES, scale=st.sampled_from([0.25, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_emr_elects_a_sign_and_takes_its_largest_change(
    a: list[float], b: list[float], c: list[float], scale: float
) -> None:
    """Entry by entry it is the formula of the paper, and the order of the experts does not matter."""
    changes = np.array([a, b, c])
    sign = np.where(changes.sum(axis=0) > 0, 1.0, -1.0)
    wanted = scale * sign * np.where(changes * sign > 0, np.abs(changes), 0).max(axis=0)
    base = torch.zeros(6)
    experts = [{"w": torch.tensor(x)} for x in (a, b, c)]
    got = merge("emr", {"w": base}, experts, scale)["w"]
    assert torch.equal(got, torch.tensor(wanted, dtype=torch.float32))
    assert torch.equal(merge("emr", {"w": base}, experts[::-1], scale)["w"], got)


def test_emr_rebuilds_a_lone_expert_exactly_and_refuses_one_that_never_agrees() -> None:
    """One expert is its own unified change; one that is outvoted everywhere has no rescaler, and is named."""
    base, tau = torch.zeros(40), torch.linspace(-2, 2, 40)
    torch.testing.assert_close(rebuilt(prepared("emr", base, [tau]), 0, base), tau)
    model = prepared("emr", base, [torch.ones(40), -0.5 * torch.ones(40)])
    with pytest.raises(EvaluationError, match="expert '1' agrees"):
        rebuilt(model, 1, base)


def test_emr_rescaler_keeps_the_mean_size_of_an_experts_change() -> None:
    """With one tensor, the rebuilt change has the expert's own mean magnitude."""
    base, (a, b) = torch.zeros(1000), torch.randn(2, 1000, generator=torch.Generator().manual_seed(1))
    model = prepared("emr", base, [a, b])
    torch.testing.assert_close(rebuilt(model, 1, base).abs().mean(), b.abs().mean())


@given(a=ENTRIES, b=ENTRIES, c=ENTRIES, threshold=st.sampled_from([0.1, 0.5, 1.0]), agreement=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_consensus_keeps_what_enough_experts_use(
    a: list[float], b: list[float], c: list[float], threshold: float, agreement: int
) -> None:
    """Entry by entry it is the formula of the paper."""
    changes = np.array([a, b, c])
    total = changes.sum(axis=0)
    uses = np.abs(changes) > threshold * np.abs(total - changes)
    wanted = np.where(uses.sum(axis=0) >= agreement, total, 0)
    knobs = {"threshold": threshold, "agreement": float(agreement), "scale": 1.0}
    got = merge("consensus", {"w": torch.zeros(6)}, [{"w": torch.tensor(x)} for x in (a, b, c)], knobs)["w"]
    assert torch.equal(got, torch.tensor(wanted, dtype=torch.float32))


def test_consensus_coefficients_weigh_changes_and_leave_masks_alone() -> None:
    """What is kept is decided at unit coefficients; zero coefficients give the base."""
    base = {"w": torch.tensor([1.0, 1.0])}
    experts = [{"w": torch.tensor([2.0, 2.0])}, {"w": torch.tensor([2.0, 1.0])}]
    knobs = {"coefficient": [0.5, 0.25], "scale": 1.0}
    assert merge("consensus", base, experts, knobs)["w"].tolist() == [1.75, 1.0]
    assert merge("consensus", base, experts, {"coefficient": 0.0, "scale": 1.0})["w"].tolist() == [1.0, 1.0]


def test_a_mask_rebuilds_an_expert_that_shares_nothing() -> None:
    """Where experts change different entries, masks give each expert back exactly."""
    base = torch.zeros(4)
    a, b = torch.tensor([1.0, -2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 3.0, 0.5])
    model = prepared("consensus", base, [a, b])
    assert torch.equal(rebuilt(model, 0, base, threshold=0.4), a)
    assert torch.equal(rebuilt(model, 1, base, threshold=0.4), b)


def test_stored_bytes_count_one_change_and_a_mask_per_expert() -> None:
    """A float32 tensor of 1,000 entries: 4,000 bytes, and masks by their entropy; EMR's rescalers beside them."""
    ones, half = torch.ones(1000), torch.cat([torch.ones(500), -torch.ones(500)])
    assert prepared("emr", torch.zeros(1000), [ones, ones, half]).stored_bytes({}) == 4000 + 125 + 12
    first, second = torch.cat([ones[:500], 0 * ones[:500]]), torch.cat([0 * ones[:500], ones[:500]])
    tables = {"threshold": np.full((1, 2), 0.5)}
    assert prepared("consensus", torch.zeros(1000), [first, second]).stored_bytes(tables) == 4000 + 2 * 125
    assert prepared("consensus", torch.zeros(1000), [ones, ones]).stored_bytes(tables) == 4000
