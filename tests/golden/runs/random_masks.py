"""How the cases of DARE and DELLA are run: with the recorded masks, and the keep probabilities as a result."""

import torch
from golden.cases import Case

from mergesearch.checkpoints.groups import layer_groups
from mergesearch.merging import make_operator, settings_of
from mergesearch.operators.base import Layout
from mergesearch.operators.passes.thinned import Thinned

RULES = {"l1_norm", "inverse_density", "inverse_probability"}


def random_merge(case: Case, kind: str, default_rescale: str, normalize: bool) -> dict[str, torch.Tensor]:
    """The merge with recorded masks; where none is recorded (a density of 1), all is kept."""
    params = case.params
    rule = params.get("rescale_rule", default_rescale) if params.get("rescale", True) else "none"
    assert rule in RULES | {"none"}
    options = {"rescale": rule, "normalize": params.get("normalize", normalize)}
    operator = make_operator(kind, options)
    grouping = layer_groups({name: tuple(t.shape) for name, t in case.base.items()}, case.groups)
    experts = case.experts
    layout = Layout(tuple(str(k) for k in range(len(experts))), grouping.groups, grouping.group_of)
    knobs = {"density": params["density"], "coefficient": 1.0 if case.weights is None else case.weights}
    knobs["scale"] = params.get("lambda", params.get("scaling", 1.0))
    if "epsilon" in params:
        knobs["epsilon"] = params["epsilon"]
    settings = settings_of(operator, layout, knobs)
    prepared = Thinned(case.base, experts, layout, operator.how, recorded=_planes(case))
    merged = {name: torch.empty_like(t) for name, t in case.base.items()}
    prepared.apply(settings, list(merged), merged)
    if operator.how.ranked:
        for k in range(len(experts)):
            for name, tensor in case.base.items():
                found = prepared.probabilities(settings, name, k)
                merged[f"aux/prob/expert_{k}/{name}"] = found.view(tensor.shape)
    return merged


def _planes(case: Case) -> dict[str, torch.Tensor]:
    """The recorded masks as bit planes (planes, N)."""
    planes = {}
    for name, tensor in case.base.items():
        plane = torch.full((-(-len(case.experts) // 8), tensor.numel()), 255, dtype=torch.uint8)
        for k in range(len(case.experts)):
            mask = case.expected.get(f"aux/mask/expert_{k}/{name}")
            if mask is not None:
                plane[k // 8] &= 255 ^ ((mask.reshape(-1) == 0).to(torch.uint8) << (k % 8))
        planes[name] = plane
    return planes


RUNS = {
    "dare_linear": lambda case: random_merge(case, "dare_linear", "l1_norm", False),
    "dare_ties": lambda case: random_merge(case, "dare_ties", "l1_norm", False),
    "della": lambda case: random_merge(case, "della", "l1_norm", True),
    "della_linear": lambda case: random_merge(case, "della_linear", "l1_norm", False),
}
