"""mergekit.yaml: its form, its numbers, and the sentences where there is none. test_mergekit_run.py runs mergekit."""

from typing import Any

import numpy as np
import pytest
import yaml
from mergekit_reading import number

from mergesearch.export.mergekit import ARCHITECTURES, MergekitConfig, MergekitModels, mergekit_config
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout
from mergesearch.plugins import load
from mergesearch.recipe import Recipe
from mergesearch.study.mergekit.methods import METHODS

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


def recipe_of(operator: str, layout: Layout, seed: int, options: dict[str, object] | None = None) -> Recipe:
    """A recipe with random settings within each knob's range."""
    generator = np.random.default_rng(seed)
    shape = (len(layout.groups), len(layout.experts))
    settings = {}
    for knob in load("operator", OPERATORS, operator).KNOBS:
        low = max(knob.low, 0.1)
        table = generator.uniform(low, max(min(knob.top(shape[1]), 1.5), low + 0.1), shape)
        per_group = knob.per.value == "group"
        settings[knob.name] = np.repeat(table[:, :1], shape[1], axis=1) if per_group else table
    return Recipe(operator, layout.experts, layout.groups, settings, options or {})


def sayable(operator: str, layout: Layout) -> Recipe:
    """A recipe of the knobs' starts that mergekit has words for."""
    method, count = METHODS[operator], len(layout.experts)
    settings = {}
    for knob in load("operator", OPERATORS, operator).KNOBS:
        held = method.held.get(knob.name)
        settings[knob.name] = np.full((len(layout.groups), count), knob.start(count) if held is None else held)
    rescaled = any(flag.option == "rescale" for flag in method.flags.values())
    options: dict[str, object] = {**method.options, **({"rescale": "l1_norm"} if rescaled else {})}
    return Recipe(operator, layout.experts, layout.groups, settings, options)


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


def body_of(recipe: Recipe, layout: Layout, **changes: Any) -> dict[str, Any]:
    """The configuration as plain values."""
    found = config_of(recipe, layout, **changes)
    assert found.text is not None, found.why_not
    body = yaml.safe_load(found.text)
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize("layout", [LAYERS, MODULES], ids=["layers", "modules"])
@pytest.mark.parametrize("operator", ["task_arithmetic", "ties"])
def test_every_tensor_gets_its_own_number(operator: str, layout: Layout) -> None:
    """Layer-wise and module-wise numbers survive the translation, the embeddings', the last norm's and the head's."""
    recipe = recipe_of(operator, layout, seed=3)
    body = body_of(recipe, layout)
    for name, group in layout.group_of.items():
        for k, expert in enumerate(layout.experts):
            assert number(body, "weight", f"/{expert}", name) == recipe.settings["coefficient"][group, k]
        assert number(body, "lambda", None, name) == recipe.settings["scale"][group, 0]


def test_layers_are_one_layer_slices_with_plain_numbers() -> None:
    """Only the first and the last slice name tensors: they speak for what stands outside the layers too."""
    body = body_of(recipe_of("task_arithmetic", LAYERS, 0), LAYERS)
    assert [part["sources"][0]["layer_range"] for part in body["slices"]] == [[i, i + 1] for i in range(12)]
    for part in body["slices"][1:-1]:
        for source in part["sources"][1:]:
            assert isinstance(source["parameters"]["weight"], float)
    assert isinstance(body["slices"][0]["sources"][1]["parameters"]["weight"], list)


def test_one_number_for_all_layers_is_said_once() -> None:
    """A merge that does not differ from layer to layer names whole models."""
    recipe = recipe_of("task_arithmetic", LAYERS, 0)
    flat = {knob: np.full_like(table, 1e-05) for knob, table in recipe.settings.items()}
    found = config_of(Recipe("task_arithmetic", recipe.experts, recipe.groups, flat), LAYERS)
    assert found.text is not None
    assert "slices" not in yaml.safe_load(found.text)
    assert "{weight: 1.0e-05}" in found.text  # YAML 1.1 reads 1e-05 as text


def test_layer_1_does_not_reach_layer_11() -> None:
    """Where whole models are named by filters, these are cut at dots."""
    recipe = recipe_of("task_arithmetic", MODULES, 0)
    filters = [entry["filter"] for entry in body_of(recipe, MODULES)["models"][1]["parameters"]["weight"]]
    assert "model.layers.1.self_attn.q_proj.weight" in filters


@pytest.mark.parametrize("operator", sorted(METHODS.keys() & OPERATORS.keys()))
def test_a_base_is_named(operator: str) -> None:
    """Without one, mergekit takes config.json and the tokenizer from any of the models."""
    kind = load("operator", OPERATORS, operator)
    layout = Layout(("a", "b")[: kind.MAX_EXPERTS or 2], LAYERS.groups, LAYERS.group_of)
    assert body_of(sayable(operator, layout), layout)["base_model"] == "/base"


@pytest.mark.parametrize("operator", sorted({"nuslerp", "multi_slerp"} & OPERATORS.keys()))
def test_no_base_is_named_where_mergekit_would_take_differences_from_it(operator: str) -> None:
    """These methods turn the weights themselves only where there is no base."""
    recipe = sayable(operator, LAYERS)
    found = config_of(Recipe(operator, recipe.experts, recipe.groups, recipe.settings, {"task_vectors": False}), LAYERS)
    assert found.text is not None
    assert "No base_model" in found.text
    assert "/base" not in yaml.safe_dump(yaml.safe_load(found.text))


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
        ({"experts": {"a": "/a@1", "b": "/c"}}, "revision"),
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


UNSAID = [
    ("ties", {"scope": "global"}, {}, "'scope' 'tensor', here it is 'global'"),
    ("slerp", {}, {"scale": 0.5}, "no 'scale': it is ours where that is 1"),
    ("model_stock", {}, {"scale": 0.5}, "no 'scale'"),
    ("model_stock", {"angle": "degrees"}, {}, "'angle' 'cosine', here it is 'degrees'"),
    ("karcher", {}, {"coefficient": [0.2, 0.8]}, "treats all models alike"),
    ("karcher", {"task_vectors": True}, {}, "'task_vectors' False"),
    ("arcee_fusion", {}, {"threshold": 2.0}, "where that is 1.5"),
    (
        "dare_linear",
        {"rescale": "inverse_density"},
        {},
        "nothing like option 'rescale' with the value 'inverse_density'",
    ),
    ("della", {"rescale": "inverse_probability"}, {}, "nothing like option 'rescale'"),
    ("sce", {}, {"coefficient": 0.5}, "no 'coefficient'"),
    ("sce", {"reference_floors": False}, {}, "'reference_floors' True, here it is False"),
    ("ram", {}, {"epsilon": [1e-4, 1e-5]}, "one 'epsilon' for all models"),
    ("ram_plus", {"ratio_scope": "global"}, {}, "'ratio_scope' 'tensor'"),
]


@pytest.mark.parametrize(("operator", "options", "values", "words"), [u for u in UNSAID if u[0] in OPERATORS])
def test_a_knob_or_option_that_mergekit_lacks_is_named(
    operator: str, options: dict[str, object], values: dict[str, Any], words: str
) -> None:
    """It is never dropped in silence."""
    kind = load("operator", OPERATORS, operator)
    layout = Layout(("a", "b")[: kind.MAX_EXPERTS or 2], LAYERS.groups, LAYERS.group_of)
    recipe = sayable(operator, layout)
    settings = {k: np.broadcast_to(values.get(k, table), table.shape) for k, table in recipe.settings.items()}
    changed = Recipe(operator, recipe.experts, recipe.groups, settings, {**recipe.options, **options})
    found = config_of(changed, layout)
    assert found.text is None
    assert words in found.why_not


@pytest.mark.parametrize("operator", sorted({"dare_linear", "della"} & OPERATORS.keys()))
def test_the_seed_of_another_draw_is_named(operator: str) -> None:
    """In the comment, and in the command that the card gives."""
    recipe = sayable(operator, LAYERS)
    found = config_of(
        Recipe(operator, recipe.experts, recipe.groups, recipe.settings, {**recipe.options, "seed": 7}), LAYERS
    )
    assert found.text is not None
    assert found.command == "mergekit-yaml mergekit.yaml NEW_FOLDER --random-seed 7"
    assert f"# Written by mergesearch. Run: {found.command}\n# Mergekit draws random numbers" in found.text


def test_the_densities_of_ties_keep_an_entry_of_every_tensor() -> None:
    """mergekit 0.1.4 stops where a tensor would lose every entry; we keep one, and say so in its numbers."""
    recipe = recipe_of("ties", LAYERS, 0)
    settings = {**recipe.settings, "density": np.full((14, 2), 0.03)}
    body = body_of(Recipe("ties", recipe.experts, recipe.groups, settings), LAYERS)
    density = number(body, "density", "/a", NAMES[0])
    assert density is not None
    assert int(density * 24) == 1


def test_every_operator_has_a_configuration_or_a_reason() -> None:
    """A new operator is either translated or refused in words, never dropped."""
    for operator in OPERATORS:
        layout = Layout(("a",), LAYERS.groups, LAYERS.group_of)
        found = config_of(recipe_of(operator, layout, 0), layout)
        assert found.text is not None or found.why_not


def test_architectures_are_class_names() -> None:
    """The table holds names as config.json has them."""
    assert all(name.isidentifier() for name in ARCHITECTURES)
