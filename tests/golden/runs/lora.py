"""How the cases of adapters, and of KnOTS, are run."""

import torch
from golden.cases import Case

import mergesearch.merging as merging
from mergesearch.checkpoints.adapter import LowRank


def _adapters(case: Case) -> list[dict[str, LowRank]]:
    """The adapters of a case, under tensor names of a base that has none."""
    found = []
    for factors in case.experts:
        modules = sorted({key.rpartition(".lora_")[0] for key in factors})
        adapter = {}
        for module in modules:
            up, down = factors[f"{module}.lora_B.weight"], factors[f"{module}.lora_A.weight"]
            adapter[f"{module}.weight"] = LowRank(up, down, case.params.get("lora_alpha", len(down)) / len(down))
        found.append(adapter)
    return found


def _lora_merge(case: Case) -> dict[str, torch.Tensor]:
    params, adapters = case.params, _adapters(case)
    shapes = {name: change.shape for adapter in adapters for name, change in adapter.items()}
    base = {name: torch.zeros(shape) for name, shape in shapes.items()}
    kind = params["combination_type"]
    options = {"svd_rank": params["svd_rank"]} if kind == "svd" and params.get("svd_rank") else {}
    merged = merging.merge("lora_soups", base, adapters, case.weights, combination=kind, **options)
    return {f"{name.removesuffix('.weight')}.delta": tensor for name, tensor in merged.items()}


def _knots_ties(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    knobs = {
        "coefficient": 1.0 if case.weights is None else case.weights,
        "density": params["density"] if "density" in params else params["top_k_percent"] / 100,
        "scale": params.get("scaling", params.get("lambda", 1.0)),
    }
    options = {
        "merge_func": params.get("merge_func", "mean"),
        "singular_value_floor": params.get("singular_value_floor"),
        "exclude": tuple(params.get("exclude", ())),
    }
    return case.merge("knots", knobs, **options)


RUNS = {"lora_merge": _lora_merge, "knots_ties": _knots_ties}
