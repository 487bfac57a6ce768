"""What single operators promise beyond the contract."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import EvaluationError, SpecError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.base import Layout
from mergesearch.operators.passes.largest import kth_largest, mark_largest


def state(*values: float) -> dict[str, torch.Tensor]:
    """A state dict of one vector."""
    return {"w": torch.tensor(values)}


def test_task_arithmetic_with_one_full_expert_is_that_expert() -> None:
    """Base + 1 · (expert - base) is the expert; 0 is the base, to the bit."""
    base, expert = state(0.5, -1.0, 3.0), state(0.25, -1.5, 2.0)
    assert torch.equal(merge("task_arithmetic", base, [expert], 1.0)["w"], expert["w"])
    assert torch.equal(merge("task_arithmetic", base, [expert], 0.0)["w"], base["w"])


def test_task_arithmetic_normalized_divides_by_the_sum() -> None:
    """Coefficients 1 and 3 normalised are 1/4 and 3/4; a sum of 0 is left alone."""
    base, experts = state(0.0), [state(4.0), state(8.0)]
    assert merge("task_arithmetic", base, experts, [1.0, 3.0], normalize=True)["w"].item() == 7.0
    assert merge("task_arithmetic", base, experts, [1.0, -1.0], normalize=True)["w"].item() == -4.0


def test_linear_refuses_weights_that_sum_to_zero() -> None:
    """No average exists, and the group is named."""
    with pytest.raises(EvaluationError, match="group 'model' sum to 0"):
        merge("linear", state(1.0), [state(2.0), state(3.0)], [0.5, -0.5])


def test_linear_counts_the_base_where_it_has_a_weight() -> None:
    """base_weight makes the base one more input."""
    got = merge("linear", state(8.0), [state(2.0)], {"coefficient": 1.0, "base_weight": 0.5})
    assert got["w"].item() == 4.0


def test_slerp_of_orthogonal_tensors_keeps_to_the_arc() -> None:
    """Half-way between unit vectors at a right angle is a unit vector; a second expert is refused."""
    got = merge("slerp", state(1.0, 0.0), [state(0.0, 1.0)], 0.5)["w"]
    torch.testing.assert_close(got, torch.tensor([0.5**0.5, 0.5**0.5]))
    with pytest.raises(SpecError, match="exactly 1 expert"):
        merge("slerp", state(1.0), [state(1.0), state(1.0)], 0.5)


@pytest.mark.parametrize("compiled", [False, True])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_largest_keeps_exactly_k_and_the_first_of_equals(compiled: bool, data: st.DataObject) -> None:
    """The mask is that of a stable descending sort, on both paths, whatever the other bits hold."""
    values = data.draw(
        st.lists(
            st.sampled_from([0.0, -0.5, 0.5, 1.0, -1.0, 3e-39, 1e30]) | st.floats(-1, 1, width=32),
            min_size=1,
            max_size=50,
        )
    )
    expert = torch.tensor(values, dtype=torch.float32)
    base, k = torch.zeros_like(expert), data.draw(st.integers(1, len(values)))
    plane = torch.full((len(values),), 0b1010_1010, dtype=torch.uint8)
    mark_largest(base, expert, k, plane, 2, compiled)
    wanted = torch.zeros(len(values), dtype=torch.bool)
    wanted[torch.argsort(expert.abs(), descending=True, stable=True)[:k]] = True
    assert torch.equal((plane >> 2 & 1).bool(), wanted)
    assert (plane & 0b1111_1011).unique().tolist() == [0b1010_1010]
    bits, _ = kth_largest([(base, expert)], k, compiled)
    assert bits == int(expert.abs().sort(descending=True).values[k - 1].view(torch.int32))


def test_ties_matches_a_plain_implementation_for_more_than_eight_experts() -> None:
    """Masks of eleven experts, in two planes of bits, give what a direct evaluation of the formula gives."""
    rng = torch.Generator().manual_seed(0)
    base = {"w": torch.randn(40, 10, generator=rng)}
    experts = [{"w": base["w"] + torch.randn(40, 10, generator=rng)} for _ in range(11)]
    weights, density = np.linspace(0.2, 1.4, 11), 0.3
    got = merge("ties", base, experts, {"coefficient": list(weights), "density": density, "scale": 0.7})["w"]
    deltas = []
    for expert, weight in zip(experts, weights, strict=True):
        delta = (expert["w"] - base["w"]).double()
        kept = delta.abs() >= delta.abs().flatten().sort(descending=True).values[int(density * 400) - 1]
        deltas.append(delta * kept * weight)
    stacked, w = torch.stack(deltas), torch.tensor(weights)[:, None, None]
    agree = stacked.sign() == torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    divisor = (w * agree).sum(0)
    wanted = base["w"] + 0.7 * (stacked * agree).sum(0) / torch.where(divisor == 0, 1.0, divisor)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)


def test_ties_refuses_what_it_cannot_build() -> None:
    """Negative coefficients under normalisation, and global densities that differ between groups."""
    with pytest.raises(EvaluationError, match="at least 0"):
        merge("ties", state(1.0), [state(2.0)], -0.5)
    operator = make_operator("ties", {"scope": "global"})
    base, expert = {"a": torch.ones(3), "b": torch.ones(3)}, {"a": torch.zeros(3), "b": torch.zeros(3)}
    prepared = operator.prepare(base, [expert], Layout(("x",), ("a", "b"), {"a": 0, "b": 1}))
    tables = {"coefficient": np.ones((2, 1)), "scale": np.ones((2, 1)), "density": np.array([[0.2], [0.4]])}
    with pytest.raises(EvaluationError, match="one density per expert"):
        prepared.apply(tables, ["a"], {"a": torch.ones(3)})


def test_a_live_tensor_of_another_dtype_is_refused() -> None:
    """The sentence names the tensor and both forms."""
    operator = make_operator("linear", {})
    prepared = operator.prepare(state(1.0), [state(2.0)], Layout(("x",), ("g",), {"w": 0}))
    tables = {"coefficient": np.ones((1, 1)), "base_weight": np.zeros((1, 1)), "scale": np.ones((1, 1))}
    with pytest.raises(EvaluationError, match=r"'w' of the live model .* torch.float64"):
        prepared.apply(tables, ["w"], {"w": torch.ones(1, dtype=torch.float64)})
