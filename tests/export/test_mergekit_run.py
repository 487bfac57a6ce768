"""mergekit itself, run on our mergekit.yaml, gives our tensors: for every operator that it has."""

from pathlib import Path

import pytest
import torch
from mergekit_run import PYTHON_VARIABLE, Case, Outcome, interpreter, outcomes
from tiny_llama import make_llama

from mergesearch.operators import OPERATORS
from mergesearch.study.mergekit.methods import METHODS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        interpreter() is None,
        reason=f"no mergekit: pip install 'mergesearch[test]', or set {PYTHON_VARIABLE} to a Python that has it",
    ),
]

ALL = [
    Case("task_arithmetic", "task_arithmetic", values={"scale": 0.7}),
    Case("task_arithmetic-normalized", "task_arithmetic", {"normalize": True}),
    Case("task_arithmetic-module", "task_arithmetic", groups="module"),
    Case("task_arithmetic-by-name", "task_arithmetic", groups={"attn": "attention", ".*": "rest"}),
    Case("task_arithmetic-one-number", "task_arithmetic", values={"coefficient": 1e-05}, groups="model"),
    Case("task_arithmetic-tied", "task_arithmetic", models="tied"),
    Case("task_arithmetic-chunks", "task_arithmetic", groups={"chunks": 2}),
    Case("linear", "linear"),
    Case("linear-base", "linear", {"normalize": False}, {"base_weight": 0.4}, experts=3),
    Case("linear-scaled", "linear", values={"base_weight": 0.4, "scale": 0.6}),
    Case("slerp", "slerp", experts=1),
    Case("slerp-module", "slerp", groups="module", experts=1),
    Case("ties", "ties", values={"density": 0.4, "scale": 0.8}, experts=3),
    Case("ties-sum", "ties", {"normalize": False}, {"density": [0.2, 0.6]}, groups="module"),
    Case("nuslerp", "nuslerp"),
    Case("nuslerp-rows", "nuslerp", {"flatten": False}),
    Case("nuslerp-columns", "nuslerp", {"flatten": False, "axis": "first"}),
    Case("nuslerp-weights", "nuslerp", {"task_vectors": False}),
    Case("multi_slerp", "multi_slerp", experts=3),
    Case("multi_slerp-scaled", "multi_slerp", {}, {"scale": 0.7}, experts=3),
    Case("multi_slerp-weights", "multi_slerp", {"task_vectors": False, "normalize": False}),
    Case("karcher", "karcher", values={"coefficient": 0.3, "iterations": 4}, experts=3),
    Case("model_stock", "model_stock", values={"scale": 1.0}, experts=3),
    Case("model_stock-rows", "model_stock", {"rows": True}, {"scale": 1.0}),
    Case("near_swap", "near_swap", values={"t": 0.01}, experts=1),
    Case("arcee_fusion", "arcee_fusion", values={"threshold": 1.5}, experts=1),
    Case("ram", "ram", values={"coefficient": 1.0, "epsilon": 0.03}, experts=3),
    Case("ram_plus", "ram_plus", values={"coefficient": 1.0, "epsilon": 0.03, "r": 0.3, "alpha": 0.8}, experts=3),
    Case("dare_linear-kept", "dare_linear", {"rescale": "none"}, {"density": 1.0}, experts=3),
    Case("dare_ties-kept", "dare_ties", {"rescale": "l1_norm", "normalize": True}, {"density": 1.0}, experts=3),
    Case("della-kept", "della", {"rescale": "l1_norm"}, {"density": 1.0, "scale": 0.9}, experts=3),
    Case("della_linear-kept", "della_linear", {"rescale": "none"}, {"density": 1.0}, experts=3),
    Case("breadcrumbs", "breadcrumbs", {}, {"density": 0.6, "gamma": 0.1, "scale": 0.9}, experts=3),
    Case("breadcrumbs_ties", "breadcrumbs_ties", {}, {"density": [0.6, 0.4], "gamma": 0.05}),
    Case("sce", "sce", {"reference_floors": True}, {"density": 0.4, "coefficient": 1.0}, experts=3),
    Case("task_arithmetic-bfloat16", "task_arithmetic", models="half"),
    Case("linear-bfloat16", "linear", models="half", experts=3),
    Case("model_stock-bfloat16", "model_stock", values={"scale": 1.0}, models="half"),
    Case("dare", "dare_linear", {"rescale": "l1_norm", "seed": 3}, {"density": 0.4}, experts=1, exact=False),
    Case("dare-again", "dare_linear", {"rescale": "l1_norm", "seed": 3}, {"density": 0.4}, experts=1, exact=False),
    Case("della", "della_linear", {"rescale": "l1_norm"}, {"density": 0.4, "epsilon": 0.6}, experts=1, exact=False),
    Case("ties-few", "ties", values={"density": 0.01}),
]
CASES = [case for case in ALL if case.operator in OPERATORS]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base and three experts: with a head of its own, tied, and in bfloat16."""
    folder = tmp_path_factory.mktemp("models")
    for family in ("untied", "tied", "half"):
        dtype = torch.bfloat16 if family == "half" else torch.float32
        base = make_llama(folder / family / "base", 0, tied=family == "tied", dtype=dtype)
        for seed, name in enumerate("abc", start=1):
            make_llama(folder / family / name, seed, base, tied=family == "tied", dtype=dtype)
    return folder


@pytest.fixture(scope="module")
def merged(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Every case by both, mergekit in one process."""
    return outcomes(CASES, models, tmp_path_factory.mktemp("merged"))


@pytest.mark.parametrize("case", [c for c in CASES if c.exact], ids=lambda c: c.name)
def test_mergekit_gives_our_tensors(case: Case, merged: dict[str, Outcome]) -> None:
    """All of them, the embeddings, the last norm and the head too, up to rounding."""
    found = merged[case.name]
    assert found.theirs.keys() == found.ours.keys()
    for name, tensor in found.ours.items():
        rtol = 1e-5 if tensor.dtype == torch.float32 else 2**-8  # of bfloat16, a last bit
        torch.testing.assert_close(found.theirs[name], tensor, atol=1e-6, rtol=rtol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", ["dare", "della"])
def test_another_draw_is_the_same_merge(name: str, merged: dict[str, Outcome]) -> None:
    """Other masks, but as many entries are kept, and their magnitudes sum to the same."""
    found = merged[name]
    base = {n: found.plan.base.tensor(n) for n in found.ours}
    assert found.config.seed is not None
    for model in (found.ours, found.theirs):
        kept = sum(int((model[n] != base[n]).sum()) for n in base) / sum(t.numel() for t in base.values())
        assert kept == pytest.approx(0.4, abs=0.03)
    for n, tensor in base.items():
        torch.testing.assert_close((found.theirs[n] - tensor).abs().sum(), (found.ours[n] - tensor).abs().sum())


def test_the_seed_decides_the_draw(merged: dict[str, Outcome]) -> None:
    """Run twice with the seed that the card names, mergekit gives the same tensors."""
    for name, tensor in merged["dare"].theirs.items():
        assert torch.equal(tensor, merged["dare-again"].theirs[name])


def test_every_method_of_mergekit_is_compared() -> None:
    """The table of methods has no entry that mergekit has not been run on."""
    assert {case.operator for case in ALL} == set(METHODS)
