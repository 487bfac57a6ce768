"""Reads a study file and says of each fault in which line and column it stands."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mergesearch.errors import SpecError
from mergesearch.merging import make_operator, wrong_count
from mergesearch.operators import OPERATORS
from mergesearch.plugins import Fault, PluginOptions, did_you_mean, faults, load
from mergesearch.scorers import SCORERS
from mergesearch.strategies import STRATEGIES
from mergesearch.study.spec import StudySpec
from mergesearch.study.text import Source, parse_spec

__all__ = ["Source", "parse_study", "plugin_faults", "read_study", "read_text"]


def read_study(path: Path) -> tuple[StudySpec, Source]:
    """The study in a file; its relative paths are relative to the current folder.

    Raises:
        SpecError: the file is missing, is not YAML, or has keys, kinds or values that cannot be.
    """
    source = Source(str(path), read_text(path), Path.cwd())
    return parse_study(source), source


def read_text(path: Path) -> str:
    """The text of a study file. Raises SpecError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot read study file {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"study file {str(path)!r} is not UTF-8 text (byte {error.start})") from None


def parse_study(source: Source) -> StudySpec:
    """The study in `source`, its plug-ins' options checked too. Raises SpecError with line and column."""
    spec = parse_spec(source)
    found = list(plugin_faults(spec))
    if found:
        raise source.error(found)
    return spec


def plugin_faults(spec: StudySpec) -> Iterable[Fault]:
    """What is wrong with kinds, their options, metrics, heads and knobs; no checkpoint or data is opened."""
    operator = _kind(("merge", "operator"), "operator", OPERATORS, spec.merge.operator)
    yield from operator.faults
    if operator.plugin is not None:
        wrong = list(_option_faults(("merge",), operator.plugin.Options, spec.merge.options))
        yield from wrong or _operator_faults(spec)
    strategy = _kind(("strategy", "kind"), "strategy", STRATEGIES, spec.strategy.kind)
    yield from strategy.faults
    if strategy.plugin is not None:
        yield from _option_faults(("strategy",), strategy.plugin.Options, spec.strategy.options)
    names = [objective.name for objective in spec.objectives]
    for name in spec.budget.target:
        if name not in names:
            yield Fault(("budget", "target", name), f"no objective is called {name!r}{did_you_mean(name, names)}")
    for i, objective in enumerate(spec.objectives):
        scorer = _kind(("objectives", i, "scorer"), "scorer", SCORERS, objective.scorer)
        yield from scorer.faults
        if scorer.plugin is not None:
            yield from _option_faults(("objectives", i, "data"), scorer.plugin.Options, objective.data)
            for key, metric in (("metric", objective.metric), ("guide", objective.guide)):
                if metric is not None and metric not in scorer.plugin.METRICS:
                    near = did_you_mean(metric, scorer.plugin.METRICS)
                    yield Fault(("objectives", i, key), f"scorer {objective.scorer!r} has no metric {metric!r}{near}")
        if objective.head is not None and objective.head not in spec.models.experts:
            yield Fault(("objectives", i, "head"), f"no expert is called {objective.head!r}"
                        f"{did_you_mean(objective.head, spec.models.experts)}")  # fmt: skip
        if objective.rebuild is not None and objective.rebuild not in spec.models.experts:
            yield Fault(("objectives", i, "rebuild"), f"no expert is called {objective.rebuild!r}"
                        f"{did_you_mean(objective.rebuild, spec.models.experts)}")  # fmt: skip
        if objective.teacher is not None and objective.teacher not in spec.models.experts:
            yield Fault(("objectives", i, "teacher"), f"no expert is called {objective.teacher!r}"
                        f"{did_you_mean(objective.teacher, spec.models.experts)}")  # fmt: skip
        if scorer.plugin is not None and hasattr(scorer.plugin, "score_build"):
            continue  # it looks at no answers, so no head is worn
        if objective.head is None and spec.merge.heads:
            yield Fault(("objectives", i), f"objective {objective.name!r} needs 'head: <expert>', "
                        "since merge.heads keeps the heads apart")  # fmt: skip


def _operator_faults(spec: StudySpec) -> Iterable[Fault]:
    """What does not suit an operator whose kind and options are sound: knobs and the number of experts."""
    kind = spec.merge.operator
    try:
        operator = make_operator(kind, spec.merge.options)
    except SpecError as error:
        yield Fault(("merge",), str(error))
        return
    knobs = {knob.name: knob for knob in operator.KNOBS}
    for name, value in spec.space.options.items():
        if name not in knobs:
            near = did_you_mean(name, [*knobs, "groups", "start", "warm_start", "fix", "tie"])
            yield Fault(("space", name), f"operator {kind!r} has no knob {name!r}{near}")
        elif isinstance(value, dict) and (per := spec.space.searched[name].per) not in (None, *knobs[name].per.coarser):
            allowed = ", ".join(coarser.value for coarser in knobs[name].per.coarser)
            yield Fault(("space", name, "per"), f"knob {name!r} of {kind!r} varies per {allowed}, not per {per}")
    for i, objective in enumerate(spec.objectives):
        if not operator.COMPRESSES and (objective.rebuild is not None or objective.scorer == "stored_bytes"):
            able = ", ".join(k for k in sorted(OPERATORS) if load("operator", OPERATORS, k).COMPRESSES)
            what = "scorer 'stored_bytes' is one number for all candidates" if objective.rebuild is None else (
                f"'rebuild: {objective.rebuild}' cannot be done")  # fmt: skip
            yield Fault(("objectives", i), f"{what} of operator {kind!r}, which keeps no code of single experts; "
                        f"those that do: {able}")  # fmt: skip
    if wrong := wrong_count(kind, operator, len(spec.models.experts)):
        yield Fault(("models", "experts"), wrong)


@dataclass(frozen=True)
class _Kind:
    plugin: Any
    faults: tuple[Fault, ...] = ()


def _kind(path: tuple[str | int, ...], family: str, table: dict[str, str], kind: str) -> _Kind:
    try:
        return _Kind(load(family, table, kind))
    except SpecError as error:
        return _Kind(None, (Fault(path, str(error)),))


def _option_faults(path: tuple[str | int, ...], schema: type[PluginOptions], values: dict[str, Any]) -> Iterable[Fault]:
    try:
        schema.model_validate(values)
    except ValidationError as error:
        for fault in faults(schema, error):
            yield Fault(path + fault.path, fault.sentence)
