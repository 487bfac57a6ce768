"""What the spectral operators promise beyond the contract: their formulas, and what the cards warn of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import SpecError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.algebra.spectral import flattened, for_each, polar, rank_of, ratios_of, svd
from mergesearch.operators.base import Layout
from mergesearch.operators.dc_merge import kth_largest, smoothed
from mergesearch.operators.iso import split
from mergesearch.operators.opcm import cleaned
from mergesearch.operators.r_tsvm import balance, outlying

KINDS = ("tsv_m", "r_tsvm", "iso_c", "iso_cts", "dc_merge", "opcm")
Model = dict[str, torch.Tensor]
seeds = st.integers(0, 2**16)


def noise(seed: int, *shape: int, rank: int | None = None) -> torch.Tensor:
    """A random float64 matrix, of low rank if one is given."""
    rng = torch.Generator().manual_seed(seed)
    if rank is not None:
        left, right = (torch.randn(n, rank, generator=rng, dtype=torch.float64) for n in shape)
        return left @ right.T
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def family(seed: int, count: int = 3, shape: tuple[int, int] = (12, 9), rank: int | None = None) -> list[Model]:
    """A base and its experts in float64: a matrix, a vector, and an embedding."""
    base = {"m": noise(seed, *shape), "bias": noise(seed + 1, 5), "embed": noise(seed + 2, 7, 4)}
    changes = [
        {"m": noise(seed + 9 * k, *shape, rank=rank), "bias": noise(seed + 9 * k + 1, 5), "embed": noise(k, 7, 4)}
        for k in range(1, count + 1)
    ]
    return [base, *({n: t + 0.1 * change[n] for n, t in base.items()} for change in changes)]


def change(kind: str, models: list[Model], knobs: dict[str, object], **options: object) -> Model:
    """What a merge adds to the base."""
    base, *experts = models
    merged = merge(kind, base, experts, knobs, **options)  # type: ignore[arg-type]
    return {n: merged[n] - base[n] for n in base}


def tau(models: list[Model], name: str = "m") -> list[torch.Tensor]:
    """The task vectors."""
    return [expert[name] - models[0][name] for expert in models[1:]]


def close(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-9) -> None:
    """Equal up to rounding."""
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@given(seed=seeds, rows=st.integers(1, 9), cols=st.integers(1, 9), rank=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_svd_gives_the_matrix_back_to_its_numerical_rank(seed: int, rows: int, cols: int, rank: int) -> None:
    """Orthonormal sides, falling values, no direction beyond the rank; a matrix of zeros has none."""
    matrix = noise(seed, rows, cols, rank=rank) if rank else torch.zeros(rows, cols, dtype=torch.float64)
    found = svd(matrix)
    assert len(found.s) <= min(rank, rows, cols)
    assert bool((found.s[1:] <= found.s[:-1]).all())
    close(found.sum(), matrix, 1e-5)
    for side in (found.u, found.v):
        close(side.T @ side, torch.eye(len(found.s), dtype=torch.float64), 1e-3)
    wanted = torch.linalg.svdvals(matrix)[: len(found.s)]
    close(found.s, wanted, 1e-6)


@given(seed=seeds, rows=st.integers(1, 9), cols=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_polar_factor_is_that_of_the_singular_value_decomposition(seed: int, rows: int, cols: int) -> None:
    """A Bᵀ of X = A Σ Bᵀ, for tall and wide X."""
    x = noise(seed, rows, cols)
    a, s, b = torch.linalg.svd(x, full_matrices=False)
    if float(s.min() / s.max()) > 1e-3:
        close(polar(x), a @ b, 1e-7)


def test_polar_factor_of_repeated_columns_has_no_arbitrary_directions() -> None:
    """[U U] gives [U U] / √2, where a full decomposition would fill up with whatever it finds."""
    u = torch.linalg.qr(noise(0, 8, 3)).Q
    close(polar(torch.cat([u, u], dim=1)), torch.cat([u, u], dim=1) / 2**0.5)


def test_work_on_several_matrices_keeps_their_order_and_the_number_of_threads() -> None:
    """`for_each` returns in the order of its items, and none for none."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    assert for_each(range(20), lambda i: (i, torch.get_num_threads())) == [(i, 1) for i in range(20)]
    assert for_each([], lambda i: i) == []
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_the_order_of_experts_decides_nothing(kind: str, seed: int) -> None:
    """Permuted experts with their settings give the same merge; for OPCM where they arrive as before."""
    base, *experts = family(seed)
    knobs: dict[str, list[float]] = {"coefficient": [0.5, 1.0, 1.5]}
    if kind == "opcm":
        knobs["arrival"] = [0.3, 0.1, 0.9]
    if kind == "dc_merge":
        knobs["density"] = [0.3] * 3
    order = [2, 0, 1]
    turned = {knob: [values[k] for k in order] for knob, values in knobs.items()}
    got, wanted = (
        merge(kind, base, chosen, table)
        for chosen, table in (([experts[k] for k in order], turned), (experts, knobs))  # type: ignore[list-item]
    )
    for name in base:
        close(got[name], wanted[name], 1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_coefficients_give_the_base_to_the_bit(kind: str) -> None:
    """Nothing is added, whatever the other knobs say."""
    models = family(3)
    assert all(torch.equal(t, torch.zeros_like(t)) for t in change(kind, models, {"coefficient": 0.0}).values())


@pytest.mark.parametrize("kind", KINDS)
def test_one_expert_whose_coefficient_is_zero_does_not_disturb(kind: str) -> None:
    """Every entry stays finite, with any one of the experts left out."""
    for left_out in range(3):
        weights = [float(k != left_out) for k in range(3)]
        assert all(bool(t.isfinite().all()) for t in change(kind, family(4), {"coefficient": weights}).values())


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_no_matrices_get_the_mean_change(kind: str) -> None:
    """Vectors and, by default, embeddings: Σ w τ / K; for OPCM their sum, rescaled with all the rest."""
    models, weights = family(5), [0.5, 1.0, 0.25]
    got = change(kind, models, {"coefficient": weights, "scale": 0.5})
    for name in ("bias", "embed"):
        wanted = sum(w * t for w, t in zip(weights, tau(models, name), strict=True))
        factor = float((got[name] / wanted).flatten()[0]) if kind == "opcm" else 0.5 / 3
        close(got[name], factor * wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_exclude_decides_what_is_a_matrix(kind: str) -> None:
    """With no pattern an embedding is treated as any matrix; with one, a matrix as an embedding."""
    models = family(6)
    assert not torch.allclose(*(change(kind, models, {"scale": 1.0}, exclude=e)["embed"] for e in ((), ("emb*",))))
    plain = change(kind, models, {"scale": 1.0}, exclude=("m", "embed"))["m"]
    total = torch.stack(tau(models)).sum(dim=0)
    close(plain / plain.norm(), total / total.norm())


@pytest.mark.parametrize("kind", ["tsv_m", "r_tsvm", "opcm"])
def test_one_expert_of_coefficient_one_is_that_expert(kind: str) -> None:
    """Its directions are orthogonal already; the first arrival is taken whole."""
    base, expert, *_ = family(7)
    merged = merge(kind, base, [expert], {"coefficient": 1.0})
    for name in base:
        close(merged[name], expert[name])


@pytest.mark.parametrize("kind", KINDS)
def test_experts_that_changed_other_rows_and_columns_do_not_disturb_each_other(kind: str) -> None:
    """Low-rank changes in orthogonal spaces: no noise direction is lifted, and nothing leaks between the blocks."""
    base = {"m": torch.zeros(12, 12, dtype=torch.float64)}
    experts = []
    for k in range(3):
        matrix = torch.zeros(12, 12, dtype=torch.float64)
        block = slice(4 * k, 4 * k + 4)
        matrix[block, block] = noise(k, 4, 4, rank=2)
        experts.append({"m": matrix})
    got = change(kind, [base, *experts], {"density": 1.0} if kind == "dc_merge" else {"scale": 1.0})["m"]
    rank = int((torch.linalg.svdvals(got) > 1e-9).sum())
    assert rank == 6
    for k in range(3):
        got[4 * k : 4 * k + 4, 4 * k : 4 * k + 4] = 0
    close(got, torch.zeros_like(got))
    if kind in ("tsv_m", "dc_merge", "opcm"):
        whole = change(kind, [base, *experts], {"density": 1.0} if kind == "dc_merge" else {"scale": 1.0})["m"]
        total = sum(expert["m"] for expert in experts)
        close(whole / whole.norm(), total / total.norm(), 1e-7)


@given(seed=seeds, weights=st.lists(st.floats(-2, 2), min_size=3, max_size=3))
@settings(max_examples=15, deadline=None)
def test_tsv_m_is_linear_in_the_coefficients_of_any_sign(seed: int, weights: list[float]) -> None:
    """merged(w) = Σ w_i merged(e_i)."""
    models = family(seed)
    got = change("tsv_m", models, {"coefficient": weights})["m"]
    units = [change("tsv_m", models, {"coefficient": [float(i == k) for i in range(3)]})["m"] for k in range(3)]
    close(got, sum(w * unit for w, unit in zip(weights, units, strict=True)), 1e-6)


def test_tsv_m_of_copies_with_all_directions_is_the_expert() -> None:
    """Two identical experts share every direction evenly."""
    base, expert, *_ = family(8)
    merged = merge("tsv_m", base, [expert, expert], {"rank_share": 2.0})
    close(merged["m"], expert["m"])


@pytest.mark.parametrize("shape", [(12, 9), (9, 12), (8, 8)])
@pytest.mark.parametrize("share", [0.5, 1.0, 1.7])
def test_tsv_m_follows_its_formula(shape: tuple[int, int], share: float) -> None:
    """Polar factors of the leading vectors side by side, at every rank share."""
    models = family(9, shape=shape)
    parts = [torch.linalg.svd(t, full_matrices=False) for t in tau(models)]
    k = max(1, int(min(shape) * share / 3))
    u, s, v = torch.linalg.svd(torch.cat([p[0][:, :k] for p in parts], dim=1), full_matrices=False)
    left = u @ v
    u, s, v = torch.linalg.svd(torch.cat([p[2][:k] for p in parts]), full_matrices=False)
    wanted = left @ torch.diag(torch.cat([p[1][:k] for p in parts])) @ (u @ v)
    close(change("tsv_m", models, {"rank_share": share})["m"], wanted, 1e-6)
    assert len(s) == min(3 * k, shape[1])


def test_tsv_m_without_its_vectors_gives_the_same_bits() -> None:
    """`keep_vectors: false` saves memory and changes nothing else."""
    models, operators = family(20), [make_operator("tsv_m", {"keep_vectors": keep}) for keep in (True, False)]
    got = [change("tsv_m", models, {"rank_share": 0.7}, keep_vectors=keep)["m"] for keep in (True, False)]
    assert torch.equal(*got)
    large, small = (operator.extra_bytes({"m": (12, 9)}, 3) for operator in operators)
    assert small == 4 * 3 * 12 * 9 < large


def test_rank_divides_whole_numbers_and_is_never_nothing() -> None:
    """49 · (1 / 49) is below 1 in floating point, 49 / 49 is not; convolutions count their flattened side."""
    assert rank_of((49, 60), 49, 1.0) == 1
    assert rank_of((5, 60), 8, 1.0) == 1
    assert rank_of((576, 64, 3), 3, 1.0) == 64
    assert rank_of((4, 4), 1, 2.0) == 4


def test_r_tsvm_trusts_experts_with_outliers() -> None:
    """Weights sum to K and follow the outliers; equal or no outliers, or a high temperature, leave all alike."""
    assert balance([0.01, 0.01], 1.0) == pytest.approx([1.0, 1.0])
    assert balance([0.0, 0.0], 1.0) == [1.0, 1.0]
    skewed, mild = balance([0.03, 0.01], 1.0), balance([0.03, 0.01], 10.0)
    assert sum(skewed) == pytest.approx(2.0)
    assert skewed[0] > mild[0] > 1.0
    spiky = torch.ones(2, 100, dtype=torch.float64)
    spiky[0, 0] = 50.0
    assert outlying(spiky, 3.0) == pytest.approx(1 / 200)


def test_r_tsvm_gives_dense_layers_more_rank() -> None:
    """A sparse layer falls to the floor, what it gives up goes to the dense one; dense alike is TSV-M."""
    base = {n: torch.zeros(30, 30, dtype=torch.float64) for n in ("dense", "sparse")}
    experts = [{"dense": noise(k, 30, 30), "sparse": noise(k + 9, 30, 30)} for k in range(3)]
    for expert in experts:
        expert["sparse"][:, 3:] = 0
    layout = Layout(tuple("xyz"), ("g",), dict.fromkeys(base, 0))
    prepared = make_operator("r_tsvm", {}).prepare(base, experts, layout)
    assert prepared.rank("dense", 0.0) > 10 > prepared.rank("sparse", 0.0)  # type: ignore[attr-defined]
    assert prepared.rank("sparse", 1.0) == 10  # type: ignore[attr-defined]
    models = family(10)
    alike = {"temperature": 10.0, "outlier": 4.0}  # no entry is so far out
    close(change("r_tsvm", models, alike, sparsity_threshold=0.0)["m"], change("tsv_m", models, {"scale": 1.0})["m"])


@given(seed=seeds, rho=st.floats(0, 1), factor=st.floats(0.1, 2))
@settings(max_examples=15, deadline=None)
def test_iso_c_flattens_the_sum(seed: int, rho: float, factor: float) -> None:
    """S^(1-ρ) of the same sum: at 1 all at the mean, at 0 plain task arithmetic. A common factor factors out."""
    models = family(seed)
    got = change("iso_c", models, {"coefficient": factor, "flattening": rho})["m"]
    u, s, v = torch.linalg.svd(factor * sum(tau(models)), full_matrices=False)
    powered = s ** (1 - rho)
    close(got, u @ torch.diag(powered * s.sum() / powered.sum()) @ v, 1e-6)
    close(change("iso_c", models, {"flattening": 0.0})["m"], sum(tau(models)), 1e-7)


def test_iso_remembers_what_a_common_factor_does_not_change() -> None:
    """Coefficients in the same ratio have the same key."""
    assert ratios_of([0.5, 0.5]) == ((1.0, 1.0), 0.5)
    assert ratios_of([0.3, -0.6]) == ((-0.5, 1.0), -0.6)
    assert ratios_of([0.0, 0.0]) == ((0.0, 0.0), 0.0)


@pytest.mark.parametrize("kind", ["iso_c", "iso_cts"])
def test_iso_does_not_lift_noise(kind: str) -> None:
    """Low-rank changes in float32 stay low-rank: rounding is not amplified to the mean."""
    models = [{"m": m["m"].float()} for m in family(11, shape=(40, 30), rank=2)]
    for k in range(1, 4):
        models[k]["m"] = (models[0]["m"].double() + 0.1 * noise(k, 40, 30, rank=2)).float()
    values = torch.linalg.svdvals(change(kind, models, {"scale": 1.0})["m"].double())
    assert float(values[5]) > 0.1 * float(values[0])
    assert float(values[6]) < 1e-4 * float(values[0])


def test_iso_cts_with_everything_common_is_iso_c() -> None:
    """f = 1 leaves no task part."""
    models = family(12)
    close(change("iso_cts", models, {"fraction": 1.0})["m"], change("iso_c", models, {"scale": 1.0})["m"], 1e-7)


def test_iso_cts_rounds_halves_to_even_and_leaves_no_less_than_nothing() -> None:
    """2.5 directions each are 2, 1.5 are 2; what is over is common."""
    assert split(10, 0.5, 2) == (6, 2)
    assert split(10, 0.7, 2) == (6, 2)
    assert split(16, 0.8, 3) == (13, 1)
    assert split(3, 0.4, 2) == (1, 1)
    assert split(5, 0.4, 2) == (1, 2)


def test_iso_cts_projects_on_the_left_alone() -> None:
    """The formula, step by step, with coefficients."""
    models, weights, n = family(13), [0.5, 1.0, 2.0], 3
    tasks = [w * t for w, t in zip(weights, tau(models), strict=True)]
    common, each = split(9, 0.6, n)
    u, s, v = torch.linalg.svd(sum(tasks), full_matrices=False)
    us, ss, vs = [], [], []
    for task in tasks:
        a, b, c = torch.linalg.svd(task - u[:, :common] @ u[:, :common].T @ task, full_matrices=False)
        us.append(a[:, :each]), ss.append(b[:each]), vs.append(c[:each])
    x = torch.cat([*us, u[:, :common]], dim=1)
    y = torch.cat([*vs, v[:common]])
    mean = torch.cat([*ss, s[:common]]).mean()
    sides = [a @ b for a, _, b in (torch.linalg.svd(z, full_matrices=False) for z in (x, y))]
    got = change("iso_cts", models, {"coefficient": weights, "fraction": 0.6})["m"]
    close(got, mean * sides[0] @ sides[1], 1e-6)


@given(values=st.lists(st.floats(0.1, 10), min_size=1, max_size=8), ratio=st.floats(1, 20), rho=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_smoothing_keeps_the_sum_of_a_spectrum(values: list[float], ratio: float, rho: float) -> None:
    """'average' makes it flat, 'linear' no steeper than it was nor than `ratio`; flattening keeps the sum as well."""
    s = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    flat, linear = smoothed(s, "average", ratio), smoothed(s, "linear", ratio)
    close(flat, s.mean().expand_as(s))
    steepness = float(linear[0] / linear[-1])
    assert steepness <= min(ratio, float(s[0] / s[-1])) * (1 + 1e-9)
    for other in (linear, flattened(s, rho)):
        close(other.sum(), s.sum())
    assert torch.equal(smoothed(s, "none", ratio), s)
    assert torch.equal(flattened(s, 0.0), s)


@pytest.mark.parametrize("smoothing", ["none", "average", "linear"])
@pytest.mark.parametrize(("rank", "density"), [(None, 0.2), (2, 0.3), (None, 1e-4)])
def test_dc_merge_follows_its_formula(smoothing: str, rank: int | None, density: float) -> None:
    """Step by step with coefficients: cover, cores, largest entries, election, blocks."""
    models, weights, n, side = family(14), [0.5, 1.0, 2.0], 3, 9
    k = rank or side // n
    parts = [torch.linalg.svd(t, full_matrices=False) for t in tau(models)]
    x, y = torch.cat([p[0][:, :k] for p in parts], dim=1), torch.cat([p[2][:k] for p in parts])
    left, right = (a @ b for a, _, b in (torch.linalg.svd(z, full_matrices=False) for z in (x, y)))
    count = max(1, int(density * (side if rank is None else n * k) ** 2))
    kept = []
    for w, (u, s, v) in zip(weights, parts, strict=True):
        core = left.T @ u[:, :k] @ torch.diag(smoothed(s[:k], smoothing, 5.0)) @ v[:k] @ right.T
        limit = core.abs().flatten().sort(descending=True).values[count - 1]
        kept.append(w * core * (core.abs() >= limit))
    stacked = torch.stack(kept)
    agree = stacked.sign() == stacked.sum(0).sign()
    merged = (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)
    merged *= torch.block_diag(*[torch.ones(k, k, dtype=torch.float64)] * n)
    knobs = {"coefficient": weights, "density": density}
    got = change("dc_merge", models, knobs, smoothing=smoothing, rank=rank)["m"]
    close(got, left @ merged @ right, 1e-6)


def test_dc_merge_finds_the_same_threshold_either_way() -> None:
    """Few or many entries: the k-th largest magnitude, and 0 where there are fewer than k."""
    core = noise(15, 40, 40)
    ranked = core.abs().flatten().sort(descending=True).values
    assert [kth_largest(core, k) for k in (1, 12, 13, 800, 1600)] == [
        float(ranked[k - 1]) for k in (1, 12, 13, 800, 1600)
    ]
    assert kth_largest(core, 1601) == 0.0


def literal_opcm(tasks: list[list[torch.Tensor]], matrices: int, alpha: float) -> list[torch.Tensor]:
    """OPCM as published, with its rescaling after every arrival; `tasks`[expert][tensor], matrices first."""
    merged, scale = list(tasks[0]), 1.0
    norms = [sum(float(t.square().sum()) for t in task) ** 0.5 for task in tasks]
    for t, task in enumerate(tasks[1:], start=1):
        added = []
        for i, (before, new) in enumerate(zip(merged, task, strict=True)):
            if i < matrices:
                u, s, vh = torch.linalg.svd(before, full_matrices=True)
                r = int((s.cumsum(0) / s.sum() > alpha).double().argmax())
                inner = u.T @ new @ vh.T
                inner.diagonal().zero_()
                inner[:r, :r] = 0
                new = u @ inner @ vh
            added.append(scale * before + new)
        mean = float(np.mean(norms[: t + 1]))
        scale = sum(float(x.square().sum()) for x in added) ** 0.5 / mean
        merged = [x / scale for x in added]
    return merged


@given(seed=seeds, alpha=st.floats(0.1, 0.95))
@settings(max_examples=15, deadline=None)
def test_opcm_equals_the_published_sequence(seed: int, alpha: float) -> None:
    """One factor at the end gives what rescaling after every arrival gives, with orders and coefficients."""
    base, *experts = family(seed)
    weights, arrival = [0.5, 2.0, 1.0], [0.9, 0.2, 0.4]
    names, order = ["m", "bias", "embed"], [1, 2, 0]
    tasks = [[weights[k] * (experts[k][n] - base[n]) for n in names] for k in order]
    wanted = literal_opcm(tasks, 1, alpha)
    got = change("opcm", [base, *experts], {"coefficient": weights, "arrival": arrival, "alpha": alpha})
    for name, tensor in zip(names, wanted, strict=True):
        close(got[name], tensor, 1e-5)


def test_opcm_has_the_mean_norm_of_the_task_vectors_and_adds_only_what_is_new() -> None:
    """‖merged - base‖ = mean ‖τ‖; in the basis so far an arrival has no leading block and no diagonal."""
    models = family(16)
    norms = [sum(float(t.square().sum()) for t in (tau(models, n)[k] for n in models[0])) ** 0.5 for k in range(3)]
    got = change("opcm", models, {"alpha": 0.5})
    assert sum(float(t.square().sum()) for t in got.values()) ** 0.5 == pytest.approx(np.mean(norms))
    before, task = tau(models)[:2]
    new, found = cleaned(task, before, 0.5), svd(before)
    inner = found.u.T @ new @ found.v
    r = int((found.s.cumsum(0) / found.s.sum() > 0.5).double().argmax())
    close(inner.diagonal(), torch.zeros(9, dtype=torch.float64))
    close(inner[:r, :r], torch.zeros(r, r, dtype=torch.float64))
    assert torch.equal(cleaned(task, torch.zeros_like(task), 0.5), task)


def test_opcm_goes_on_from_shared_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another last expert costs one decomposition per matrix, another scale or common factor none."""
    import mergesearch.operators.opcm as opcm

    calls = []
    monkeypatch.setattr(opcm, "svd", lambda x: calls.append(1) or svd(x))
    base, *experts = family(17, count=4)
    layout = Layout(tuple("wxyz"), ("g",), dict.fromkeys(base, 0))
    operator = make_operator("opcm", {})
    prepared = operator.prepare(base, experts, layout)
    tables = {k.name: np.full((1, 4), k.start(4)) for k in operator.KNOBS}
    last = tables | {"coefficient": np.array([[1.0, 1.0, 1.0, 0.5]])}
    costs = []
    for table in (
        tables,
        last,
        last | {"scale": 0.3 * tables["scale"]},
        last | {"coefficient": 2 * last["coefficient"]},
    ):
        calls.clear()
        into = {n: torch.empty_like(t) for n, t in base.items()}
        prepared.apply(table, list(base), into)
        costs.append(len(calls))
    assert costs == [3, 1, 0, 0]


@pytest.mark.parametrize(
    ("kind", "knob", "values"),
    [("tsv_m", "rank_share", (1.0, 0.5)), ("iso_cts", "fraction", (0.8, 0.4)), ("dc_merge", "density", (0.01, 0.5))],
)
def test_a_structural_knob_reaches_only_its_group(kind: str, knob: str, values: tuple[float, float]) -> None:
    """Matrices of the other group keep their bits."""
    base, *experts = ({"a": m["m"], "b": m["m"] + 1} for m in family(18))
    operator = make_operator(kind, {})
    prepared = operator.prepare(base, experts, Layout(tuple("xyz"), ("g0", "g1"), {"a": 0, "b": 1}))
    tables = {k.name: np.full((2, 3), k.start(3)) for k in operator.KNOBS}
    results = []
    for value in values:
        tables[knob] = np.repeat([[values[0]], [value]], 3, axis=1)
        results.append({n: torch.empty_like(t) for n, t in base.items()})
        prepared.apply(tables, list(base), results[-1])
    assert torch.equal(results[0]["a"], results[1]["a"])
    assert not torch.equal(results[0]["b"], results[1]["b"])


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_and_matrices_shorter_than_the_experts_are_merged(kind: str) -> None:
    """(out, in, k) is treated as (out, in · k); five experts in a matrix of two rows still count."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"conv": (6, 2, 4), "short": (2, 7)}
    base = {n: torch.randn(s, generator=rng) for n, s in shapes.items()}
    experts = [{n: t + 0.1 * torch.randn(t.shape, generator=rng) for n, t in base.items()} for _ in range(5)]
    merged = merge(kind, base, experts, {"scale": 1.0})
    flat = [{"conv": m["conv"].reshape(6, 8), "short": m["short"]} for m in (base, *experts)]
    again = merge(kind, flat[0], flat[1:], {"scale": 1.0})
    assert torch.equal(merged["conv"].reshape(6, 8), again["conv"])
    assert not torch.equal(merged["short"], base["short"])


def test_wrong_options_are_refused() -> None:
    """A rank of 0, a smoothing nobody knows, a tolerance that leaves nothing: one sentence each."""
    models = family(19)
    for kind, options, word in (
        ("dc_merge", {"rank": 0}, "greater than 0"),
        ("dc_merge", {"smoothing": "avg"}, "'average'"),
        ("iso_c", {"rank_tolerance": 1.0}, "less than 1"),
        ("opcm", {"excluded": ()}, "did you mean 'exclude'"),
    ):
        with pytest.raises(SpecError, match=word):
            change(kind, models, {"scale": 1.0}, **options)  # type: ignore[arg-type]
