"""What holds for every operator on whole models, through `merge` and through a live model alike."""

import numpy as np
import pytest
import torch
from contracts.operator import make_operator

from mergesearch.building import CandidateBuilder
from mergesearch.merging import merge
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout
from mergesearch.plugins import load

DENSE = sorted(kind for kind in OPERATORS if hasattr(load("operator", OPERATORS, kind), "prepare"))
ORDERED = {"nuslerp", "opcm"}
"""Operators that say which expert comes first: a weight between two, an order of arrival."""


def models(kind: str, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]:
    """A base and experts whose embedding and head are one tensor, with a matrix and a vector beside them."""
    operator, generator = make_operator(kind), torch.Generator().manual_seed(3)
    count = max(min(operator.MAX_EXPERTS or 3, 3), operator.MIN_EXPERTS)

    def model(base: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        shapes = {"embed.weight": (24, 8), "layers.0.w": (12, 8), "layers.1.w": (12, 8), "norm": (8,)}
        found = {}
        for name, shape in shapes.items():
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
            found[name] = (noise * 0.1 if base is None else base[name].double() + noise * 0.02).to(dtype)
        return found | {"lm_head.weight": found["embed.weight"]}

    base = model(None)
    return base, {name: model(base) for name in "abc"[:count]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", DENSE)
def test_a_merge_keeps_dtypes_shapes_ties_and_inputs_and_is_what_a_worker_builds(kind: str, dtype: torch.dtype) -> None:
    """Tied weights stay one tensor, no input changes, and a prepared operator gives the bits of the one-shot form."""
    base, experts = models(kind, dtype)
    copies = [{n: t.clone() for n, t in model.items()} for model in (base, *experts.values())]
    merged = merge(kind, base, experts, {"scale": 0.7})
    assert {n: (t.shape, t.dtype) for n, t in merged.items()} == {n: (t.shape, t.dtype) for n, t in base.items()}
    assert merged["lm_head.weight"].data_ptr() == merged["embed.weight"].data_ptr()
    for model, copy in zip((base, *experts.values()), copies, strict=True):
        assert all(torch.equal(model[name], tensor) for name, tensor in copy.items())
    live = {name: torch.full_like(t, 9.0) for name, t in base.items()}
    live["lm_head.weight"] = live["embed.weight"]
    layout = Layout(tuple(experts), ("model",), dict.fromkeys(sorted(base), 0))
    builder = CandidateBuilder(make_operator(kind), base, list(experts.values()), layout, live)
    builder.build({"scale": np.full((1, len(experts)), 0.7)})
    assert all(torch.equal(live[name].view(torch.uint8), merged[name].view(torch.uint8)) for name in base)


@pytest.mark.parametrize("kind", [kind for kind in DENSE if kind not in ORDERED])
def test_the_order_of_the_experts_does_not_matter(kind: str) -> None:
    """Experts in another order, each with its own settings, give the same merge up to rounding."""
    base, experts = models(kind, torch.float32)
    knobs = {knob.name: knob for knob in make_operator(kind).KNOBS}
    given = (
        {"coefficient": dict(zip(experts, (0.9, 1.1, 1.2), strict=False))} if "coefficient" in knobs else {"scale": 0.7}
    )
    one = merge(kind, base, experts, given)
    other = merge(kind, base, dict(reversed(experts.items())), given)
    for name in base:
        torch.testing.assert_close(other[name], one[name], rtol=1e-4, atol=2e-5)
