"""A genome config of mergekit-evolve as a draft of a study: what it searches, with which ranges, on which tasks.

Read from mergekit 0.1.5 (evo/genome.py, evo/config.py): one number per parameter, model, run of `layer_granularity`
layers and filter; weights start at 1/n and densities at 1, weights are taken without their sign unless
`allow_negative_weights`, densities are clipped to [0, 1].
"""

import re
from collections.abc import Mapping
from typing import Any

from mergesearch.checkpoints.groups import Shapes
from mergesearch.errors import SpecError
from mergesearch.merging import make_operator
from mergesearch.plugins import did_you_mean
from mergesearch.study.mergekit.config import model_path, tokenizer_notes
from mergesearch.study.mergekit.draft import Draft, distinct, expert_names
from mergesearch.study.mergekit.groups import layer_count, layer_prefix, tensor_shapes
from mergesearch.study.mergekit.merge import operator_kind
from mergesearch.study.mergekit.methods import METHODS, Base

SEARCHED = ("linear", "task_arithmetic", "ties", "dare_ties", "slerp")
NORMALIZED = ("linear", "ties", "dare_ties")
EVALUATIONS = 100  # mergekit-evolve's --max-fevals where it is not given
LOWEST_WEIGHT = -0.5

_GENOME = ("models", "merge_method", "base_model", "tokenizer_source", "layer_granularity", "normalize",
           "allow_negative_weights", "filters", "smooth")  # fmt: skip
_TOP = ("genome", "tasks", "limit", "num_fewshot", "shuffle", "random_init", "apply_chat_template",
        "fewshot_as_multiturn")  # fmt: skip


def draft_of_genome(body: Mapping[str, Any], name: str) -> Draft:
    """The draft of a genome config; its tasks stand as a comment in place of the objectives.

    Raises:
        SpecError: what a study cannot say, by name.
    """
    _known(body, _TOP, "a mergekit-evolve config")
    genome = body["genome"]
    if not isinstance(genome, Mapping):
        raise SpecError(f"'genome' is a mapping, got {genome!r}")
    _known(genome, _GENOME, "genome")
    method = str(genome.get("merge_method"))
    if method not in SEARCHED:
        raise SpecError(f"genome.merge_method {method!r} is none of mergekit-evolve's{did_you_mean(method, SEARCHED)}")
    kind = operator_kind(method)
    if genome.get("smooth"):
        raise SpecError("'smooth' interpolates between layers; a study has a number for each group of layers: leave it "
                        "out, with a smaller layer_granularity")  # fmt: skip
    base, experts, notes = _models(genome, kind)
    shapes = tensor_shapes(base)
    groups, why = _groups(genome, base, shapes)
    options, knobs = _merge(genome, kind)
    if body.get("random_init"):
        notes += ("'random_init' is left out: a study begins at its start.",)
    return Draft(
        name=name,
        origin=f"mergekit-evolve config (merge_method: {method})",
        base=base,
        experts=expert_names(experts),
        operator=kind,
        options=options,
        space={"groups": groups, **knobs},
        strategy={"kind": "cma_es", "seed": 0},
        evaluations=EVALUATIONS,
        objectives=_objectives(body),
        notes=(*notes, *tokenizer_notes(genome, base if genome.get("base_model") else None)),
        space_notes=(why,),
    )


def _known(found: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in keys:
            raise SpecError(f"{where} has no key {key!r}{did_you_mean(str(key), keys)}")


def _models(genome: Mapping[str, Any], kind: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Base, experts and sentences about them."""
    listed = genome.get("models")
    if not isinstance(listed, list) or not listed:
        raise SpecError("genome.models is a list with at least one model")
    models = tuple(model_path(model, f"genome.models[{i}]") for i, model in enumerate(listed))
    distinct(models, "genome.models")
    named = model_path(genome["base_model"], "genome.base_model") if genome.get("base_model") else None
    if kind == "slerp":
        if len(models) != 2 or named not in (None, *models):
            raise SpecError("mergekit-evolve's 'slerp' takes anew, for each run of layers, the two models with the "
                            "highest numbers; a study has a base and one expert: name two models")  # fmt: skip
        base = named or models[0]
        note = "mergekit-evolve chooses for each run of layers which of the two is the base; here it is one for all."
        return base, tuple(m for m in models if m != base), (note,)
    if named is None and METHODS[kind].base is not Base.WEIGHED:
        raise SpecError(f"genome: merge_method {kind!r} needs a base_model")
    if named is None:
        if len(models) < 2:
            raise SpecError("genome.models: there is only one model, and nothing to merge it with")
        note = "The genome names no base_model: its first model stands as the base, with its weight as 'base_weight'."
        return models[0], models[1:], (note,)
    experts = tuple(model for model in models if model != named)
    if not experts:
        raise SpecError(f"genome.models: there is no model beside the base_model {named!r}")
    return named, experts, ()


def _merge(genome: Mapping[str, Any], kind: str) -> tuple[dict[str, object], dict[str, object]]:
    """Options of the operator, and its knobs in the study's space."""
    method, negative = METHODS[kind], bool(genome.get("allow_negative_weights"))
    options: dict[str, object] = dict(method.options)
    for word, flag in method.flags.items():
        options[flag.option] = flag.ours(flag.default)
        if word == "normalize":
            normalize = genome.get("normalize")
            options["normalize"] = kind in NORMALIZED if normalize is None else bool(normalize)
    if negative and options.get("normalize") and kind in ("ties", "dare_ties"):
        raise SpecError(f"allow_negative_weights with a normalised {kind!r} divides by sums near 0, which the operator "
                        "refuses; set one of allow_negative_weights and normalize to false")  # fmt: skip
    knobs: dict[str, object] = {}
    for knob in make_operator(kind, options).KNOBS:
        weight = knob.name in ("coefficient", "base_weight")
        if knob.name == "base_weight" and genome.get("base_model") not in (None, *genome["models"]):
            continue  # mergekit-evolve adds this base without a weight
        if weight:
            low = LOWEST_WEIGHT if negative else 0.0
            knobs[knob.name] = {
                "low": low,
                "high": max(knob.top(1), 1.0),
                "init": float(f"{1 / len(genome['models']):.6g}"),
            }
        elif knob.name == "density":
            knobs[knob.name] = {"low": knob.low, "high": 1.0, "init": 1.0, "scale": "linear"}
    return options, knobs


def _groups(genome: Mapping[str, Any], base: str, shapes: Shapes) -> tuple[object, str]:
    """The study's layer groups for runs of layers and filters, and a sentence about them."""
    size, filters = genome.get("layer_granularity", 0), genome.get("filters") or []
    if isinstance(size, bool) or not isinstance(size, int):
        raise SpecError(f"genome.layer_granularity is a whole number of layers, got {size!r}")
    if size < 1 and not filters:
        return "model", "One number for all layers (layer_granularity 0); 'block' would search every layer by itself."
    if size == 1 and not filters:
        return "block", _OUTSIDE
    if not shapes:
        raise SpecError(f"the groups depend on the base's layers, and {base!r} is no folder here: download it first")
    layers = layer_count(shapes)
    if size >= 1 and layers % size:
        raise SpecError(f"genome.layer_granularity {size} does not divide the base's {layers} layers")
    if not filters:
        return {"chunks": layers // size}, _OUTSIDE
    return _by_expressions(size, [str(f) for f in filters], layers, shapes), "Groups by runs of layers and filters."


_OUTSIDE = (
    "A group for each run of layers. What stands outside the layers has numbers of its own here; mergekit-evolve gives "
    "the embeddings the first layers' and the head the last layers'."
)


def _by_expressions(size: int, filters: list[str], layers: int, shapes: Shapes) -> dict[str, str]:
    """Expressions for each filter in each run of layers, as far as they decide a tensor; the first that fits counts."""
    runs = [""] if size < 1 else []
    prefix = layer_prefix(shapes)
    for start in range(0, layers, size) if size >= 1 else ():
        numbers = "|".join(str(n) for n in range(start, start + size))
        runs.append(rf"^{re.escape(prefix)}({numbers})\.")
    left, found = set(shapes), dict[str, str]()
    for i, run in enumerate(runs):
        label = f"C{i}." if run else ""
        for part in (*filters, ""):
            expression = f"(?=.*{re.escape(part)}){run}" if part and run else re.escape(part) or run or ".*"
            mine = {name for name in left if re.search(expression, name)}
            left -= mine
            if mine:
                found[expression] = f"{label}{part or 'rest'}"
    return {**found, **({".*": "outside"} if left else {})}


def _objectives(body: Mapping[str, Any]) -> str:
    """The tasks as a comment: what is to be filled in."""
    lines = ["# FILL IN at least one objective. The config's tasks are lm-evaluation-harness tasks, for which there is",
             "# no scorer yet; `mergesearch list scorers` has the kinds there are. The tasks were:"]  # fmt: skip
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise SpecError("a mergekit-evolve config has a list of 'tasks'")
    for task in tasks:
        entry = {"name": task} if isinstance(task, str) else task
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise SpecError(f"a task is a name, or a mapping with a name, got {task!r}")
        _known(entry, ("name", "weight", "metric"), "a task")
        weight, metric = entry.get("weight", 1.0), entry.get("metric", "acc,none")
        lines.append(f"#   {entry['name']}: metric {metric}, weight {weight}")
    said = [f"{key} {body[key]}" for key in ("limit", "num_fewshot", "shuffle", "apply_chat_template") if key in body]
    if said:
        lines.append(f"#   with {', '.join(said)}")
    return "\n".join(lines) + "\n"
