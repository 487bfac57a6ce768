"""How the cases of the spectral operators are run."""

from typing import Any

import torch
from golden.cases import Case


def _coefficient(case: Case, given: Any = None) -> Any:
    """A weight for each expert: the case's own, or a list among its parameters, or 1."""
    if case.weights is not None:
        return case.weights
    return 1.0 if given is None else given


def _scale(case: Case) -> float:
    for name in ("scaling", "lambda", "alpha"):
        if case.params.get(name) is not None:
            return float(case.params[name])
    return 1.0


def _tsv_m(case: Case) -> dict[str, torch.Tensor]:
    knobs = {"coefficient": _coefficient(case, case.params.get("per_expert_alpha")), "scale": _scale(case)}
    return case.merge("tsv_m", knobs, exclude=case.params.get("exclude", []))


def _iso_c(case: Case) -> dict[str, torch.Tensor]:
    knobs = {"coefficient": _coefficient(case), "scale": _scale(case)}
    return case.merge("iso_c", knobs, exclude=case.params.get("exclude", []))


def _iso_cts(case: Case) -> dict[str, torch.Tensor]:
    fraction = case.params["common_space_fraction"]
    knobs = {"coefficient": _coefficient(case), "scale": _scale(case), "fraction": fraction}
    return case.merge("iso_cts", knobs, exclude=case.params.get("exclude", []))


def _opcm(case: Case) -> dict[str, torch.Tensor]:
    knobs = {"coefficient": _coefficient(case), "alpha": case.params["alpha"], "scale": case.params.get("scaling", 1.0)}
    return case.merge("opcm", knobs, exclude=case.params.get("exclude", ["model.embed_tokens.weight"]))


def _dc_merge(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    knobs = {"coefficient": _coefficient(case), "scale": _scale(case), "density": params["keep_fraction"]}
    if params.get("rho") is not None:
        knobs["ratio"] = params["rho"]
    smoothing = {None: "none", "avg": "average"}.get(params.get("smoothing"), params.get("smoothing"))
    options = {"smoothing": smoothing, "rank": params.get("rank"), "exclude": params.get("exclude", [])}
    return case.merge("dc_merge", knobs, **options)


RUNS = {"tsv_m": _tsv_m, "iso_c": _iso_c, "iso_cts": _iso_cts, "opcm": _opcm, "dc_merge": _dc_merge}
