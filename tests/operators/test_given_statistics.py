"""Fisher merging and RegMean, which stand on statistics measured beforehand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.operator import DTYPES, SHAPES, make_models, make_settings, run, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mergesearch.errors import CheckpointError, EvaluationError, SpecError
from mergesearch.merging import make_operator, merge
from mergesearch.operators.base import MergeOperator
from mergesearch.operators.passes import chunked as _chunked
from mergesearch.operators.passes import stream as _stream

State = dict[str, torch.Tensor]
KINDS = ["fisher", "regmean"]


def write(folder: Path, kind: str, experts: str = "xyz", seed: int = 0, size: float = 1.0) -> dict[str, str]:
    """Random statistics for the models of the contract suite: expert -> path."""
    rng = torch.Generator().manual_seed(seed)
    paths = {}
    for expert in experts:
        if kind == "fisher":
            found = {n: size * torch.rand(s, generator=rng).square() for n, s in SHAPES.items()}
        else:
            found = {}
            for name in ("a.w", "b.w"):
                x = torch.randn(2 * SHAPES[name][1], SHAPES[name][1], generator=rng)
                found[name] = size * x.T @ x / len(x)
        paths[expert] = str(folder / f"{kind}-{expert}.safetensors")
        save_file(found, paths[expert])
    return paths


def operator_with(folder: Path, kind: str, **options: object) -> MergeOperator:
    """The operator with statistics for the contract suite's models."""
    return make_operator(kind, {"statistics": write(folder, kind), **options})


def three(dtype: torch.dtype = torch.float64) -> tuple[State, dict[str, State]]:
    """The models of the contract suite by name."""
    base, experts, _ = make_models(make_operator("linear", {}), dtype)
    return base, dict(zip("xyz", experts, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_the_contract_holds_with_statistics(
    kind: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same bits on every path, in every chunking, after any other candidate; `scale` 0 is the base to the bit."""
    operator = operator_with(tmp_path, kind)
    base, experts, layout = make_models(operator, dtype)
    tables = [make_settings(operator, layout, seed) for seed in (1, 2, 1)]
    tables.append(tables[1] | {"scale": np.zeros_like(tables[1]["scale"])})
    results, threads = [], torch.get_num_threads()
    for limit, chunk, count in ((1 << 62, 1 << 16, 1), (1 << 62, 100, 2), (0, 1 << 16, 3)):
        monkeypatch.setattr(_stream, "_COMPILED_FROM", limit)
        monkeypatch.setitem(_chunked.CHUNK, "cpu", chunk)
        torch.set_num_threads(count)
        prepared = operator.prepare(base, experts, layout)
        results.append([run(prepared, table, list(SHAPES), dtype) for table in tables])
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(other, results[0], strict=True))
    assert same_bits(results[0][0], results[0][2])
    assert all(torch.equal(results[0][3][name], base[name]) for name in SHAPES)
    assert operator.extra_bytes(SHAPES, 3) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_statistics_it_is_the_average(kind: str) -> None:
    """null says that nothing was measured: all counts alike."""
    base, experts = three()
    got, wanted = merge(kind, base, experts, [0.2, 0.4, 0.6]), merge("linear", base, experts, [0.2, 0.4, 0.6])
    for name in SHAPES:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_expert_and_equal_experts_are_kept(kind: str, tmp_path: Path) -> None:
    """Weighted averages of one model are that model, whatever the weights."""
    base, experts = three()
    got = merge(kind, base, experts, [0.0, 0.7, 0.0], statistics=write(tmp_path, kind))
    same = merge(kind, base, dict.fromkeys("xyz", experts["x"]), [0.1, 0.7, 0.4], statistics=write(tmp_path, kind))
    for name in SHAPES:
        torch.testing.assert_close(got[name], experts["y"][name], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(same[name], experts["x"][name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@given(coefficient=st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3), factor=st.floats(0.1, 3.0))
@settings(max_examples=10, deadline=None)
def test_only_the_ratios_of_coefficients_count_and_no_order(
    kind: str, coefficient: list[float], factor: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Coefficients times a factor, or experts in another order, give the same model."""
    base, experts = three()
    paths = write(tmp_path_factory.mktemp("s"), kind)
    wanted = merge(kind, base, experts, coefficient, statistics=paths)
    scaled = merge(kind, base, experts, [factor * c for c in coefficient], statistics=paths)
    turned = merge(kind, base, {n: experts[n] for n in "zxy"}, [coefficient[i] for i in (2, 0, 1)], statistics=paths)
    for name in SHAPES:
        torch.testing.assert_close(scaled[name], wanted[name], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(turned[name], wanted[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("normalize", [True, False])
def test_fisher_does_not_depend_on_the_unit_of_its_statistics(normalize: bool, tmp_path: Path) -> None:
    """F of an LLM (1e-12) counts as F of a small model does; the reference's absolute ε would average instead."""
    base, experts = three()
    large = merge("fisher", base, experts, 0.3, statistics=write(tmp_path, "fisher"), normalize=normalize)
    small = merge(
        "fisher", base, experts, 0.3, statistics=write(tmp_path, "fisher", size=2.0**-40), normalize=normalize
    )
    absolute = merge("fisher", base, experts, 0.3, statistics=write(tmp_path, "fisher", size=2.0**-40), absolute=True)
    average = merge("linear", base, experts, 0.3)
    for name in SHAPES:
        torch.testing.assert_close(small[name], large[name], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(absolute[name], average[name], rtol=1e-4, atol=1e-4)


def test_fisher_is_its_formula(tmp_path: Path) -> None:
    """Σ w n (F + ε) θ / Σ w n (F + ε), n the normalised inverse norms over the model."""
    from safetensors.torch import load_file

    base, experts = three()
    paths = write(tmp_path, "fisher")
    given_f = [load_file(paths[n]) for n in "xyz"]
    norms = [sum(float(t.double().square().sum()) for t in f.values()) ** 0.5 + 1e-6 for f in given_f]
    for normalize in (True, False):
        weights = [w / (n if normalize else 1.0) for w, n in zip((0.5, 0.3, 0.2), norms, strict=True)]
        got = merge("fisher", base, experts, [0.5, 0.3, 0.2], statistics=paths, normalize=normalize, absolute=True)
        for name in SHAPES:
            each = [w * (f[name].double() + 1e-6) for w, f in zip(weights, given_f, strict=True)]
            total = sum(e * x[name] for e, x in zip(each, experts.values(), strict=True))
            torch.testing.assert_close(got[name], total / sum(each), rtol=1e-9, atol=1e-9)


def test_regmean_solves_the_least_squares_problem(tmp_path: Path) -> None:
    """At α = 1, the merged layer has the least Σ w ‖X_k (W - W_k)ᵀ‖² on the inputs that gave G."""
    from safetensors.torch import load_file

    base, experts = three()
    paths = write(tmp_path, "regmean")
    knobs = {"coefficient": [0.5, 0.3, 0.2], "alpha": 1.0}
    got = merge("regmean", base, experts, knobs, statistics=paths)["a.w"]
    grams = [load_file(paths[n])["a.w"].double() for n in "xyz"]
    pull = sum(w * (got - x["a.w"]) @ g for w, x, g in zip((0.5, 0.3, 0.2), experts.values(), grams, strict=True))
    assert float(pull.abs().max()) < 1e-8


def test_regmean_averages_what_no_input_ever_reached(tmp_path: Path) -> None:
    """A G of rank one decides one direction; the others, which it says nothing of, are averaged and finite."""
    base, experts = three()
    x = torch.zeros(33)
    x[0] = 1.0
    for expert in "xyz":
        save_file({"a.w": torch.outer(x, x) * (2.0 if expert == "x" else 1.0)}, tmp_path / expert)
    paths = {n: str(tmp_path / n) for n in "xyz"}
    got = merge("regmean", base, experts, {"alpha": 1.0}, statistics=paths)
    stacked = torch.stack([e["a.w"] for e in experts.values()])
    torch.testing.assert_close(got["a.w"][:, 1:], stacked.mean(0)[:, 1:], rtol=1e-6, atol=1e-6)
    wanted = (torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)[:, None] * stacked[:, :, 0]).sum(0)
    torch.testing.assert_close(got["a.w"][:, 0], wanted, rtol=1e-6, atol=1e-6)
    average = merge("linear", base, experts, 1.0)
    torch.testing.assert_close(got["b.w"], average["b.w"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    """An expert without a file, a file for no expert, a missing file, a wrong shape, NaN, and no weight at all."""
    base, experts = three()
    paths = write(tmp_path, kind)

    def refused(error: type[Exception], sentence: str, statistics: dict[str, str], coefficient: float = 0.5) -> None:
        with pytest.raises(error, match=sentence) as caught:
            merge(kind, base, experts, coefficient, statistics=statistics)
        assert "\n" not in str(caught.value)

    refused(SpecError, "expert 'z' has no file", {n: paths[n] for n in "xy"})
    refused(SpecError, "no expert is called 'w'", paths | {"w": "w"})
    refused(CheckpointError, "expert 'y': no file 'nowhere'", paths | {"y": "nowhere"})
    refused(EvaluationError, "must be at least 0, and one above 0", paths, 0.0)
    refused(EvaluationError, "must be at least 0, and one above 0", paths, -0.5)
    for found, sentence in (
        ({"a.b" if kind == "fisher" else "a.w": torch.ones(2, 2)}, "'a.[bw]' is .2, 2., it must be"),
        ({"b.w": torch.ones(SHAPES["b.w"] if kind == "fisher" else (31, 31))}, "hold no (tensor|matrix) 'a"),
        ({n: torch.full(s if kind == "fisher" else (s[1], s[1]), float("nan")) for n, s in SHAPES.items()
          if kind == "fisher" or n in ("a.w", "b.w")}, "is not all finite"),
    ):  # fmt: skip
        save_file(found, tmp_path / "odd")
        refused(CheckpointError, sentence, paths | {"x": str(tmp_path / "odd")})


def test_statistics_of_another_kind_are_noticed(tmp_path: Path) -> None:
    """Negative F, and Gram matrices under names that no layer has."""
    base, experts = three()
    save_file({n: -torch.ones(s) for n, s in SHAPES.items()}, tmp_path / "negative")
    with pytest.raises(CheckpointError, match="holds negative numbers"):
        merge("fisher", base, experts, 0.5, statistics=dict.fromkeys("xyz", str(tmp_path / "negative")))
    save_file({"other": torch.ones(3, 3)}, tmp_path / "other")
    with pytest.raises(CheckpointError, match="hold no matrix of a merged layer"):
        merge("regmean", base, experts, 0.5, statistics=dict.fromkeys("xyz", str(tmp_path / "other")))
