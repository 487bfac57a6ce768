"""How the cases of EMR, TALL masks and consensus merging are run."""

import numpy as np
import torch
from golden.cases import Case

from mergesearch.merging import make_operator
from mergesearch.operators.base import Compressed, Layout
from mergesearch.operators.emr import Unified
from mergesearch.space import Settings


def _prepared(case: Case, kind: str, **knobs: float) -> tuple[Compressed, Settings]:
    experts = tuple(str(i) for i in range(len(case.experts)))
    layout = Layout(experts, ("model",), dict.fromkeys(case.base, 0))
    operator = make_operator(kind, {})
    settings = {k.name: np.full((1, len(experts)), knobs.get(k.name, k.start(len(experts)))) for k in operator.KNOBS}
    prepared = operator.prepare(case.base, case.experts, layout)
    assert isinstance(prepared, Compressed)
    return prepared, settings


def _tasks(case: Case, prepared: Compressed, settings: Settings) -> dict[str, torch.Tensor]:
    found = {}
    for k in range(len(case.experts)):
        into = {name: torch.empty_like(tensor) for name, tensor in case.base.items()}
        prepared.rebuild(settings, k, list(into), into)
        found |= {f"task_{k}/{name}": tensor for name, tensor in into.items()}
    return found


def _emr(case: Case) -> dict[str, torch.Tensor]:
    prepared, settings = _prepared(case, "emr", scale=1.0)
    assert isinstance(prepared, Unified)
    merged = {name: torch.empty_like(tensor) for name, tensor in case.base.items()}
    prepared.apply(settings, list(merged), merged)
    unified = {name: tensor - case.base[name] for name, tensor in merged.items()}
    masks = {
        f"aux/mask/expert_{k}/{name}": ((expert[name] - case.base[name]) * unified[name] > 0).to(torch.uint8)
        for k, expert in enumerate(case.experts)
        for name in unified
    }
    return {
        **{f"aux/unified/{name}": tensor for name, tensor in unified.items()},
        "aux/rescaler": torch.tensor(prepared.rescalers()),
        **masks,
        **_tasks(case, prepared, settings),
    }


def _tall_mask(case: Case) -> dict[str, torch.Tensor]:
    prepared, settings = _prepared(case, "consensus", threshold=case.params["tall_lambda"])
    tasks = _tasks(case, prepared, settings)
    # An entry of τ_M that is exactly 0 leaves no trace in the rebuilt model; the recorded sets have none.
    masks = {
        key.replace("task_", "aux/mask/expert_", 1): (tensor != case.base[key.split("/", 1)[1]]).to(torch.uint8)
        for key, tensor in tasks.items()
    }
    return tasks | masks


def _consensus(case: Case) -> dict[str, torch.Tensor]:
    knobs = {"threshold": case.params["tall_lambda"], "agreement": case.params["k"], "scale": case.params["lambda"]}
    prepared, settings = _prepared(case, "consensus", **knobs)
    merged = {name: torch.empty_like(tensor) for name, tensor in case.base.items()}
    prepared.apply(settings, list(merged), merged)
    masks = {
        f"aux/consensus_mask/{n}": prepared.consensus_mask(n).reshape(t.shape).to(torch.uint8)
        for n, t in merged.items()
    }
    return merged | masks


RUNS = {"emr": _emr, "tall_mask": _tall_mask, "consensus": _consensus}
