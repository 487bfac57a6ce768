"""mergekit's files become study files, or are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_llama import make_llama

from mergesearch.checkpoints.groups import layer_groups
from mergesearch.errors import SpecError
from mergesearch.export.mergekit import MergekitModels, mergekit_config
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout
from mergesearch.plugins import load
from mergesearch.recipe import Recipe
from mergesearch.space import Per
from mergesearch.study.mergekit import import_mergekit
from mergesearch.study.mergekit.methods import METHODS
from mergesearch.study.resolve import ResolvedStudy, resolve
from mergesearch.study.source import Source, parse_study
from mergesearch.study.spec import StudySpec

OBJECTIVE = "objectives: [{name: o, scorer: text_classification, data: {path: o.csv}}]"
KNOWN = [kind for kind in METHODS if kind in OPERATORS]
TIES = """
models:
  - model: models/base
    # no parameters necessary for base model
  - model: models/a
    parameters: {density: 0.5, weight: 0.5}
  - model: models/b
    parameters: {density: 0.6, weight: 0.3}
merge_method: ties
base_model: models/base
parameters: {normalize: true, int8_mask: true}
dtype: float16
"""
SLERP = """
slices:
  - sources:
      - {model: models/base, layer_range: [0, 4]}
      - {model: models/a, layer_range: [0, 4]}
merge_method: slerp
base_model: models/base
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: bfloat16
"""
GENOME = """
genome:
  models: [models/a, models/b]
  merge_method: ties
  base_model: models/base
  layer_granularity: 2
  normalize: false
  allow_negative_weights: true
tasks:
  - {name: spartqa_train, weight: 0.25, metric: "exact_match,strict-match"}
  - triviaqa_train
limit: 500
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models/base, models/a, models/b: Llamas of four layers."""
    folder = tmp_path_factory.mktemp("import")
    base = make_llama(folder / "models" / "base", layers=4)
    for seed, name in enumerate("ab", start=1):
        make_llama(folder / "models" / name, seed, base, layers=4)
    return folder


@pytest.fixture
def here(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the current one."""
    monkeypatch.chdir(models)
    return models


def text_of(text: str, folder: Path) -> str:
    """The study file that a config becomes."""
    (folder / "config.yaml").write_text(text)
    return import_mergekit(folder / "config.yaml").to_yaml()


def study_of(text: str, folder: Path) -> StudySpec:
    """The study, once its objectives are filled in."""
    made = text_of(text, folder)
    assert made.count("objectives: []") == 1
    return parse_study(Source("study.yaml", made.replace("objectives: []", OBJECTIVE), folder))


def resolved_of(text: str, folder: Path) -> ResolvedStudy:
    """The study with the models it names."""
    return resolve(study_of(text, folder), folder)


def test_a_study_wants_objectives(tmp_path: Path) -> None:
    """It cannot be launched as it is: what is good is not in mergekit's file."""
    text = text_of(TIES, tmp_path)
    assert "FILL IN" in text
    with pytest.raises(SpecError, match=r"study.yaml:\d+:1: .*at least 1 item"):
        parse_study(Source("study.yaml", text, tmp_path))


def test_ties_with_numbers_per_model(here: Path) -> None:
    """Weights are searched from where they are; densities are held, each expert's its own."""
    study = resolved_of(TIES, here)
    assert study.spec.merge.operator == "ties"
    assert study.spec.merge.options == {"scope": "tensor", "normalize": True}
    assert study.spec.models.base == "models/base"
    assert study.spec.models.experts == {"a": "models/a", "b": "models/b"}
    assert [(axis.name, axis.init) for axis in study.space.axes] == [
        ("coefficient.a.model", 0.5),
        ("coefficient.b.model", 0.3),
    ]
    held = study.space.decode(study.space.start)
    np.testing.assert_array_equal(held["density"], [[0.5, 0.6]])
    np.testing.assert_array_equal(held["scale"], [[1.0, 1.0]])


def test_slerp_with_gradients_for_parts_of_layers(here: Path) -> None:
    """The community's favourite: parts of layers become groups, t starts at the mean of the gradients."""
    study = resolved_of(SLERP, here)
    assert study.spec.merge.operator == "slerp"
    assert study.spec.space.groups == "module"
    assert study.spec.models.experts == {"a": "models/a"}
    assert {axis.init for axis in study.space.axes} == {0.5}
    assert any(axis.name == "t.a.L3.self_attn" for axis in study.space.axes)


def test_slices_of_equal_length_are_chunks(here: Path) -> None:
    """Numbers for each slice: a group for each slice."""
    slices = [
        {
            "sources": [
                {"model": "models/a", "layer_range": [first, first + 2], "parameters": {"weight": weight}},
                {"model": "models/base", "layer_range": [first, first + 2]},
            ]
        }
        for first, weight in ((0, 0.2), (2, 0.6))
    ]
    body = {"merge_method": "task_arithmetic", "base_model": "models/base", "slices": slices}
    study = resolved_of(yaml.safe_dump(body), here)
    assert study.spec.space.groups == {"chunks": 2}
    assert study.space.axes[0].init == pytest.approx(0.4)


def test_filters_are_groups(here: Path) -> None:
    """Filters without layers become groups of those names."""
    text = TIES.replace("weight: 0.5}", "weight: [{filter: self_attn, value: 1e-1}, {value: 0.7}]}")
    study = resolved_of(text, here)
    assert study.spec.space.groups == {"self_attn": "self_attn", ".*": "rest"}


def test_linear_without_a_base_takes_its_first_model(here: Path) -> None:
    """It stands as the base, and its weight is searched too."""
    text = """
models:
  - {model: models/a, parameters: {weight: 0.6}}
  - {model: models/b, parameters: {weight: 0.4}}
merge_method: linear
"""
    study = resolved_of(text, here)
    assert study.spec.models.base == "models/a"
    assert [(axis.name, axis.init) for axis in study.space.axes] == [
        ("coefficient.b.model", 0.4),
        ("base_weight.model", 0.6),
    ]


REFUSALS = [
    ({"merge_method": "passthrough"}, "passthrough"),
    ({"merge_method": "dare_tie"}, "'dare_tie' is not expressible; did you mean 'dare_ties'"),
    ({"modules": {"default": {}}}, "'modules'"),
    ({"tokenizer_source": "union"}, "tokenizer_source 'union'"),
    ({"tokenizer_source": "models/a"}, "tokenizer_source 'models/a'"),
    ({"tokenizer": {"source": "base", "tokens": {"<x>": {"source": "models/a"}}}}, "'tokenizer: tokens'"),
    ({"parameters": {"normalise": True}}, "'normalise' is unknown; did you mean 'normalize'"),
    ({"parameters": {"rescale": True}}, "'rescale': True"),
    ({"parameters": {"normalize": [True, False]}}, "'normalize' differs"),
    ({"base_model": None}, "needs a base_model"),
    ({"base_model": "models/base+lora"}, "'models/base\\+lora' is a model with an adapter"),
    ({"base_model": "models/base@main"}, "names a revision"),
    ({"experts": []}, "no key 'experts'"),
    ({"models": [{"model": "models/a"}]}, "needs parameter 'weight' of model 'models/a'"),
    ({"models": [{"model": "models/a", "parameters": {"weight": "much"}}]}, "'weight' is a number, got 'much'"),
    ({"models": [{"model": "models/a", "parameters": {"weight": 1, "lambda": 1}}]}, "'lambda' of model 'models/a'"),
    ({"models": [{"model": "models/a", "weight": 1}]}, "'weight' is not expressible"),
]


@pytest.mark.parametrize(("change", "words"), REFUSALS, ids=lambda x: x if isinstance(x, str) else "")
def test_what_a_study_cannot_say_is_refused_by_name(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Never a study that is another merge."""
    with pytest.raises(SpecError, match=words):
        text_of(yaml.safe_dump({**yaml.safe_load(TIES), **change}), tmp_path)


SLICE_REFUSALS = [
    ([[(0, 2), (2, 4)], [(2, 4), (2, 4)]], "puts layers 0-1, 2-3"),
    ([[(0, 4), (0, 4)], [(2, 4), (2, 4)]], "takes layers 2 to 3 where layer 4 is due"),
    ([[(0, 2), (0, 2)]], "make 2 layers of the base's 4"),
]


@pytest.mark.parametrize(("ranges", "words"), SLICE_REFUSALS, ids=[words for _, words in SLICE_REFUSALS])
def test_layers_are_not_moved(ranges: list[list[tuple[int, int]]], words: str, here: Path) -> None:
    """Layers that are repeated, left out or crossed make another architecture."""
    body = yaml.safe_load(SLERP)
    body["slices"] = [
        {
            "sources": [
                {"model": f"models/{m}", "layer_range": list(r)} for m, r in zip(("base", "a"), pair, strict=True)
            ]
        }
        for pair in ranges
    ]
    with pytest.raises(SpecError, match=words):
        text_of(yaml.safe_dump(body), here)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base_model: x\nexperts: []\n", "mergekit-moe"),
        (TIES + "---" + TIES, "several documents"),
        ("a: 1\n", "neither a merge config"),
        ("- a\n", "neither a merge config"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_other_files_are_refused(text: str, words: str, tmp_path: Path) -> None:
    """mergekit has further kinds of files."""
    with pytest.raises(SpecError, match=words):
        text_of(text, tmp_path)


def test_a_genome_becomes_a_search(here: Path) -> None:
    """Runs of layers are groups, weights may be negative, densities are searched, tasks stand as a comment."""
    study = resolved_of(GENOME, here)
    assert study.spec.merge.operator == "ties"
    assert study.spec.merge.options == {"scope": "tensor", "normalize": False}
    assert study.spec.space.groups == {"chunks": 2}
    by_name = {axis.name: axis for axis in study.space.axes}
    weight, density = by_name["coefficient.b.C1"], by_name["density.a.C0"]
    assert (weight.low < 0, weight.high, weight.init) == (True, 1.5, 0.5)
    assert (density.high, density.init) == (1.0, 1.0)
    assert study.spec.strategy.kind == "cma_es"
    text = text_of(GENOME, here)
    assert "spartqa_train: metric exact_match,strict-match, weight 0.25" in text
    assert "limit 500" in text


def test_filters_of_a_genome_are_groups_in_each_run_of_layers(here: Path) -> None:
    """As in mergekit-evolve, the first filter that a name holds decides; what no run holds is a group of its own."""
    text = GENOME.replace("layer_granularity: 2", "layer_granularity: 2\n  filters: [self_attn, mlp]")
    study = resolved_of(text, here)
    assert set(study.layout.groups) == {
        *(f"C{i}.{part}" for i in (0, 1) for part in ("self_attn", "mlp", "rest")),
        "outside",
    }
    group = {name: study.layout.groups[row] for name, row in study.layout.group_of.items()}
    assert group["model.layers.2.self_attn.q_proj.weight"] == "C1.self_attn"
    assert group["model.layers.1.input_layernorm.weight"] == "C0.rest"
    assert group["lm_head.weight"] == "outside"


@pytest.mark.parametrize("granularity", [0, 1, 4])
def test_granularities(granularity: int, here: Path) -> None:
    """All layers as one, each by itself, or in runs."""
    text = GENOME.replace("layer_granularity: 2", f"layer_granularity: {granularity}")
    wanted = {0: "model", 1: "block", 4: {"chunks": 1}}[granularity]
    assert study_of(text, here).space.groups == wanted


GENOME_REFUSALS = [
    ("layer_granularity: 2", "smooth: true", "'smooth'"),
    ("layer_granularity: 2", "layer_granularity: 3", "does not divide"),
    ("normalize: false", "normalize: true", "allow_negative_weights"),
    ("merge_method: ties", "merge_method: della", "'della' is none of mergekit-evolve's"),
    ("merge_method: ties", "merge_method: slerp", "'slerp' takes anew"),
    ("  base_model: models/base\n", "", "needs a base_model"),
    ("limit: 500", "limits: 500", "did you mean 'limit'"),
    ("models/a, models/b", "models/a, models/a", "stands there twice"),
    ("base_model: models/base", "base_model: elsewhere/base", "no folder here"),
    ("base_model: models/base", "base_model: models/base\n  tokenizer_source: union", "tokenizer_source"),
]


@pytest.mark.parametrize(("old", "new", "words"), GENOME_REFUSALS, ids=[words for *_, words in GENOME_REFUSALS])
def test_what_a_study_cannot_say_of_a_genome_is_refused(old: str, new: str, words: str, here: Path) -> None:
    """By name, with what to do."""
    assert old in GENOME
    with pytest.raises(SpecError, match=words):
        text_of(GENOME.replace(old, new), here)


@pytest.mark.parametrize("kind", KNOWN)
def test_our_export_comes_back(kind: str, here: Path) -> None:
    """mergekit.yaml of a recipe, imported: the same operator, options and models, started at the recipe's numbers."""
    recipe, layout = recipe_of(kind, varied=False)
    study = resolved_of(exported(recipe, layout, here), here)
    assert study.spec.merge.operator == kind
    schema = load("operator", OPERATORS, kind).Options
    assert schema(**study.spec.merge.options) == schema(**recipe.options)
    assert study.base.folder == here / "models" / "base"
    assert {n: c.folder for n, c in study.experts.items()} == {n: here / "models" / n for n in recipe.experts}
    started = study.space.decode(study.space.start)
    for knob, table in recipe.settings.items():
        np.testing.assert_allclose(started[knob], np.broadcast_to(table[:1], started[knob].shape), rtol=1e-9)


@pytest.mark.parametrize("kind", KNOWN)
def test_a_layer_wise_export_comes_back_layer_wise(kind: str, here: Path) -> None:
    """One-layer slices are read as layers again."""
    recipe, layout = recipe_of(kind, varied=True)
    study = resolved_of(exported(recipe, layout, here), here)
    assert study.spec.merge.operator == kind
    if any(knob in METHODS[kind].inputs.values() or knob in METHODS[kind].shared.values() for knob in varied(kind)):
        assert study.layout.groups == layout.groups
        assert study.layout.group_of == layout.group_of


def varied(kind: str) -> set[str]:
    """The knobs that a layer-wise study searches by itself."""
    return {
        knob.name for knob in load("operator", OPERATORS, kind).KNOBS if knob.searched and knob.per is not Per.STUDY
    }


def recipe_of(kind: str, varied: bool) -> tuple[Recipe, Layout]:
    """A recipe that mergekit can say: searched numbers by layer where `varied`, all others at mergekit's values."""
    method, operator = METHODS[kind], load("operator", OPERATORS, kind)
    experts = ("a",) if operator.MAX_EXPERTS == 1 else ("a", "b")
    names = ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"] + [
        f"model.layers.{i}.{part}.weight"
        for i in range(4)
        for part in ("input_layernorm", "post_attention_layernorm", "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj",
                     *(f"self_attn.{p}_proj" for p in "qkvo"))
    ]  # fmt: skip
    grouping = layer_groups(dict.fromkeys(names, ()), "block")
    layout = Layout(experts, grouping.groups, grouping.group_of)
    shape = (len(layout.groups), len(experts))
    settings = {}
    for knob in operator.KNOBS:
        held = method.held.get(knob.name)
        settings[knob.name] = np.full(shape, knob.start(len(experts)) if held is None else held)
        said = knob.name in (*method.inputs.values(), *method.shared.values()) or (kind, knob.name) == ("nuslerp", "t")
        if said and not knob.whole:
            settings[knob.name] *= 0.9
            if varied and knob.searched:
                settings[knob.name] = settings[knob.name] * np.linspace(0.5, 1.0, shape[0])[:, None]
    options: dict[str, object] = dict(method.options)
    if any(flag.option == "rescale" for flag in method.flags.values()):
        options["rescale"] = "l1_norm"
    return Recipe(kind, experts, layout.groups, settings, options), layout


def exported(recipe: Recipe, layout: Layout, folder: Path) -> str:
    """Its mergekit.yaml."""
    names = {name: str(folder / "models" / name) for name in ("base", *recipe.experts)}
    models = MergekitModels(
        names.pop("base"), names, "LlamaForCausalLM", dict.fromkeys(layout.group_of, "float32"),
        dict.fromkeys(layout.group_of, 1000),
    )  # fmt: skip
    config = mergekit_config(recipe, layout, models, heads_apart=False)
    assert config.text is not None, config.why_not
    return config.text
