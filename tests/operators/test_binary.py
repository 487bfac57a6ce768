"""What the compression operators promise beyond the contract and the golden case."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.merging import make_operator, merge, settings_of
from mergesearch.operators import t_switch
from mergesearch.operators.base import Compressed, Layout
from mergesearch.operators.passes import chunked as _chunked
from mergesearch.operators.passes import stream as _stream
from mergesearch.operators.passes.packing import mask_bytes

KINDS = ["bitdelta", "t_switch"]


def models(seed: int, count: int, dtype: torch.dtype = torch.float32):
    """A base of a matrix 'w', a vector 'b' and an embedding, and experts near it with some entries unchanged."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w": (13, 11), "b": (6,), "embed.weight": (5, 4)}
    base = {name: torch.randn(shape, generator=generator).mul_(0.1).to(dtype) for name, shape in shapes.items()}
    experts = []
    for _ in range(count):
        expert = {}
        for name, tensor in base.items():
            step = 0.02 * torch.randn(tensor.shape, generator=generator)
            expert[name] = (tensor.float() + step * (torch.rand(tensor.shape, generator=generator) > 0.2)).to(dtype)
        experts.append(expert)
    return base, experts


def prepared(kind: str, base, experts):
    """Operator, layout of one group, and what it prepares."""
    operator = make_operator(kind, {})
    layout = Layout(tuple(map(str, range(len(experts)))), ("g",), dict.fromkeys(base, 0))
    return operator, layout, operator.prepare(base, experts, layout)


def empty(base) -> dict[str, torch.Tensor]:
    """Memory for a candidate, full of NaN."""
    return {name: torch.full_like(tensor, math.nan) for name, tensor in base.items()}


def plain(kind: str, base, expert, density: float) -> torch.Tensor:
    """The coded change of 'w' straight from the description, in float64."""
    task = expert["w"].double() - base["w"].double()
    if kind == "bitdelta":
        return task.abs().mean() * torch.where(task >= 0, 1.0, -1.0)
    order = task.float().abs().flatten().argsort(descending=True, stable=True)[: int(density * task.numel())]
    active = torch.zeros(task.numel(), dtype=torch.bool)
    active[order] = True
    active = active.view(task.shape) & (task != 0)
    return task[active].norm() / math.sqrt(int(active.sum())) * active * task.sign()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3, 4, 8, 11])
def test_merge_is_the_sum_of_codes_on_both_paths(kind: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a direct evaluation; torch and compiled loops agree in every bit, for any number of planes."""
    for dtype in (torch.float32, torch.bfloat16):
        base, experts = models(count, count, dtype)
        weights = np.linspace(-0.4, 0.9, count)
        weights[count // 2] = 0.0
        knobs = {"coefficient": list(weights), "scale": 0.7}
        results = []
        for limit, chunk in ((1 << 62, 1 << 16), (1 << 62, 30), (0, 1 << 16)):
            monkeypatch.setattr(_stream, "_COMPILED_FROM", limit)
            monkeypatch.setitem(_chunked.CHUNK, "cpu", chunk)
            results.append(merge(kind, base, experts, knobs))
        for other in results[1:]:
            assert all(torch.equal(other[n].view(torch.uint8), t.view(torch.uint8)) for n, t in results[0].items())
        change = sum(w * plain(kind, base, e, 0.3) for w, e in zip(weights, experts, strict=True))
        wanted = (base["w"].double() + 0.7 * change).to(dtype)
        rtol = 1e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(results[0]["w"], wanted, rtol=rtol, atol=1e-6)
        for name in ("b", "embed.weight"):  # in full
            full = sum(w * (e[name].double() - base[name].double()) for w, e in zip(weights, experts, strict=True))
            torch.testing.assert_close(
                results[0][name], (base[name].double() + 0.7 * full).to(dtype), rtol=rtol, atol=1e-6
            )


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 99), expert=st.integers(0, 2), bfloat=st.booleans())
@settings(max_examples=10, deadline=None)
def test_rebuild_gives_each_expert_from_its_code(kind: str, seed: int, expert: int, bfloat: bool) -> None:
    """Matrices as the merge of that expert alone, all else its own values to the bit; no coefficient or scale read."""
    base, experts = models(seed, 3, torch.bfloat16 if bfloat else torch.float32)
    operator, layout, codes = prepared(kind, base, experts)
    assert operator.COMPRESSES
    assert isinstance(codes, Compressed)
    alone = [float(k == expert) for k in range(3)]
    merged, rebuilt = empty(base), empty(base)
    codes.apply(settings_of(operator, layout, {"coefficient": alone, "scale": 1.0}), list(base), merged)
    codes.rebuild(settings_of(operator, layout, {"coefficient": 0.1, "scale": 0.0}), expert, list(base), rebuilt)
    assert torch.equal(rebuilt["w"], merged["w"])
    assert all(torch.equal(rebuilt[name], experts[expert][name]) for name in ("b", "embed.weight"))


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_of_zero_give_the_base_and_order_does_not_matter(kind: str) -> None:
    """To the bit, zeros with a sign included; experts with their settings in another order up to rounding."""
    base, experts = models(3, 3)
    base["w"][0, 0] = -0.0
    got = merge(kind, base, experts, 0.0)
    assert all(torch.equal(got[n].view(torch.int32), t.view(torch.int32)) for n, t in base.items())
    one = merge(kind, base, experts, [0.1, 0.5, -0.2])
    two = merge(kind, base, experts[::-1], [-0.2, 0.5, 0.1])
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-7) for name in base)


def test_stored_bytes_count_codes_scalars_and_the_rest_in_full() -> None:
    """Signs a bit each, masks by their entropy, four bytes per matrix and expert, everything else as it is."""
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        base, experts = models(0, 3, dtype)
        rest = (6 + 20) * size
        operator, layout, codes = prepared("bitdelta", base, experts)
        assert codes.stored_bytes(settings_of(operator, layout, {})) == 3 * (math.ceil(143 / 8) + 4 + rest)
        operator, layout, codes = prepared("t_switch", base, experts)
        for density in (0.5, 0.1):
            kept = int(density * 143)
            coded = mask_bytes(kept, 143) + math.ceil(kept / 8)
            assert codes.stored_bytes(settings_of(operator, layout, {"density": density})) == 3 * (coded + 4 + rest)


@given(entries=st.integers(1, 4000), data=st.data())
def test_a_mask_takes_at_most_a_bit_per_entry_and_nothing_if_all_are_alike(entries: int, data: st.DataObject) -> None:
    """Its size is that of its complement, and as many bytes as are needed to tell all such masks apart, or more."""
    kept = data.draw(st.integers(0, entries))
    size = mask_bytes(kept, entries)
    assert size == mask_bytes(entries - kept, entries) <= -(-entries // 8)
    assert (size == 0) == (kept in (0, entries))
    assert 8 * size >= math.log2(math.comb(entries, kept)) - 1e-6


@given(seed=st.integers(0, 99), multiplier=st.floats(0.5, 1.5))
@settings(max_examples=15, deadline=None)
def test_the_mean_is_the_best_scale_for_signs(seed: int, multiplier: float) -> None:
    """No multiplier other than 1 rebuilds an expert more closely; an unchanged entry counts as positive."""
    base, experts = models(seed, 1)
    operator, layout, codes = prepared("bitdelta", base, experts)
    errors = []
    for factor in (1.0, multiplier):
        got = empty(base)
        codes.rebuild(settings_of(operator, layout, {"multiplier": factor}), 0, ["w"], got)
        errors.append(float((got["w"].double() - experts[0]["w"].double()).square().sum()))
    assert errors[0] <= errors[1] * (1 + 1e-5)
    scale, signs = codes.code(settings_of(operator, layout, {}), "w", 0)
    assert scale > 0
    assert (signs.view(13, 11)[experts[0]["w"] == base["w"]] == 1).all()


@given(seed=st.integers(0, 99), density=st.floats(0.02, 1))
@settings(max_examples=15, deadline=None)
def test_the_switch_keeps_the_length_of_what_is_marked(seed: int, density: float) -> None:
    """‖κ A P‖ = ‖A τ‖, at most int(density · N) entries are marked, the largest, and none that did not change."""
    base, experts = models(seed, 1)
    operator, layout, codes = prepared("t_switch", base, experts)
    kappa, signs = codes.code(settings_of(operator, layout, {"density": density}), "w", 0)
    task = (experts[0]["w"].double() - base["w"].double()).flatten()
    active = signs != 0
    assert int(active.sum()) == min(max(1, int(density * 143)), int((task != 0).sum()))
    assert float(task[active].abs().min()) >= float(task[~active].abs().max()) - 1e-9
    assert torch.equal(signs[active].double(), task[active].sign())
    assert kappa * math.sqrt(int(active.sum())) == pytest.approx(float(task[active].norm()), rel=1e-6)


def test_only_experts_of_another_density_are_coded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coefficients and scale cost a pass, a density its own expert in its own group."""
    calls, mark = [], t_switch.mark_largest
    monkeypatch.setattr(t_switch, "mark_largest", lambda *args: calls.append(1) or mark(*args))
    base, experts = models(0, 3)
    base |= {"v": base["w"] * 2}
    experts = [expert | {"v": expert["w"] * 3} for expert in experts]
    operator = make_operator("t_switch", {})
    layout = Layout(("x", "y", "z"), ("g", "h"), {"w": 0, "v": 1})
    codes = operator.prepare(base, experts, layout)
    for knobs, count in (
        ({"scale": 1.0}, 6),
        ({"scale": 0.2, "coefficient": 0.9}, 6),
        ({"density": {"g": [0.3, 0.5, 0.3], "h": 0.3}}, 7),
        ({"density": {"g": [0.3, 0.5, 0.3], "h": 0.6}}, 10),
    ):
        codes.apply(settings_of(operator, layout, knobs), ["w", "v"], empty(base))
        assert len(calls) == count


def test_bytes_remembered_are_declared() -> None:
    """A byte per entry of a matrix and eight experts, or four with two bits each."""
    shapes = {"w": (6, 8), "b": (8,), "lm_head.weight": (100, 8)}
    for kind, per in (("bitdelta", 8), ("t_switch", 4)):
        assert [make_operator(kind, {}).extra_bytes(shapes, count) for count in (1, per, per + 1)] == [48, 48, 96]
