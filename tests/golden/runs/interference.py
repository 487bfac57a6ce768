"""How the cases of the interference-minimising operators are run."""

import re

import torch
from golden.cases import Case


def _patterns(case: Case) -> list[str]:
    """Names of the tensors that keep the base's values: a pattern of the index matches from the start of a name."""
    return [n for n in case.base if any(re.match(p, n) for p in case.params.get("exclude_regex", ()))]


def _knobs(case: Case) -> dict[str, object]:
    knobs: dict[str, object] = {"scale": case.params.get("scaling", case.params.get("lambda", 1.0))}
    if case.weights is not None:
        knobs["coefficient"] = case.weights
    return knobs


def _wudi(case: Case) -> dict[str, torch.Tensor]:
    options = {"steps": case.params["iterations"], "learning_rate": case.params["learning_rate"]}
    exclude = case.params.get("exclude", ())
    return case.merge("wudi", _knobs(case), solver="gradient", exclude=exclude, at_base=_patterns(case), **options)


def _optmerge(case: Case) -> dict[str, torch.Tensor]:
    names = {"iterations": "steps", "learning_rate": "learning_rate", "momentum": "momentum"}
    options = {ours: case.params[theirs] for theirs, ours in names.items() if theirs in case.params}
    return case.merge("optmerge", _knobs(case), exclude=["*lm_head*"], at_base=_patterns(case), **options)


def _swudi(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    knobs = _knobs(case) | {"rank_ratio": params.get("truncate_rank_ratio", 0.65) or 1.0}
    options = {"init": params.get("init_mode", "sum"), "exclude": ["*lm_head*"], "at_base": _patterns(case)}
    if params.get("filter_type") == "none":
        return case.merge("wudi", knobs, solver="adaptive", rank_rule="ratio", **options)
    return case.merge("wudi", knobs | {"time": params.get("exp_time", 300.0)}, solver="closed", **options)


def _aswudi(case: Case) -> dict[str, torch.Tensor]:
    params, knobs = case.params, _knobs(case)
    options = {"init": params.get("init_mode", "sum"), "exclude": ["*lm_head*"], "at_base": _patterns(case)}
    rule, _, share = params.get("auto_rank_method", "participation_sqrt").partition("cumvar_")
    if share:
        options |= {"rank_rule": "cumvar", "share": float(share)}
    elif rule == "none":
        options["rank_rule"] = "ratio"
        knobs["rank_ratio"] = 1.0
    else:
        options["rank_rule"] = rule
    return case.merge("wudi", knobs, solver="adaptive", **options)


def _doge(case: Case) -> dict[str, torch.Tensor]:
    params = case.params
    knobs = {"eta": params["lamda"], "subspace": params["subspace"], "density": params["top_k_percent"] / 100}
    if case.weights is not None:
        knobs["coefficient"] = case.weights
    options = {"steps": params["iterations"], "learning_rate": params["learning_rate"]}
    return case.merge("doge", knobs, exclude=[n for n in case.base if n not in params["tensors"]], **options)


RUNS = {"wudi": _wudi, "optmerge_wudi2": _optmerge, "swudi": _swudi, "aswudi": _aswudi, "doge_ta": _doge}
