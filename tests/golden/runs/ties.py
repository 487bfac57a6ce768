"""How the cases of TIES are run."""

import torch
from golden.cases import Case


def _ties(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    knobs = {
        "coefficient": 1.0 if case.weights is None else case.weights,
        "scale": params.get("lambda", params.get("scaling", 1.0)),
        "density": params["density"] if "density" in params else params["top_k_percent"] / 100,
    }
    normalize = params["merge_func"] == "mean" if "merge_func" in params else params.get("normalize", True)
    scope = "global" if case.entry["scope"] == "global" else "tensor"
    return case.merge("ties", knobs, scope=scope, normalize=normalize)


RUNS = {"ties": _ties}
