"""How the cases of operators with masks that no coefficient moves, or that act entry by entry, are run."""

from glob import escape
from typing import Any

import torch
from golden.cases import Case

from mergesearch.merging import make_operator
from mergesearch.operators.base import Layout, Prepared
from mergesearch.operators.localize_and_stitch import Localized
from mergesearch.operators.pcb import Balanced


def _scale(params: dict[str, Any], default: float = 1.0) -> Any:
    return params.get("lambda", params.get("scaling", default))


def _coefficient(case: Case) -> Any:
    return 1.0 if case.weights is None else case.weights


def _each(case: Case, value: Any) -> list[float]:
    """One for each expert."""
    return value if isinstance(value, list) else [value] * len(case.experts)


def _prepare(kind: str, case: Case, options: dict[str, Any]) -> Prepared:
    """What an operator knows of the case's models."""
    layout = Layout(tuple(map(str, range(len(case.experts)))), ("model",), dict.fromkeys(sorted(case.base), 0))
    return make_operator(kind, options).prepare(case.base, case.experts, layout)


def _magmax(case: Case) -> dict[str, torch.Tensor]:
    return case.merge("magmax", {"coefficient": _coefficient(case), "scale": _scale(case.params, 0.5)})


def _near_swap(case: Case) -> dict[str, torch.Tensor]:
    return case.merge("near_swap", {"t": case.params["t"], "scale": _scale(case.params)})


def _arcee_fusion(case: Case) -> dict[str, torch.Tensor]:
    knobs = {"threshold": case.params.get("threshold", 1.5), "scale": _scale(case.params)}
    return case.merge("arcee_fusion", knobs)


def _ram(case: Case) -> dict[str, torch.Tensor]:
    knobs = {
        "coefficient": _coefficient(case),
        "epsilon": case.params.get("epsilon", 1e-5),
        "scale": _scale(case.params),
    }
    return case.merge("ram", knobs)


def _ram_plus(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    knobs = {
        "coefficient": _coefficient(case),
        "epsilon": params.get("epsilon", 1e-5),
        "r": params["r"] if "r" in params else params.get("rescale_factor", 1.1) - 1.0,
        "alpha": params.get("alpha", 0.2),
        "scale": _scale(params),
    }
    scope = "global" if params.get("ratio_scope", case.entry["scope"]) == "global" else "tensor"
    return case.merge("ram_plus", knobs, ratio_scope=scope)


def _localize_and_stitch(case: Case) -> dict[str, torch.Tensor]:
    params, options = case.params, dict[str, Any]()
    if "tensors" in params:
        options["exclude"] = tuple(escape(name) for name in case.base if name not in params["tensors"])
    elif "exclude" in params:
        options["exclude"] = tuple(escape(name) for name in params["exclude"])
    knobs = {
        "coefficient": _coefficient(case),
        "density": params["sparsity"] if "sparsity" in params else params["density"],
        "scale": _scale(params),
    }
    merged = case.merge("localize_and_stitch", knobs, **options)
    prepared = _prepare("localize_and_stitch", case, options)
    assert isinstance(prepared, Localized)
    prepared.localize(_each(case, knobs["density"]))
    for name, planes in prepared.masks.items():
        for k in range(len(case.experts)):
            kept = planes[k // 8] >> (k % 8) & 1
            merged[f"aux/mask/expert_{k}/{name}"] = kept.view(case.base[name].shape)
    return merged


def _pcb(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    weights = params.get("per_expert_lambda") or _coefficient(case)
    density = params["pcb_ratio"] if "pcb_ratio" in params else params["density"]
    scope = "global" if case.entry["scope"] == "global" else "tensor"
    knobs = {"coefficient": weights, "density": density, "scale": _scale(params)}
    merged = case.merge("pcb", knobs, scope=scope)
    prepared = _prepare("pcb", case, {"scope": scope})
    assert isinstance(prepared, Balanced)
    for balance in prepared.balances:
        limits = balance.limits(_each(case, density))
        for name in balance.names:
            for k, scores in enumerate(balance.scores(name, limits)):
                merged[f"aux/scale/expert_{k}/{name}"] = scores.view(case.base[name].shape).float()
    return merged


RUNS = {
    "arcee_fusion": _arcee_fusion,
    "localize_and_stitch": _localize_and_stitch,
    "magmax": _magmax,
    "nearswap": _near_swap,
    "pcb": _pcb,
    "ram": _ram,
    "ram_plus": _ram_plus,
}
