"""How the cases of breadcrumbs and SCE are run."""

import torch
from golden.cases import Case


def _breadcrumbs(case: Case) -> dict[str, torch.Tensor]:
    knobs = {
        "coefficient": 1.0 if case.weights is None else case.weights,
        "density": case.params["density"],
        "gamma": case.params["gamma"],
        "scale": case.params.get("lambda", 1.0),
    }
    return case.merge(case.operator, knobs, normalize=case.params.get("normalize", False))


def _sce(case: Case) -> dict[str, torch.Tensor]:
    knobs = {
        "density": case.params["select_topk"],
        "coefficient": 1.0 if case.weights is None else case.weights,
        "scale": case.params.get("lambda", 1.0),
    }
    applies = case.params.get("mask_applies_to", "deltas_and_weights")
    return case.merge("sce", knobs, mask_applies_to=applies, reference_floors=True)


RUNS = {"breadcrumbs": _breadcrumbs, "breadcrumbs_ties": _breadcrumbs, "sce": _sce}
