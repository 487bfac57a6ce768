"""How the cases of averages on the sphere, of depth and columns, and of given statistics are run."""

import torch
from golden.cases import Case


def _nuslerp(case: Case) -> dict[str, torch.Tensor]:
    params, (first, second) = case.params, case.weights
    t = 0.5 if abs(first + second) < 1e-6 else second / (first + second)
    return case.merge(
        "nuslerp",
        {"t": t},
        task_vectors=params["use_base"],
        flatten=params["nuslerp_flatten"],
        axis="first" if params["nuslerp_row_wise"] else "last",
    )


def _multi_slerp(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    options = {"task_vectors": params["use_base"], "normalize": params["normalize_weights"], "eps": params["eps"]}
    return case.merge("multi_slerp", {"coefficient": case.weights}, **options)


def _karcher(case: Case) -> dict[str, torch.Tensor]:
    weights = 1.0 / len(case.experts) if case.weights is None else case.weights
    knobs = {"coefficient": weights, "iterations": case.params["max_iter"]}
    return case.merge("karcher", knobs, tolerance=case.params["tol"])


def _model_stock(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    angle = params.get("angle_average", "cosine")
    return case.merge("model_stock", {}, rows=params["filter_wise"], angle=angle)


def _lines(case: Case) -> dict[str, torch.Tensor]:
    knobs = {"alpha": case.params["alpha"], "beta": case.params["beta"], "coefficient": case.weights}
    return case.merge("lines", knobs)


def _widen(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    knobs = {"ratio": params["above_average_value_ratio"], "calibration": params["score_calibration_value"]}
    return case.merge("widen", knobs)


def _statistics(case: Case, kind: str) -> dict[str, str]:
    return {str(i): str(case.path(path)) for i, path in enumerate(case.entry["inputs"][kind])}


def _fisher(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    return case.merge(
        "fisher",
        {"coefficient": case.weights},
        statistics=_statistics(case, "fisher"),
        normalize=params["normalize_fisher_weight"],
        epsilon=params["minimal_fisher_weight"],
        absolute=True,
    )


def _regmean(case: Case) -> dict[str, torch.Tensor]:
    weights = 1.0 / len(case.experts) if case.weights is None else case.weights
    knobs = {"alpha": case.params["alpha"], "coefficient": weights}
    return case.merge("regmean", knobs, statistics=_statistics(case, "gram"))


RUNS = {
    "nuslerp": _nuslerp,
    "multislerp": _multi_slerp,
    "karcher": _karcher,
    "model_stock": _model_stock,
    "lines": _lines,
    "widen": _widen,
    "fisher": _fisher,
    "regmean": _regmean,
}
