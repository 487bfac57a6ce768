"""The same merge as a configuration for mergekit, where mergekit can express it exactly.

Read from the source of mergekit 0.1.5 and proved by running it (tests/export/test_mergekit_run.py): numbers are said
for each tensor (mergekit_layers.py, filters.py), arithmetic is done in `dtype` and rounded to `out_dtype`, and a base
is named wherever that is possible, since without one mergekit takes config and tokenizer from any of the models. Every
operator gives our tensors up to rounding, but for the ties named in `_EQUAL_MAGNITUDES` and for masks that mergekit
draws at random.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from mergesearch.export.mergekit_layers import body_of
from mergesearch.export.mergekit_methods import translate
from mergesearch.operators.base import Layout
from mergesearch.recipe import Recipe
from mergesearch.study.mergekit.methods import METHODS, Base

MERGEKIT_FILE = "mergekit.yaml"
OTHER_DRAW = "mergekit draws random numbers of its own, so its merge is another draw of this one, not the same tensors"

# Architectures of one module that mergekit describes. It guesses others from their tensor names, but its guess of what
# is tied and what may be missing is not compared with ours, so they count as not expressible.
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
_NO_BASE = (
    "# No base_model, since mergekit would take differences from it; so config.json and tokenizer are any model's.\n"
)
_SELECTING = frozenset({"ties", "breadcrumbs", "breadcrumbs_ties", "sce"})


@dataclass(frozen=True)
class MergekitConfig:
    """The configuration's text, or None and half a sentence that says why mergekit cannot express the merge.

    `seed`: where mergekit draws random numbers, the seed to give it.
    """

    text: str | None
    why_not: str = ""
    seed: int | None = None

    @property
    def command(self) -> str:
        """What to type to run it."""
        return _command(self.seed)


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
    said = translate(recipe, layout, models.sizes)
    if isinstance(said, str):
        return MergekitConfig(None, said)
    dtype = next(iter(set(models.dtypes.values())))
    folders = {name: models.experts[name] for name in recipe.experts}
    body = body_of(said, layout, models.base, folders)
    if isinstance(body, str):
        return MergekitConfig(None, body)
    body |= {"dtype": "float32", "out_dtype": dtype}
    comment = f"# Written by mergesearch. Run: {_command(said.draw)}\n"
    if said.draw is not None:
        comment += f"# {OTHER_DRAW[0].upper()}{OTHER_DRAW[1:]}.\n"
    if said.base is Base.ABSENT:
        comment += _NO_BASE
    if said.method.caveat:
        comment += f"# {said.method.caveat[0].upper()}{said.method.caveat[1:]}\n"
    if recipe.operator in _SELECTING and dtype != "float32":
        comment += _EQUAL_MAGNITUDES
    # PyYAML writes 1e-05 as 1.0e-05, which YAML 1.1 reads as a number.
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return MergekitConfig(comment + text, seed=said.draw)


def _command(seed: int | None) -> str:
    return f"mergekit-yaml {MERGEKIT_FILE} NEW_FOLDER" + ("" if seed is None else f" --random-seed {seed}")


def _obstacle(recipe: Recipe, layout: Layout, models: MergekitModels, heads_apart: bool) -> str:
    """Why the models cannot be said, whatever the numbers; '' where they can."""
    left = sorted(models.dtypes.keys() - layout.group_of.keys())
    if recipe.operator not in METHODS:
        return f"it has no operator like {recipe.operator!r}"
    if heads_apart:
        return "the heads are kept apart here, while it merges every tensor of a model"
    if models.architecture not in ARCHITECTURES:
        return f"it has no description of {models.architecture or 'a model without a named architecture'}"
    if left:
        return f"tensor {left[0]!r} is not merged here by itself, while it merges each tensor of a file"
    folders = (models.base, *models.experts.values())
    if len(set(folders)) < len(folders):
        return "two of the models are the same folder, which it takes for one"
    for mark, meaning in (("+", "an adapter"), ("@", "a revision")):
        if any(mark in path for path in folders):
            return f"it takes the {mark!r} in a model's path for the name of {meaning}"
    dtypes = sorted(set(models.dtypes.values()))
    if len(dtypes) != 1 or dtypes[0] not in ("float32", "bfloat16", "float16"):
        return f"it writes one floating dtype, the base has {', '.join(dtypes)}"
    return ""
