"""What the interference-minimising operators promise beyond the contract and the golden cases."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import EvaluationError
from mergesearch.merging import make_operator, merge, settings_of
from mergesearch.operators import doge, wudi
from mergesearch.operators.algebra import wudi_closed as _wudi_closed
from mergesearch.operators.algebra.wudi_closed import gram, rank, spectrum
from mergesearch.operators.base import Layout

RULES = ["ratio", "participation_sqrt", "participation", "stable_rank", "entropy", "cumvar", "gavish_donoho"]


def models(seed: int, count: int, size: float = 0.02, shape: tuple[int, int] = (7, 9)):
    """A base of one matrix 'w' and one vector 'b', and experts near it, in float64."""
    generator = torch.Generator().manual_seed(seed)
    base = {"w": torch.randn(shape, generator=generator).double(), "b": torch.randn(5, generator=generator).double()}
    experts = [
        {name: tensor + size * torch.randn(tensor.shape, generator=generator).double() for name, tensor in base.items()}
        for _ in range(count)
    ]
    return base, experts


def changes(base, experts):
    """Task vectors of 'w'."""
    return [expert["w"] - base["w"] for expert in experts]


WHOLE = {"rank_ratio": 1.0, "time": 1e5}
SOLVERS = [
    ("wudi", {"solver": "closed"}),
    ("wudi", {"solver": "closed", "init": "zero"}),
    ("wudi", {"solver": "adaptive", "init": "mean"}),
    ("wudi", {"solver": "gradient", "steps": 20}),
    ("optmerge", {"steps": 20, "at_base": ()}),
]


@pytest.mark.parametrize(("kind", "options"), SOLVERS)
@given(seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_one_expert_alone_is_that_expert(kind: str, options: dict[str, object], seed: int) -> None:
    """A change disturbs itself least; Adam swings about the minimum by about a step of 1e-5."""
    base, experts = models(seed, 1, shape=(9, 7))
    knobs = WHOLE | {"scale": 1.0} if kind == "wudi" else {"scale": 1.0}
    got = merge(kind, base, experts, knobs, **options)
    for name, tensor in experts[0].items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=2e-5 if "gradient" in options.values() else 2e-6)


@pytest.mark.parametrize(("kind", "options"), [*SOLVERS, ("doge", {"steps": 20})])
@given(seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
def test_the_order_of_experts_does_not_matter(kind: str, options: dict[str, object], seed: int) -> None:
    """Experts with their coefficients in another order give the same merge."""
    base, experts = models(seed, 3)
    got = merge(kind, base, experts, {"coefficient": [0.5, 1.0, 1.4]}, **options)
    turned = merge(kind, base, experts[::-1], {"coefficient": [1.4, 1.0, 0.5]}, **options)
    for name in base:
        torch.testing.assert_close(got[name], turned[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "options"), [*SOLVERS, ("doge", {"steps": 3})])
def test_coefficients_of_zero_give_the_base_and_one_leaves_its_expert_out(
    kind: str, options: dict[str, object]
) -> None:
    """In a matrix an expert of coefficient 0 is as good as absent."""
    base, experts = models(1, 3)
    got = merge(kind, base, experts, {"coefficient": 0.0}, **options)
    assert all(torch.equal(got[name], base[name]) for name in base)
    if kind != "doge":
        without = merge(kind, base, experts[:2], {"coefficient": [1.0, 2.0]}, **options)
        got = merge(kind, base, experts, {"coefficient": [1.0, 2.0, 0.0]}, **options)
        torch.testing.assert_close(got["w"], without["w"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["wudi", "optmerge"])
def test_a_coefficient_below_zero_is_refused(kind: str) -> None:
    """The loss would have no minimum."""
    base, experts = models(0, 2)
    with pytest.raises(EvaluationError, match="at least 0"):
        merge(kind, base, experts, {"coefficient": [1.0, -0.1]})


@pytest.mark.parametrize(("kind", "options"), [*SOLVERS, ("doge", {"steps": 20})])
@pytest.mark.parametrize("still", [1, 3])
def test_a_task_vector_of_zeros_does_no_harm(kind: str, options: dict[str, object], still: int) -> None:
    """No division by its norm: the result is finite, and the base if every expert is."""
    base, experts = models(2, 3)
    experts = [dict(base) for _ in range(still)] + experts[still:]
    got = merge(kind, base, experts, {"scale": 1.0}, **options)
    assert torch.isfinite(got["w"]).all()
    assert still < 3 or torch.equal(got["w"], base["w"])


@given(seed=st.integers(0, 99), weights=st.tuples(*[st.floats(0.2, 3)] * 3))
@settings(max_examples=15, deadline=None)
def test_the_closed_form_reaches_the_minimum(seed: int, weights: tuple[float, ...]) -> None:
    """With every eigenvector and all the time, the gradient of the loss is 0: M C = D."""
    base, experts = models(seed, 3, shape=(9, 6))
    got = merge("wudi", base, experts, WHOLE | {"coefficient": list(weights)})["w"] - base["w"]
    c, d = gram(changes(base, experts), weights)
    torch.testing.assert_close(got @ c, d, rtol=0, atol=1e-6 * float(d.abs().max()))


@given(seed=st.integers(0, 99), factor=st.floats(0.3, 3), time=st.floats(10, 1000), ratio=st.floats(0.3, 1))
@settings(max_examples=15, deadline=None)
def test_a_common_factor_of_the_coefficients_is_a_factor_of_the_time(
    seed: int, factor: float, time: float, ratio: float
) -> None:
    """It multiplies the eigenvalues and moves no minimum."""
    base, experts = models(seed, 2)
    weights = np.array([1.0, 0.6])
    knobs = {"rank_ratio": ratio, "coefficient": list(weights * factor), "time": time}
    got = merge("wudi", base, experts, knobs)["w"]
    wanted = merge("wudi", base, experts, knobs | {"coefficient": list(weights), "time": time * factor})["w"]
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-8)


def test_only_new_ratios_of_coefficients_are_factorised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale, rank_ratio, time and a common factor are served from what is remembered."""
    calls = []
    monkeypatch.setattr(wudi, "spectrum", lambda *args: calls.append(1) or spectrum(*args))
    base, experts = models(0, 2)
    operator, layout = make_operator("wudi", {}), Layout(("x", "y"), ("g", "h"), {"w": 0, "b": 1})
    prepared = operator.prepare(base, experts, layout)
    into = {name: torch.empty_like(tensor) for name, tensor in base.items()}
    for knobs, count in (
        ({}, 1),
        ({"scale": 0.3}, 1),
        ({"rank_ratio": 0.5}, 1),
        ({"time": 20.0}, 1),
        ({"coefficient": 0.3}, 1),
        ({"coefficient": {"h": [1.0, 2.0]}}, 1),
        ({"coefficient": [1.0, 2.0]}, 2),
        ({"coefficient": [0.1, 0.2]}, 2),
    ):
        prepared.apply(settings_of(operator, layout, knobs or {"scale": 1.0}), list(base), into)
        assert len(calls) == count


def test_the_closed_form_has_no_scale_and_the_gradient_form_has() -> None:
    """Task vectors ten times as large give ten times the change; Adam moves none by more than about steps · rate."""
    for solver, grows in (("closed", True), ("adaptive", True), ("gradient", False)):
        small, large = (models(3, 3, size) for size in (1e-3, 1e-2))
        got = [merge("wudi", *m, {"scale": 1.0}, solver=solver)["w"] - m[0]["w"] for m in (small, large)]
        assert torch.allclose(got[1], 10 * got[0], rtol=1e-6, atol=1e-12) == grows
    base, experts = models(3, 3, 1.0)
    moved = merge("wudi", base, experts, {"scale": 1.0}, solver="gradient")["w"] - base["w"]
    assert 1e-3 < float((moved - sum(changes(base, experts))).abs().max()) <= 300 * 1e-5 * 1.1


def descend(base, experts, optimizer, start, loss, steps: int) -> torch.Tensor:
    """A loss minimised by automatic differentiation, as the references do it."""
    parameter = torch.nn.Parameter(start.clone())
    stepper = optimizer([parameter])
    for _ in range(steps):
        stepper.zero_grad()
        loss(parameter).backward()
        stepper.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_gradient_forms_are_the_loops_of_their_papers(shape: tuple[int, int]) -> None:
    """Adam on the loss of WUDI, and SGD with momentum on that of OptMerge with its coefficients."""
    base, experts = models(5, 3, shape=shape)
    tasks, weights = changes(base, experts), (1.0, 0.5, 2.0)
    parts = [torch.linalg.svd(task, full_matrices=False) for task in tasks]
    keep = min(shape) // 3
    low = [(u[:, :keep] * s[:keep]) @ v[:keep] for u, s, v in parts]
    guides = [s[:keep, None] * v[:keep] for _, s, v in parts]

    def full(m: torch.Tensor) -> torch.Tensor:
        return sum(w * ((m - t) @ t.T).square().sum() / t.square().sum() for t, w in zip(tasks, weights, strict=True))

    def guided(m: torch.Tensor) -> torch.Tensor:
        terms = zip(tasks, low, guides, weights, strict=True)
        return sum(w * ((m - cut) @ g.T).square().sum() / t.square().sum() for t, cut, g, w in terms)

    wanted = descend(base, experts, lambda p: torch.optim.Adam(p, lr=1e-5), sum(tasks), full, 30)
    got = merge("wudi", base, experts, {"coefficient": list(weights)}, solver="gradient", steps=30)["w"]
    torch.testing.assert_close(got - base["w"], wanted, rtol=0, atol=1e-9)
    mean = sum(tasks) / 3
    wanted = descend(base, experts, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), mean, guided, 30)
    got = merge("optmerge", base, experts, {"coefficient": list(weights)}, steps=30, learning_rate=0.01)["w"]
    torch.testing.assert_close(got - base["w"], wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@given(values=st.lists(st.floats(0, 3), min_size=1, max_size=12), share=st.floats(0.01, 1))
@settings(max_examples=40, deadline=None)
def test_rank_rules_keep_at_least_one_and_at_most_all(rule: str, values: list[float], share: float) -> None:
    """Whatever the spectrum, all of it zeros included."""
    found = rank(torch.tensor(sorted(values), dtype=torch.float64), (5, len(values)), rule, share, share)
    assert 1 <= found <= len(values)


def test_rank_rules_on_known_spectra() -> None:
    """A flat spectrum is kept whole, a single direction alone; shares count from the largest."""
    flat, single = torch.full((8,), 0.5).double(), torch.tensor([0.0] * 7 + [1.0]).double()
    for rule in ("participation_sqrt", "participation", "stable_rank", "entropy"):
        assert rank(flat, (8, 8), rule, 1.0, 1.0) in (8, 9)
        assert rank(single, (8, 8), rule, 1.0, 1.0) <= 2
    falling = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    assert [rank(falling, (4, 4), "cumvar", 1.0, share) for share in (0.3, 0.5, 0.75, 0.95)] == [1, 2, 3, 4]
    assert [rank(falling, (4, 4), "ratio", ratio, 1.0) for ratio in (0.25, 0.26, 0.65, 1.0)] == [1, 2, 3, 4]
    assert rank(torch.tensor([0.01, 0.01, 0.01, 9.0]).double(), (4, 4), "gavish_donoho", 1.0, 1.0) == 1


def test_tensors_left_out_get_the_mean_change_or_stay() -> None:
    """`exclude` and vectors: Σ w τ / K; `at_base` and the defaults of optmerge: the base, to the bit."""
    base, experts = models(6, 2)
    mean = base["w"] + (1.0 * (experts[0]["w"] - base["w"]) + 0.5 * (experts[1]["w"] - base["w"])) / 2
    for kind in ("wudi", "optmerge"):
        got = merge(kind, base, experts, {"coefficient": [1.0, 0.5]}, exclude=["w"], at_base=["b"])
        torch.testing.assert_close(got["w"], mean)
        assert torch.equal(got["b"], base["b"])
    named = {
        "model.embed_tokens.weight": base["w"],
        "l.0.input_layernorm.weight": base["b"],
        "q.bias": base["b"].clone(),
    }
    others = [{name: tensor + 1.0 for name, tensor in named.items()}]
    assert all(torch.equal(t, named[n]) for n, t in merge("optmerge", named, others, 1.0).items())
    assert all(torch.equal(t, named[n]) for n, t in merge("doge", named, others, 1.0, steps=1).items())


def test_a_knob_of_one_group_reaches_only_that_group() -> None:
    """rank_ratio of one group leaves the bits of another's tensors."""
    base, experts = models(7, 2)
    base |= {"v": base["w"] * 2}
    experts = [expert | {"v": expert["w"] * 3} for expert in experts]
    one = merge("wudi", base, experts, {"rank_ratio": {"v": 0.3, "w": 0.9}}, groups="tensor")
    two = merge("wudi", base, experts, {"rank_ratio": {"v": 0.9, "w": 0.9}}, groups="tensor")
    assert torch.equal(one["w"], two["w"])
    assert not torch.equal(one["v"], two["v"])


def corrected(base, experts, eta: float, divisor: int, share: float, weights, steps: int) -> torch.Tensor:
    """DOGE of one matrix straight from its description, by automatic differentiation."""
    tasks = changes(base, experts)
    lambdas, short = [eta / task.norm() for task in tasks], min(tasks[0].shape)
    left = [torch.linalg.svd(task, full_matrices=False)[0][:, : short // len(tasks)] for task in tasks]
    shared = torch.linalg.svd(torch.cat(left, dim=1), full_matrices=False)[0][:, : short // divisor]
    delta = torch.nn.Parameter(torch.zeros_like(tasks[0]))
    optimizer = torch.optim.Adam([delta], lr=1e-4)
    merged, total = sum(t * w for t, w in zip(tasks, lambdas, strict=True)), sum(lambdas)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((t * (t - merged - delta * total)).sum(dim=1).square().sum() for t in tasks).backward()
        delta.grad -= shared @ (shared.T @ delta.grad)
        optimizer.step()
    kept = []
    for task in tasks:
        count = min(int(share * task.numel()) + 1, task.numel())
        kept.append(task.abs() >= task.abs().flatten().sort(descending=True).values[count - 1])
    terms = zip(tasks, lambdas, kept, weights, strict=True)
    return base["w"] + sum(w * x * m * (t + delta.detach()) for t, x, m, w in terms)


@given(
    seed=st.integers(0, 99),
    eta=st.floats(0.02, 0.3),
    divisor=st.integers(2, 12),
    share=st.floats(0.1, 1),
    tall=st.booleans(),
)
@settings(max_examples=10, deadline=None)
def test_doge_is_its_description(seed: int, eta: float, divisor: int, share: float, tall: bool) -> None:
    """Against a direct evaluation, coefficients as factors on the experts' weights."""
    base, experts = models(seed, 3, shape=(14, 12) if tall else (12, 14))
    experts = [{name: tensor.float().double() for name, tensor in expert.items()} for expert in experts]
    knobs = {"eta": eta, "subspace": divisor, "density": share, "coefficient": [1.0, 0.5, 1.5]}
    got = merge("doge", base, experts, knobs, steps=20)
    wanted = corrected(base, experts, eta, divisor, share, (1.0, 0.5, 1.5), 20)
    torch.testing.assert_close(got["w"], wanted, rtol=0, atol=1e-8)
    assert torch.equal(got["b"], base["b"])


def test_doge_learns_anew_only_for_another_eta_or_subspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coefficients, scale and density cost a pass."""
    calls, adam = [], doge.adam
    monkeypatch.setattr(doge, "adam", lambda *args: calls.append(1) or adam(*args))
    base, experts = models(0, 2)
    operator, layout = make_operator("doge", {"steps": 2}), Layout(("x", "y"), ("g",), {"w": 0, "b": 0})
    prepared = operator.prepare(base, experts, layout)
    into = {name: torch.empty_like(tensor) for name, tensor in base.items()}
    for knobs, count in (
        ({"scale": 1.0}, 1),
        ({"scale": 0.5, "coefficient": [0.2, 0.9], "density": [0.5, 0.7]}, 1),
        ({"eta": 0.1}, 2),
        ({"eta": 0.1, "subspace": 2}, 3),
    ):
        prepared.apply(settings_of(operator, layout, knobs), list(base), into)
        assert len(calls) == count


def test_bytes_remembered_are_declared() -> None:
    """Eigenvectors, start, target and change of each matrix in float32; nothing for vectors and excluded names."""
    shapes = {"a.w": (6, 8), "b": (8,), "lm_head.weight": (100, 8)}
    for kind, options, wanted in (
        ("wudi", {}, 4 * (3 * 48 + 64 + 8)),
        ("wudi", {"solver": "gradient"}, 4 * 48),
        ("optmerge", {}, 4 * 48),
        ("doge", {}, 5 * 48),
    ):
        assert make_operator(kind, options).extra_bytes(shapes, 3) == wanted
    assert _wudi_closed.SMALLEST == 1e-8
