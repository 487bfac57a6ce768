"""Tiny Llamas, our merge of them, and mergekit's merge of them by our mergekit.yaml."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from mergesearch.checkpoints.groups import Granularity, group_tensors
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.export.checkpoint import MergePlan, build
from mergesearch.export.export import plan_mergekit
from mergesearch.export.mergekit import MergekitConfig
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout
from mergesearch.plugins import load
from mergesearch.recipe import Recipe
from mergesearch.space import Per

DRIVER = Path(__file__).with_name("mergekit_driver.py")
PYTHON_VARIABLE = "MERGESEARCH_MERGEKIT_PYTHON"
Model = Mapping[str, torch.Tensor]


def interpreter() -> str | None:
    """The Python that has mergekit: the one the variable names, else this one; None where neither has it."""
    named = os.environ.get(PYTHON_VARIABLE)
    return named or (sys.executable if importlib.util.find_spec("mergekit") else None)


@dataclass(frozen=True)
class Case:
    """A merge to compare. `values` overrides what `settings_of` draws for a knob."""

    name: str
    operator: str
    options: Mapping[str, object] = field(default_factory=dict)
    values: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    groups: Granularity = "block"
    experts: int = 2
    models: str = "untied"
    exact: bool = True  # False: mergekit draws its own masks


def plan_of(case: Case, folder: Path) -> MergePlan:
    """What an export of the case builds, from the models in `folder`."""
    base = Checkpoint.open(folder / "base")
    experts = {name: Checkpoint.open(folder / name) for name in ("a", "b", "c")[: case.experts]}
    grouping = group_tensors(base, case.groups)
    layout = Layout(tuple(experts), grouping.groups, grouping.group_of)
    recipe = Recipe(case.operator, layout.experts, layout.groups, settings_of(case, layout), case.options)
    return MergePlan(recipe, layout, base, experts, (), ())


def settings_of(case: Case, layout: Layout) -> dict[str, NDArray[np.float64]]:
    """Settings that differ from group to group for what a search would vary, the knobs' starts for the rest."""
    generator = np.random.default_rng(7)
    shape = (len(layout.groups), len(layout.experts))
    settings = {}
    for knob in load("operator", OPERATORS, case.operator).KNOBS:
        table = np.full(shape, knob.start(len(layout.experts)))
        if knob.name in case.values:
            table = np.broadcast_to(np.asarray(case.values[knob.name], dtype=float), shape)
        elif knob.searched:
            table = generator.uniform(max(knob.low, 0.15), min(knob.top(len(layout.experts)), 1.0) * 0.9, shape)
        if knob.per in (Per.GROUP, Per.STUDY):
            table = np.repeat(table[:, :1], shape[1], axis=1)
        settings[knob.name] = table.copy()
    return settings


@dataclass(frozen=True)
class Outcome:
    """Our tensors, mergekit's, and the configuration that it ran."""

    plan: MergePlan
    ours: Model
    theirs: Model
    config: MergekitConfig


def run_mergekit(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Type `mergekit-yaml` with each list of arguments, all in one process."""
    python = interpreter()
    assert python is not None
    (folder / "commands.json").write_text(json.dumps([[*c, "--no-copy-tokenizer", "--quiet"] for c in commands]))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [python, str(DRIVER), str(folder / "commands.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def outcomes(cases: Sequence[Case], models: Path, folder: Path) -> dict[str, Outcome]:
    """Every case by both, mergekit by the command that stands in the card.

    `models` has a folder for each family of models that a case names.
    """
    plans = {case.name: plan_of(case, models / case.models) for case in cases}
    configs = {name: plan_mergekit(plan) for name, plan in plans.items()}
    commands = []
    for name, config in configs.items():
        assert config.text is not None, f"{name}: {config.why_not}"
        (folder / f"{name}.yaml").write_text(config.text)
        said = {"mergekit.yaml": str(folder / f"{name}.yaml"), "NEW_FOLDER": str(folder / name)}
        program, *arguments = config.command.split()
        assert program == "mergekit-yaml"
        commands.append([said.get(word, word) for word in arguments])
    run_mergekit(commands, folder)
    return {
        name: Outcome(plan, build(plan), load_file(next((folder / name).glob("*.safetensors"))), configs[name])
        for name, plan in plans.items()
    }
