"""mergekit's name for each operator, and its word for each knob and option. Written down once, read by the export (our
recipe as its file) and by the import (its file as our study).

Read from the source of mergekit 0.1.5; tests/export/test_mergekit_run.py runs it and compares the tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

VERSION = "0.1.5"

Value: TypeAlias = bool | int | float | str


class Base(StrEnum):
    """What mergekit's method does with the base model."""

    ORIGIN = "origin"  # differences from it are merged: one more source, without numbers
    WEIGHED = "weighed"  # one more model of the average, with a weight
    APART = "apart"  # would be averaged like an expert if it were among the sources, so it is only named
    ABSENT = "absent"  # must not be named: the method would take differences from it


@dataclass(frozen=True)
class Flag:
    """A parameter of mergekit that is one value for the whole merge, and the option of ours that says the same.

    `default` is what mergekit takes where the file is silent; `values` maps its values to ours where the two differ
    (a value of ours that is not among them cannot be said there).
    """

    option: str
    default: Value
    values: Mapping[Value, Value] | None = None

    def ours(self, theirs: Value) -> Value:
        """Our value of theirs."""
        return theirs if self.values is None else self.values[theirs]

    def theirs(self, ours: object) -> Value | None:
        """mergekit's value of ours, None where it has none."""
        if self.values is None:
            assert isinstance(ours, bool | int | float | str)
            return ours
        return next((theirs for theirs, mine in self.values.items() if mine == ours), None)


@dataclass(frozen=True)
class Method:
    """One of mergekit's merge methods beside our operator.

    `inputs` are its numbers per model, `shared` those of the whole merge: its word -> our knob. Both may differ from
    tensor to tensor. `defaults` are its values where the file is silent; a word without one must stand there.
    `held` are our knobs that it has no word for -> the value that says what it does (None: equal for all experts).
    `options` are our options that it has no choice of, `fixed` its parameters that ours has no choice of. `ignored`
    are parameters that change no weight. `base_option`: the option of ours that is on where its file names a base and
    off where it names none. `caveat`: a sentence on where its merge differs from ours all the same.
    """

    name: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Flag] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=dict)
    held: Mapping[str, float | None] = field(default_factory=dict)
    options: Mapping[str, Value] = field(default_factory=dict)
    fixed: Mapping[str, Value] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    base: Base = Base.ORIGIN
    base_option: str = ""
    random: bool = False
    caveat: str = ""

    @property
    def words(self) -> frozenset[str]:
        """Every parameter that the method reads."""
        return frozenset([*self.inputs, *self.shared, *self.flags, *self.fixed, *self.ignored])


_NORMALIZE = {default: {"normalize": Flag("normalize", default)} for default in (True, False)}
_RESCALE = {"rescale": Flag("rescale", True, {True: "l1_norm", False: "none"})}  # the papers' rule is not in mergekit
_WEIGHT, _FACTOR = {"weight": "coefficient"}, {"lambda": "scale"}
_SPARSE = {"weight": "coefficient", "density": "density"}
_WHOLE, _FULL = {"lambda": 1.0}, {"lambda": 1.0, "density": 1.0}
_MASK = frozenset({"int8_mask"})
_PLAIN = {"rescale": False}
_ONE = {"scale": 1.0}
_KEPT = {"scale": 1.0, "coefficient": 1.0, "shared": 1.0}

METHODS: Mapping[str, Method] = {
    "linear": Method("linear", _WEIGHT, flags=_NORMALIZE[True], ignored=_MASK, held=_ONE, base=Base.WEIGHED),
    "task_arithmetic": Method(
        "task_arithmetic", _WEIGHT, _FACTOR, _NORMALIZE[False], _WHOLE, ignored=_MASK | {"rescale", "density"}
    ),
    "slerp": Method("slerp", shared={"t": "t"}, held=_ONE),
    "nuslerp": Method(
        "nuslerp",
        _WEIGHT,
        flags={
            "nuslerp_flatten": Flag("flatten", True),
            "nuslerp_row_wise": Flag("axis", False, {False: "last", True: "first"}),
        },
        held=_ONE,
        base_option="task_vectors",
    ),
    "multi_slerp": Method(
        "multislerp",
        _WEIGHT,
        flags={"normalize_weights": Flag("normalize", True), "eps": Flag("eps", 1e-8)},
        held=_ONE,
        base_option="task_vectors",
    ),
    "karcher": Method(
        "karcher",
        shared={"max_iter": "iterations"},
        flags={"tol": Flag("tolerance", 1e-5)},
        defaults={"max_iter": 10.0},
        held={**_ONE, "coefficient": None},
        options={"task_vectors": False, "normalize": True},
        base=Base.APART,
    ),
    "model_stock": Method(
        "model_stock",
        flags={"filter_wise": Flag("rows", False)},
        held=_ONE,
        options={"angle": "cosine"},
        caveat="mergekit takes changes whose norms multiply to less than 1e-6 for more different than they are.",
    ),
    "near_swap": Method("nearswap", shared={"t": "t"}, held=_ONE),
    "arcee_fusion": Method(
        "arcee_fusion",
        held={**_ONE, "threshold": 1.5},
        caveat="mergekit's float32 cannot tell how nearly equal rows diverge from rounding; it keeps others there.",
    ),
    "ties": Method(
        "ties", _SPARSE, _FACTOR, _NORMALIZE[True], _FULL, options={"scope": "tensor"}, fixed=_PLAIN, ignored=_MASK
    ),
    "dare_linear": Method(
        "dare_linear", _SPARSE, _FACTOR, {**_NORMALIZE[False], **_RESCALE}, _FULL, ignored=_MASK, random=True
    ),
    "dare_ties": Method(
        "dare_ties", _SPARSE, _FACTOR, {**_NORMALIZE[False], **_RESCALE}, _FULL, ignored=_MASK, random=True
    ),
    "della": Method(
        "della",
        {**_SPARSE, "epsilon": "epsilon"},
        _FACTOR,
        {**_NORMALIZE[True], **_RESCALE},
        {**_FULL, "epsilon": 0.15},
        ignored=_MASK,
        random=True,
    ),
    "della_linear": Method(
        "della_linear",
        {**_SPARSE, "epsilon": "epsilon"},
        _FACTOR,
        {**_NORMALIZE[False], **_RESCALE},
        {**_FULL, "epsilon": 0.15},
        ignored=_MASK,
        random=True,
    ),
    "breadcrumbs": Method(
        "breadcrumbs",
        {**_SPARSE, "gamma": "gamma"},
        _FACTOR,
        _NORMALIZE[False],
        {**_FULL, "gamma": 0.01},
        fixed=_PLAIN,
        ignored=_MASK,
    ),
    "breadcrumbs_ties": Method(
        "breadcrumbs_ties",
        {**_SPARSE, "gamma": "gamma"},
        _FACTOR,
        _NORMALIZE[False],
        {**_FULL, "gamma": 0.01},
        fixed=_PLAIN,
        ignored=_MASK,
    ),
    "sce": Method(
        "sce",
        shared={"select_topk": "density"},
        defaults={"select_topk": 1.0},
        held={**_ONE, "coefficient": 1.0, "power": 1.0},
        options={"mask_applies_to": "deltas_and_weights", "reference_floors": True},
        ignored=_MASK,
    ),
    "ram": Method("ram", shared={"epsilon": "epsilon"}, defaults={"epsilon": 1e-5}, held=_KEPT),
    "ram_plus": Method(
        "ramplus_tl",
        shared={"epsilon": "epsilon", "r": "r", "alpha": "alpha"},
        defaults={"epsilon": 1e-5, "r": 0.1, "alpha": 0.2},
        held=_KEPT,
        options={"ratio_scope": "tensor"},
    ),
}
"""Our operator -> mergekit's method, for every operator that mergekit has."""


def operator_of(name: str) -> str | None:
    """Our operator for one of mergekit's methods, None where there is none."""
    return next((kind for kind, method in METHODS.items() if method.name == name), None)
