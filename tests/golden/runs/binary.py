"""How the cases of the binary compression operators are run."""

import numpy as np
import torch
from golden.cases import Case

from mergesearch.merging import make_operator, settings_of
from mergesearch.operators.base import Layout
from mergesearch.operators.passes.codes import Codes


def _bitdelta(case: Case) -> dict[str, torch.Tensor]:
    """The model that the code of the first expert gives back, and its code."""
    matrices = case.params.get("tensors", [n for n in case.base if "_proj" in n and case.base[n].ndim == 2])
    operator = make_operator("bitdelta", {"exclude": [name for name in case.base if name not in matrices]})
    experts = tuple(str(i) for i in range(len(case.experts)))
    layout = Layout(experts, ("model",), dict.fromkeys(case.base, 0))
    prepared = operator.prepare(case.base, case.experts, layout)
    assert isinstance(prepared, Codes)
    settings = settings_of(operator, layout, {"multiplier": case.params.get("multiplier", 1.0)})
    got = {name: torch.full_like(tensor, np.nan) for name, tensor in case.base.items()}
    prepared.rebuild(settings, 0, list(got), got)
    for name in matrices:
        scale, signs = prepared.code(settings, name, 0)
        got[f"aux/coeff/{name}"] = torch.tensor(scale)
        got[f"aux/sign/{name}"] = signs.to(torch.int8).view(case.base[name].shape)
    return got


RUNS = {"bitdelta": _bitdelta}
