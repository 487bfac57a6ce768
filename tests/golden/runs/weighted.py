"""How the cases of the weighted-sum family are run."""

import torch
from golden.cases import Case


def _linear(case: Case) -> dict[str, torch.Tensor]:
    weights, base_weight = case.weights, 0.0
    if case.params.get("base_as_input"):
        base_weight, *weights = weights
    return case.merge(
        "linear", {"coefficient": weights, "base_weight": base_weight}, normalize=case.params["normalize"]
    )


def _task_arithmetic(case: Case) -> dict[str, torch.Tensor]:
    knobs = {"coefficient": case.weights, "scale": case.params["lambda"]}
    return case.merge("task_arithmetic", knobs, normalize=case.params.get("normalize", False))


def _slerp(case: Case) -> dict[str, torch.Tensor]:
    return case.merge("slerp", case.params["t"])


RUNS = {"linear": _linear, "task_arithmetic": _task_arithmetic, "slerp": _slerp}
