"""Promises of the gradients that pass back through a merge."""

import math

import numpy as np
import pytest
import torch
from contracts.operator import DTYPES, make_models, make_operator, make_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mergesearch.building import CandidateBuilder
from mergesearch.errors import EvaluationError
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Differentiable, Layout, MergeOperator
from mergesearch.operators.passes import chunked
from mergesearch.plugins import load, parse_options

Tables = dict[str, NDArray[np.float64]]
ABLE = sorted(kind for kind in OPERATORS if load("operator", OPERATORS, kind).DIFFERENTIABLE)
VARIANTS = [
    ("task_arithmetic", {"normalize": True}),
    ("linear", {"normalize": False}),
    ("dare_linear", {"rescale": "l1_norm"}),
    ("dare_linear", {"normalize": True}),
    ("della_linear", {"rescale": "inverse_probability"}),
    ("breadcrumbs", {"normalize": True}),
    ("lines", {"of": "tsv_m"}),
    ("lines", {"of": "linear"}),
    ("wudi", {"at_base": ("emb",), "exclude": ("b.w",)}),
]


def with_options(kind: str, options: dict[str, object]) -> MergeOperator:
    """The operator with some options."""
    cls = load("operator", OPERATORS, kind)
    operator: MergeOperator = cls(parse_options(kind, cls.Options, options))
    return operator


def random_slopes(models: dict[str, torch.Tensor], seed: int = 0) -> dict[str, torch.Tensor]:
    """A slope for each tensor, of its shape and dtype."""
    rng = torch.Generator().manual_seed(seed)
    return {n: torch.randn(t.shape, generator=rng, dtype=torch.float64).to(t.dtype) for n, t in models.items()}


def pulled(operator: MergeOperator, seed: int) -> tuple[Tables, Tables, Tables]:
    """Settings, their gradient, and the one by central differences of `apply`, all in float64."""
    base, experts, layout = make_models(operator, torch.float64)
    prepared, at = operator.prepare(base, experts, layout), make_settings(operator, layout, seed)
    slopes = random_slopes(base)
    assert isinstance(prepared, Differentiable)
    exact = dict(prepared.pull_back(at, slopes))

    def loss(tables: Tables) -> float:
        into = {n: torch.empty_like(t) for n, t in base.items()}
        prepared.apply(tables, list(base), into)
        return math.fsum(float((into[n] * slopes[n]).sum()) for n in base)

    step, differences = 1e-5, {}
    for knob, gradient in exact.items():
        found = np.zeros_like(gradient)
        # A knob that varies less finely moves as a whole: only one of its cells has the gradient.
        cells = {"alpha": [(0, 0)], "beta": [(0, 0)]}.get(knob)
        coarse = knob in ("scale", "base_weight", "alpha", "beta")
        for g, k in cells or np.ndindex(found.shape[0], 1 if coarse else found.shape[1]):
            where = slice(None) if cells else (g, slice(None) if coarse else k)
            moved = [{**at, knob: at[knob].copy()} for _ in range(2)]
            for tables, sign in zip(moved, (1, -1), strict=True):
                tables[knob][where] += sign * step
            found[g, k] = (loss(moved[0]) - loss(moved[1])) / (2 * step)
        differences[knob] = found
    return at, exact, differences


@pytest.mark.parametrize("seed", [-1, 1, 2])
@pytest.mark.parametrize(
    ("kind", "options"), [*((kind, {}) for kind in ABLE), *VARIANTS], ids=lambda x: x if isinstance(x, str) else ""
)
def test_gradients_are_the_finite_differences_of_the_merge(kind: str, options: dict[str, object], seed: int) -> None:
    """Of every knob that is named, in float64."""
    _, exact, differences = pulled(with_options(kind, options), seed)
    assert exact
    for knob, gradient in exact.items():
        np.testing.assert_allclose(gradient, differences[knob], rtol=1e-6, atol=2e-7, err_msg=knob)


@given(seed=st.integers(0, 1000), normalize=st.booleans())
@settings(max_examples=40, deadline=None)
def test_gradients_are_those_of_autograd_through_the_merge(seed: int, normalize: bool) -> None:
    """For any layout of groups, empty tensors and scalars, and with tensors that have no slope."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    operator = with_options("task_arithmetic", {"normalize": normalize})
    shapes = [tuple(rng.integers(0, 9, rng.integers(0, 4)).tolist()) for _ in range(rng.integers(1, 7))]
    groups, experts = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    models = [
        {str(i): torch.randn(s, generator=generator, dtype=torch.float64) for i, s in enumerate(shapes)}
        for _ in range(experts + 1)
    ]
    group_of = {str(i): int(rng.integers(groups)) for i in range(len(shapes))}
    layout = Layout(tuple(map(str, range(experts))), tuple(map(str, range(groups))), group_of)
    at = {"coefficient": rng.uniform(0.1, 1.5, (groups, experts))}
    at["scale"] = np.repeat(rng.uniform(0, 2, (groups, 1)), experts, axis=1)
    leaves = {knob: torch.tensor(table, requires_grad=True) for knob, table in at.items()}
    reached = [n for n in group_of if rng.random() < 0.8]
    merged, loss = {}, 0.0 * sum(leaf.sum() for leaf in leaves.values())
    for n in reached:
        w, scale = leaves["coefficient"][group_of[n]], leaves["scale"][group_of[n], 0]
        change = sum(w[k] * (models[k + 1][n] - models[0][n]) for k in range(experts))
        merged[n] = models[0][n] + scale * change / (w.sum() if normalize else 1.0)
        merged[n].retain_grad()
        loss = loss + (torch.sin(merged[n]) ** 2).sum()
    loss.backward()
    slopes = {n: tensor.grad for n, tensor in merged.items()}
    found = operator.prepare(models[0], models[1:], layout).pull_back(at, slopes)  # type: ignore[attr-defined]
    for knob, leaf in leaves.items():
        np.testing.assert_allclose(found[knob], leaf.grad.numpy(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("kind", ABLE)
def test_every_dtype_is_summed_in_float64(kind: str, dtype: torch.dtype) -> None:
    """The gradient of models in a lower dtype is that of the same numbers in float64, however they are chunked."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, dtype)
    at, slopes = make_settings(operator, layout, 1), random_slopes(base)
    found = operator.prepare(base, experts, layout).pull_back(at, slopes)  # type: ignore[attr-defined]
    wide = [{n: t.double() for n, t in model.items()} for model in (base, *experts, slopes)]
    exact = operator.prepare(wide[0], wide[1:-1], layout).pull_back(at, wide[-1])  # type: ignore[attr-defined]
    assert set(found) == set(exact)
    for knob, table in exact.items():
        assert found[knob].dtype == np.float64
        np.testing.assert_allclose(found[knob], table, rtol=2e-4, atol=2e-4 * np.abs(table).max(), err_msg=knob)


@pytest.mark.parametrize("kind", ABLE)
def test_chunks_and_layout_of_a_slope_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks and slopes that are not contiguous give the same gradient up to the order of summation."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, torch.float32)
    at, slopes = make_settings(operator, layout, 2), random_slopes(base)
    prepared = operator.prepare(base, experts, layout)
    whole = prepared.pull_back(at, slopes)  # type: ignore[attr-defined]
    monkeypatch.setitem(chunked.CHUNK, "cpu", 100)
    turned = {n: t.T.contiguous().T if t.ndim == 2 else t for n, t in slopes.items()}
    parts = prepared.pull_back(at, turned)  # type: ignore[attr-defined]
    for knob, table in whole.items():
        np.testing.assert_allclose(parts[knob], table, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ABLE)
def test_nothing_is_changed_and_the_next_candidate_has_its_bits(kind: str) -> None:
    """Models and slopes stay as they are, also what `apply` writes before and after."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, torch.float32)
    slopes = random_slopes(base)
    copies = [{n: t.clone() for n, t in model.items()} for model in (base, *experts, slopes)]
    prepared = operator.prepare(base, experts, layout)
    found = []
    for _ in range(2):
        into = {n: torch.empty_like(t) for n, t in base.items()}
        prepared.apply(make_settings(operator, layout, 1), list(base), into)
        found.append(into)
        prepared.pull_back(make_settings(operator, layout, 2), slopes)  # type: ignore[attr-defined]
    assert all(torch.equal(found[0][n], found[1][n]) for n in base)
    for model, copy in zip((base, *experts, slopes), copies, strict=True):
        assert all(torch.equal(model[n], copy[n]) for n in copy)


def test_tied_weights_count_once() -> None:
    """Two names of one live tensor have one slope, the sum over its uses; it enters the gradient once."""
    base = {"embed": torch.zeros(4, 3), "head": torch.zeros(4, 3), "w": torch.zeros(3)}
    expert = {"embed": torch.ones(4, 3), "head": torch.ones(4, 3), "w": torch.ones(3)}
    live = {"embed": torch.empty(4, 3), "w": torch.empty(3)}
    live["head"] = live["embed"]
    layout = Layout(("x",), ("g",), dict.fromkeys(base, 0))
    builder = CandidateBuilder(make_operator("task_arithmetic"), base, [expert], layout, live)
    at = {"coefficient": np.full((1, 1), 0.5)}
    builder.build(at)
    slopes = {name: torch.ones_like(tensor) for name, tensor in live.items()}
    assert builder.pull_back(at, slopes)["coefficient"] == [[15.0]]


def test_an_operator_without_gradients_says_so() -> None:
    """With its name and what to do."""
    operator = make_operator("ties")
    base, experts, layout = make_models(operator, torch.float32)
    live = {n: torch.empty_like(t) for n, t in base.items()}
    builder = CandidateBuilder(operator, base, experts, layout, live)
    assert not builder.differentiable
    with pytest.raises(EvaluationError, match="operator Ties gives no gradients"):
        builder.pull_back({}, {})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ABLE)
def test_a_gpu_gives_the_gradient_of_the_cpu(kind: str) -> None:
    """Up to rounding of what the terms are made of."""
    operator = make_operator(kind)
    base, experts, layout = make_models(operator, torch.float32)
    at, slopes = make_settings(operator, layout, 1), random_slopes(base)
    found = []
    for device in ("cpu", "cuda"):
        models = [{n: t.to(device) for n, t in model.items()} for model in (base, *experts, slopes)]
        prepared = operator.prepare(models[0], models[1:-1], layout)
        found.append(prepared.pull_back(at, models[-1]))  # type: ignore[attr-defined]
    for knob, table in found[0].items():
        np.testing.assert_allclose(found[1][knob], table, rtol=1e-5, atol=1e-5 * np.abs(table).max())
