"""mergekit.yaml says the same merge, as far as `mergekit_reading.py` reads it right."""

from typing import Any

import numpy as np
import pytest
import torch
import yaml
from mergekit_reading import Model, merged_by

from mergesearch.export.mergekit import ARCHITECTURES, MergekitConfig, MergekitModels, mergekit_config
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout
from mergesearch.plugins import load, parse_options
from mergesearch.recipe import Recipe

NAMES = (
    ["model.embed_tokens.weight"]
    + [f"model.layers.{i}.{part}.weight" for i in range(12) for part in ("self_attn.q_proj", "mlp.up_proj", "norm")]
    + ["model.norm.weight", "lm_head.weight"]
)
LAYERS = Layout(
    ("a", "b"),
    ("embed", *(f"layer{i}" for i in range(12)), "head"),
    {n: 1 + int(n.split(".")[2]) if ".layers." in n else (0 if "embed" in n else 13) for n in NAMES},
)
MODULES = Layout(
    ("a", "b"), ("attention", "rest"), {name: 0 if "self_attn" in name else 1 for name in NAMES}
)  # no prefix tells these groups apart


def random_models(count: int) -> dict[str, Model]:
    """A base and experts near it: model name -> tensors."""
    generator = torch.Generator().manual_seed(0)
    base = {n: torch.randn((4, 6) if "norm" not in n else (40,), generator=generator) for n in NAMES}
    models = {"base": base}
    for name in ("a", "b")[:count]:
        models[name] = {n: t + 0.3 * torch.randn(t.shape, generator=generator) for n, t in base.items()}
    return models


def recipe_of(operator: str, layout: Layout, seed: int, options: dict[str, object] | None = None) -> Recipe:
    """A recipe with random settings within each knob's range."""
    generator = np.random.default_rng(seed)
    shape = (len(layout.groups), len(layout.experts))
    settings = {}
    for knob in load("operator", OPERATORS, operator).KNOBS:
        table = generator.uniform(max(knob.low, 0.1), min(knob.high, 1.5), shape)
        per_group = knob.per.value == "group"
        settings[knob.name] = np.repeat(table[:, :1], shape[1], axis=1) if per_group else table
    return Recipe(operator, layout.experts, layout.groups, settings, options or {})


def config_of(recipe: Recipe, layout: Layout, **changes: Any) -> MergekitConfig:
    """The configuration for models in folders of their own names."""
    options: dict[str, Any] = {
        "base": "/base",
        "experts": {name: f"/{name}" for name in layout.experts},
        "architecture": "LlamaForCausalLM",
        "dtypes": dict.fromkeys(NAMES, "float32"),
        "sizes": dict.fromkeys(NAMES, 24),
    }
    heads_apart = changes.pop("heads_apart", False)
    return mergekit_config(recipe, layout, MergekitModels(**{**options, **changes}), heads_apart)


def ours(recipe: Recipe, layout: Layout, models: dict[str, Model]) -> Model:
    """The merge by our own operator."""
    kind = load("operator", OPERATORS, recipe.operator)
    operator = kind(parse_options("test", kind.Options, recipe.options))
    into = {name: torch.empty_like(tensor) for name, tensor in models["base"].items()}
    prepared = operator.prepare(models["base"], [models[name] for name in layout.experts], layout)
    prepared.apply(recipe.settings, sorted(layout.group_of), into)
    return into


CASES = [
    ("task_arithmetic", LAYERS, {}),
    ("task_arithmetic", MODULES, {}),
    ("task_arithmetic", LAYERS, {"normalize": True}),
    ("linear", LAYERS, {}),
    ("linear", MODULES, {"normalize": False}),
    ("ties", LAYERS, {}),
    ("ties", MODULES, {"normalize": False}),
    ("slerp", LAYERS, {}),
]


@pytest.mark.parametrize(("operator", "layout", "options"), CASES)
def test_the_configuration_gives_the_same_tensors(operator: str, layout: Layout, options: dict[str, object]) -> None:
    """Layer-wise and module-wise coefficients of every operator survive the translation."""
    if operator == "slerp":
        layout = Layout(layout.experts[:1], layout.groups, layout.group_of)
    recipe = recipe_of(operator, layout, seed=3, options=options)
    models = random_models(len(layout.experts))
    text = config_of(recipe, layout).text
    assert text is not None
    body = yaml.safe_load(text)
    wanted = ours(recipe, layout, models)
    for name in NAMES:
        found = merged_by(body, {f"/{key}": model for key, model in models.items()}, name)
        torch.testing.assert_close(found, wanted[name], atol=2e-6, rtol=1e-5)


def test_layer_1_does_not_reach_layer_11() -> None:
    """The filters are cut at dots."""
    text = config_of(recipe_of("task_arithmetic", LAYERS, 0), LAYERS).text
    assert text is not None
    filters = [entry["filter"] for entry in yaml.safe_load(text)["models"][0]["parameters"]["weight"]]
    assert "model.layers.1." in filters
    assert "model.layers.11." in filters


def test_arithmetic_is_in_float32_and_rounded_once() -> None:
    """A bfloat16 base gives bfloat16 weights, merged in float32."""
    recipe = recipe_of("linear", LAYERS, 0)
    text = config_of(recipe, LAYERS, dtypes=dict.fromkeys(NAMES, "bfloat16")).text
    assert text is not None
    body = yaml.safe_load(text)
    assert (body["dtype"], body["out_dtype"]) == ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads_apart": True}, "heads are kept apart"),
        ({"architecture": "ViTForImageClassification"}, "no description of ViTForImageClassification"),
        ({"architecture": ""}, "without a named architecture"),
        ({"experts": {"a": "/same", "b": "/same"}}, "same folder"),
        ({"experts": {"a": "/a+b", "b": "/c"}}, "adapter"),
        ({"dtypes": {**dict.fromkeys(NAMES, "float32"), NAMES[0]: "bfloat16"}}, "bfloat16, float32"),
        (
            {"dtypes": {**dict.fromkeys(NAMES, "float32"), "position_ids": "float32"}},
            "'position_ids' is not merged here",
        ),
    ],
)
def test_what_mergekit_cannot_express_is_said(changes: dict[str, Any], words: str) -> None:
    """No file is better than a wrong one: half a sentence says why."""
    found = config_of(recipe_of("task_arithmetic", LAYERS, 0), LAYERS, **changes)
    assert found.text is None
    assert words in found.why_not


def test_ties_over_the_whole_model_is_not_expressible() -> None:
    """mergekit trims per tensor."""
    found = config_of(recipe_of("ties", LAYERS, 0, {"scope": "global"}), LAYERS)
    assert found.text is None
    assert "whole model" in found.why_not


def test_a_density_that_would_keep_no_entry_keeps_one() -> None:
    """mergekit stops where a tensor would lose every entry; we keep one, and say so in its numbers."""
    recipe = recipe_of("ties", LAYERS, 0)
    settings = {**recipe.settings, "density": np.full((14, 2), 0.03)}
    recipe = Recipe("ties", recipe.experts, recipe.groups, settings)
    models = random_models(2)
    text = config_of(recipe, LAYERS, sizes={name: tensor.numel() for name, tensor in models["base"].items()}).text
    assert text is not None
    wanted = ours(recipe, LAYERS, models)
    for name in NAMES:
        found = merged_by(yaml.safe_load(text), {f"/{key}": model for key, model in models.items()}, name)
        torch.testing.assert_close(found, wanted[name], atol=2e-6, rtol=1e-5)


def test_every_operator_has_a_configuration_or_a_reason() -> None:
    """A new operator is either translated or refused in words, never dropped."""
    for operator in OPERATORS:
        layout = Layout(("a",), LAYERS.groups, LAYERS.group_of)
        found = config_of(recipe_of(operator, layout, 0), layout)
        assert found.text is not None or found.why_not


def test_architectures_are_class_names() -> None:
    """The table holds names as config.json has them."""
    assert all(name.isidentifier() for name in ARCHITECTURES)
