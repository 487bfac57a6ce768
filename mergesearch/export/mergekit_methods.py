"""A recipe in mergekit's words: its method, a number per tensor for each of its parameters, its flags; or why not.

Strict by design: a knob or an option that the table of methods does not know makes the merge not expressible, so a new
one cannot be dropped without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mergesearch.merging import make_operator
from mergesearch.operators import OPERATORS
from mergesearch.operators.base import Layout
from mergesearch.plugins import PluginOptions, load, parse_options
from mergesearch.recipe import Recipe
from mergesearch.study.mergekit.methods import METHODS, Base, Method, Value

Numbers: TypeAlias = Mapping[str, float]
"""Tensor name -> number."""

_Tables: TypeAlias = dict[str, NDArray[np.float64]]

BASE_WEIGHT = "base_weight"
DELLA_MARGIN = 0.01
_LARGE = 1_000_000  # entries above which mergekit's arcee_fusion estimates its threshold from a random sample
_SEED = "seed"


@dataclass(frozen=True)
class Translation:
    """A merge in mergekit's words. `inputs[word][k]` are the numbers of expert k, `weighed` those of the base (none
    unless it is averaged), `shared` those of the whole merge. `base`: what the base is there. `draw`: mergekit draws
    random numbers of its own, from this seed."""

    method: Method
    base: Base
    inputs: Mapping[str, tuple[Numbers, ...]]
    weighed: Mapping[str, Numbers]
    shared: Mapping[str, Numbers]
    flags: Mapping[str, Value]
    draw: int | None = None


def translate(recipe: Recipe, layout: Layout, sizes: Mapping[str, int]) -> Translation | str:
    """The recipe in mergekit's words, or half a sentence that says why there are none.

    `sizes`: entries of each tensor of the base.
    """
    method = METHODS.get(recipe.operator)
    if method is None:
        return f"it has no operator like {recipe.operator!r}"
    kind = load("operator", OPERATORS, recipe.operator)
    options = parse_options("mergekit.yaml", kind.Options, recipe.options)
    flags = _flags(method, options)
    if isinstance(flags, str):
        return flags
    tables: _Tables = {k.name: recipe.settings[k.name] for k in make_operator(recipe.operator, recipe.options).KNOBS}
    base = method.base if getattr(options, method.base_option, True) else Base.ABSENT
    if recipe.operator == "linear":
        tables, flags = _average_with_scale(tables, flags)
    elif recipe.operator == "multi_slerp" and base is Base.ORIGIN:
        tables, flags = _direction_with_scale(tables, flags)
    elif recipe.operator == "nuslerp":
        tables = _weights_for_t(tables)
    if reason := _unsaid(method, tables):
        return reason

    def numbers(table: NDArray[np.float64]) -> Numbers:
        return {name: float(table[group]) for name, group in layout.group_of.items()}

    inputs = {
        word: tuple(numbers(tables[knob][:, k]) for k in range(len(recipe.experts)))
        for word, knob in method.inputs.items()
    }
    if recipe.operator == "ties":
        inputs["density"] = tuple(_at_least_one(density, sizes) for density in inputs["density"])
    if "epsilon" in inputs:
        pairs = zip(inputs["epsilon"], inputs["density"], strict=True)
        inputs["epsilon"] = tuple(_within_reach(epsilon, density) for epsilon, density in pairs)
    return Translation(
        method,
        base,
        inputs,
        {"weight": numbers(tables[BASE_WEIGHT][:, 0])} if method.base is Base.WEIGHED else {},
        {word: numbers(tables[knob][:, 0]) for word, knob in method.shared.items()},
        flags,
        _draw(method, options, inputs, [sizes[name] for name in layout.group_of]),
    )


def _flags(method: Method, options: PluginOptions) -> dict[str, Value] | str:
    """mergekit's flags for our options, or why they cannot be said."""
    words = {flag.option: word for word, flag in method.flags.items()}
    flags: dict[str, Value] = {}
    for option, value in options:
        if option in words:
            theirs = method.flags[words[option]].theirs(value)
            if theirs is None:
                return f"its {method.name!r} has nothing like option {option!r} with the value {value!r}"
            flags[words[option]] = theirs
        elif option in method.options:
            if value != method.options[option]:
                return f"its {method.name!r} is ours with {option!r} {method.options[option]!r}, here it is {value!r}"
        elif option not in (_SEED, method.base_option):
            return f"its {method.name!r} has nothing like option {option!r}"
    return flags


def _unsaid(method: Method, tables: Mapping[str, NDArray[np.float64]]) -> str:
    """Why the settings cannot be said in full; '' where they can."""
    for knob, table in tables.items():
        alike = bool(np.all(table == table[:, :1]))
        if knob in method.inputs.values() or (knob == BASE_WEIGHT and method.base is Base.WEIGHED):
            continue
        if knob in method.shared.values():
            if not alike:
                return f"its {method.name!r} has one {knob!r} for all models"
        elif knob not in method.held:
            return f"its {method.name!r} has nothing like {knob!r}"
        elif (held := method.held[knob]) is None:
            if not alike:
                return f"its {method.name!r} has no {knob!r}: it treats all models alike"
        elif not np.all(table == held):
            return f"its {method.name!r} has no {knob!r}: it is ours where that is {held:g}"
    if method.name == "multislerp" and tables["coefficient"].shape[1] == 1 and not np.all(tables["coefficient"] == 1.0):
        return "its 'multislerp' gives a single model as it is, whatever its weight"
    return ""


def _average_with_scale(tables: _Tables, flags: dict[str, Value]) -> tuple[_Tables, dict[str, Value]]:
    """`linear` with λ is an average without: base + λ(Σ w θ - base) = Σ λw θ + (1 - λ) base, the weights normalised."""
    scale, weight, base = tables["scale"][:, :1], tables["coefficient"], tables[BASE_WEIGHT]
    if np.all(scale == 1.0):
        return tables, flags
    total = weight.sum(axis=1, keepdims=True) + base[:, :1] if flags["normalize"] else np.ones_like(scale)
    folded = {"coefficient": scale * weight / total, BASE_WEIGHT: (1.0 - scale) + scale * base / total}
    return {**tables, **folded, "scale": np.ones_like(tables["scale"])}, {**flags, "normalize": False}


def _direction_with_scale(tables: _Tables, flags: dict[str, Value]) -> tuple[_Tables, dict[str, Value]]:
    """`multi_slerp` with λ > 0 is one without: its direction does not change with λw for w, its length does."""
    scale, weight = tables["scale"][:, :1], tables["coefficient"]
    if np.all(scale == 1.0) or np.any(scale <= 0.0):
        return tables, flags
    total = weight.sum(axis=1, keepdims=True) if flags["normalize_weights"] else np.ones_like(scale)
    folded = {"coefficient": scale * weight / total, "scale": np.ones_like(tables["scale"])}
    return {**tables, **folded}, {**flags, "normalize_weights": False}


def _weights_for_t(tables: _Tables) -> _Tables:
    """mergekit's `nuslerp` takes two weights for t: t = w2 / (w1 + w2)."""
    t = tables["t"][:, :1]
    rest = {knob: table for knob, table in tables.items() if knob != "t"}
    return {**rest, "coefficient": np.concatenate([1.0 - t, t], axis=1)}


def _at_least_one(densities: Numbers, sizes: Mapping[str, int]) -> Numbers:
    """Densities that keep an entry of every tensor. mergekit 0.1.4 refuses those that keep none, we keep one."""
    return {n: d if d <= 0 or int(d * sizes[n]) > 0 else 1.5 / sizes[n] for n, d in densities.items()}


def _within_reach(epsilons: Numbers, densities: Numbers) -> Numbers:
    """The epsilons that `della` works with: clipped, where mergekit refuses those that reach 0 or 1."""
    reach = {name: min(density, 1.0 - density) - DELLA_MARGIN for name, density in densities.items()}
    return {name: max(min(epsilon, reach[name]), 0.0) for name, epsilon in epsilons.items()}


def _draw(
    method: Method, options: PluginOptions, inputs: Mapping[str, tuple[Numbers, ...]], sizes: list[int]
) -> int | None:
    """The seed to name where mergekit draws random numbers, else None."""
    masked = method.random and any(d < 1.0 for numbers in inputs["density"] for d in numbers.values())
    sampled = method.name == "arcee_fusion" and max(sizes) > _LARGE
    return int(getattr(options, _SEED, 0)) if masked or sampled else None
