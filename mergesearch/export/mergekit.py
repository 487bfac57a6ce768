"""The same merge as a configuration for mergekit, where mergekit can express it exactly.

Read from the sources of mergekit 0.1.4 and 0.1.5: numbers per tensor are lists of {filter, value} (see filters.py),
`lambda` and `t` are read per tensor too, arithmetic is done in `dtype` and rounded to `out_dtype`, and a base that is
not among the models is added without a weight, which `linear` cannot work with. Run with mergekit 0.1.5 on a tiny Llama
of 12 layers, every operator here gave our tensors up to rounding, but for the ties named in `_EQUAL_MAGNITUDES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mergesearch.export.filters import Setting, as_setting
from mergesearch.operators.base import Layout
from mergesearch.recipe import Recipe

MERGEKIT_FILE = "mergekit.yaml"

# Architectures of one module that mergekit 0.1.4 describes. It guesses others from their tensor names, but not with
# the transformers releases that this package needs, so they count as not expressible.
ARCHITECTURES = frozenset(
    {
        "ArceeForCausalLM",
        "BertForMaskedLM",
        "BertForSequenceClassification",
        "BertForTokenClassification",
        "BertModel",
        "Cohere2ForCausalLM",
        "CohereForCausalLM",
        "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification",
        "DistilBertForTokenClassification",
        "DistilBertModel",
        "FalconForCausalLM",
        "GPT2ForSequenceClassification",
        "GPT2LMHeadModel",
        "GPTBigCodeForCausalLM",
        "GPTNeoXForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "GemmaForCausalLM",
        "Glm4ForCausalLM",
        "Lfm2ForCausalLM",
        "LlamaForCausalLM",
        "LlamaForSequenceClassification",
        "MambaForCausalLM",
        "MistralForCausalLM",
        "Olmo2ForCausalLM",
        "Phi3ForCausalLM",
        "PhiForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
        "RobertaModel",
        "StableLmForCausalLM",
        "Starcoder2ForCausalLM",
    }
)


_EQUAL_MAGNITUDES = (
    "# At this precision many changes have equal magnitudes; of those at the threshold mergekit may keep others.\n"
)


@dataclass(frozen=True)
class MergekitConfig:
    """The configuration's text, or None and half a sentence that says why mergekit cannot express the merge."""

    text: str | None
    why_not: str = ""


@dataclass(frozen=True)
class MergekitModels:
    """What mergekit sees of the models: folders, the class named in config.json, and of each tensor of the base its
    dtype ('float32', 'bfloat16', 'int64', ...) and its number of entries."""

    base: str
    experts: Mapping[str, str]
    architecture: str
    dtypes: Mapping[str, str]
    sizes: Mapping[str, int]


def mergekit_config(recipe: Recipe, layout: Layout, models: MergekitModels, heads_apart: bool) -> MergekitConfig:
    """The recipe as mergekit's YAML, or why it cannot be said there."""
    reason = _obstacle(recipe, layout, models, heads_apart)
    if reason:
        return MergekitConfig(None, reason)
    writers = {"task_arithmetic": _task_arithmetic, "linear": _linear, "slerp": _slerp, "ties": _ties}
    names: list[list[str]] = [[] for _ in layout.groups]
    for name, group in layout.group_of.items():
        names[group].append(name)
    body = writers[recipe.operator](recipe, _Numbers(names), models)
    if isinstance(body, str):
        return MergekitConfig(None, body)
    dtype = next(iter(set(models.dtypes.values())))
    body = {**body, "base_model": models.base, "dtype": "float32", "out_dtype": dtype}
    comment = "# Written by mergesearch. Run: mergekit-yaml mergekit.yaml NEW_FOLDER\n"
    if recipe.operator == "ties" and dtype != "float32":
        comment += _EQUAL_MAGNITUDES
    return MergekitConfig(comment + yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120))


def _obstacle(recipe: Recipe, layout: Layout, models: MergekitModels, heads_apart: bool) -> str:
    left = sorted(models.dtypes.keys() - layout.group_of.keys())
    if recipe.operator not in ("task_arithmetic", "linear", "slerp", "ties"):
        return f"its merge methods are not compared with operator {recipe.operator!r}"
    if heads_apart:
        return "the heads are kept apart here, while it merges every tensor of a model"
    if models.architecture not in ARCHITECTURES:
        return f"it has no description of {models.architecture or 'a model without a named architecture'}"
    if left:
        return f"tensor {left[0]!r} is not merged here by itself, while it merges each tensor of a file"
    if len({models.base, *models.experts.values()}) <= len(models.experts):
        return "two of the models are the same folder, which it takes for one"
    if any("+" in path for path in (models.base, *models.experts.values())):
        return "it takes the '+' in a model's path for the name of an adapter"
    dtypes = sorted(set(models.dtypes.values()))
    if len(dtypes) != 1 or dtypes[0] not in ("float32", "bfloat16", "float16"):
        return f"it writes one floating dtype, the base has {', '.join(dtypes)}"
    return ""


@dataclass(frozen=True)
class _Numbers:
    """Tensor names of each group, to say one number per group in mergekit's form."""

    names: Sequence[Sequence[str]]

    def __call__(self, values: NDArray[np.float64]) -> Setting:
        """Setting of values (G,), one per group; groups without tensors are left out."""
        kept = [(group, float(v)) for group, v in zip(self.names, values, strict=True) if group]
        return as_setting([group for group, _ in kept], [v for _, v in kept])


def _entries(
    recipe: Recipe, numbers: _Numbers, models: MergekitModels, knobs: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One entry per expert; `knobs` maps mergekit's parameter to our knob."""
    entries = []
    for k, expert in enumerate(recipe.experts):
        parameters = {theirs: numbers(recipe.settings[ours][:, k]) for theirs, ours in knobs.items()}
        entries.append({"model": models.experts[expert], "parameters": parameters})
    return entries


def _task_arithmetic(recipe: Recipe, numbers: _Numbers, models: MergekitModels) -> dict[str, Any]:
    return {
        "merge_method": "task_arithmetic",
        "models": _entries(recipe, numbers, models, {"weight": "coefficient"}),
        "parameters": {
            "normalize": bool(recipe.options.get("normalize", False)),
            "lambda": numbers(recipe.settings["scale"][:, 0]),
        },
    }


def _linear(recipe: Recipe, numbers: _Numbers, models: MergekitModels) -> dict[str, Any]:
    weight = numbers(recipe.settings["base_weight"][:, 0])
    return {
        "merge_method": "linear",
        "models": [
            {"model": models.base, "parameters": {"weight": weight}},
            *_entries(recipe, numbers, models, {"weight": "coefficient"}),
        ],
        "parameters": {"normalize": bool(recipe.options.get("normalize", True))},
    }


def _slerp(recipe: Recipe, numbers: _Numbers, models: MergekitModels) -> dict[str, Any]:
    expert = models.experts[recipe.experts[0]]
    return {
        "merge_method": "slerp",
        "models": [{"model": models.base}, {"model": expert}],
        "parameters": {"t": numbers(recipe.settings["t"][:, 0])},
    }


def _ties(recipe: Recipe, numbers: _Numbers, models: MergekitModels) -> dict[str, Any] | str:
    if recipe.options.get("scope", "tensor") != "tensor":
        return "it trims each tensor by itself, this merge takes one threshold over the whole model"
    entries = _entries(recipe, numbers, models, {"weight": "coefficient"})
    for k, entry in enumerate(entries):
        entry["parameters"]["density"] = _densities(numbers.names, recipe.settings["density"][:, k], models.sizes)
    return {
        "merge_method": "ties",
        "models": entries,
        "parameters": {
            "normalize": bool(recipe.options.get("normalize", True)),
            "lambda": numbers(recipe.settings["scale"][:, 0]),
        },
    }


def _densities(groups: Sequence[Sequence[str]], values: NDArray[np.float64], sizes: Mapping[str, int]) -> Setting:
    """Densities of one expert. mergekit keeps int(density * N) entries of a tensor and refuses 0, we keep 1."""
    names: list[Sequence[str]] = []
    densities: list[float] = []
    for group, value in zip(groups, values, strict=True):
        tiny = [name for name in group if int(value * sizes[name]) == 0]
        rest = [name for name in group if name not in tiny]
        for part, density in ((rest, float(value)), *(([name], 1.5 / sizes[name]) for name in tiny)):
            if part:
                names.append(part)
                densities.append(density)
    return as_setting(names, densities)
