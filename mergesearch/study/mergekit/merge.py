"""A merge config of mergekit as a draft of a study: its operator, its models, and its numbers as the search's start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mergesearch.errors import SpecError
from mergesearch.merging import make_operator, wrong_count
from mergesearch.plugins import did_you_mean
from mergesearch.space import Knob, Scale
from mergesearch.study.mergekit.config import MergeConfig, read_config
from mergesearch.study.mergekit.draft import Draft, expert_names
from mergesearch.study.mergekit.groups import check_depth, groups_of, tensor_shapes
from mergesearch.study.mergekit.methods import METHODS, Base, Method, operator_of
from mergesearch.study.mergekit.settings import Summary, flag, number, summarise

REFUSED = {
    "passthrough": "stacks layers of the models without merging them; a study searches the numbers of a merge",
}
_KNOWN_WORDS = frozenset(word for method in METHODS.values() for word in method.words)


_NO_BASE = "The config names no base_model: its first model stands as the base, "


@dataclass(frozen=True)
class Roles:
    """Which model of a config is what: the study's base, its experts, and whether the operator is told of a base."""

    base: str
    experts: tuple[str, ...]
    has_base: bool
    notes: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()  # knobs to search beside those that the operator searches by itself


def draft_of_merge(body: Mapping[str, Any], name: str) -> Draft:
    """The draft of a merge config.

    Raises:
        SpecError: what a study cannot say, by name.
    """
    kind = operator_kind(body.get("merge_method"))
    config = read_config(body)
    method = METHODS[kind]
    roles = _roles(config, method, kind)
    left_out = _check_words(config, method, roles)
    options = _options(config, method, roles)
    operator = make_operator(kind, options)
    if wrong := wrong_count(kind, operator, len(roles.experts)):
        raise SpecError(wrong)
    names = expert_names(roles.experts)
    labels = {path: label for label, path in names.items()}
    found = _summaries(config, method, roles)
    shapes = tensor_shapes(roles.base)
    check_depth(config, shapes)
    knobs: dict[str, object] = {}
    fixed: dict[str, float] = {}
    starts: dict[str, float] = {}
    notes: list[str] = []
    for knob in operator.KNOBS:
        if knob.name not in found:
            held = method.held.get(knob.name)
            if not knob.searched and held is not None and held != knob.start(len(names)):
                knobs[knob.name] = held
            continue
        searched = knob.searched or knob.name in roles.searched
        entry = _knob(knob, found[knob.name], searched, labels, starts if searched else fixed)
        notes += entry.notes
        knobs[knob.name] = entry.value
    groups, why = groups_of(config, [s for by_model in found.values() for s in by_model.values()], shapes)
    space = {"groups": groups, **knobs, **({"start": starts} if starts else {}), **({"fix": fixed} if fixed else {})}
    return Draft(
        name=name,
        origin=f"merge config (merge_method: {config.method})",
        base=roles.base,
        experts=names,
        operator=kind,
        options=options,
        space=space,
        notes=(*config.notes, *roles.notes, *left_out, *_random(method)),
        space_notes=(why, *notes),
    )


def operator_kind(name: object) -> str:
    """Our operator for mergekit's method. Raises SpecError where there is none."""
    kind = operator_of(str(name))
    if kind is None:
        known = [method.name for method in METHODS.values()]
        reason = REFUSED.get(str(name))
        raise SpecError(f"merge_method {name!r} " + (reason or f"is not expressible{did_you_mean(str(name), known)}"))
    return kind


def _random(method: Method) -> tuple[str, ...]:
    if not method.random:
        return ()
    return (
        "mergekit draws new masks in every merge; here they follow from 'seed' and are the same for all candidates.",
    )


def _roles(config: MergeConfig, method: Method, kind: str) -> Roles:
    """Sorts the models; the base is left out of the experts unless the method averages it like them."""
    base, sources = config.base, config.sources
    if len(set(sources)) < len(sources):
        raise SpecError("a model stands twice among those to merge; a study has each expert once")
    others = tuple(source for source in sources if source != base)
    if base is None:
        return _without_base(config, method, others)
    if method.base is Base.APART:  # averages whatever is among the sources; mergekit adds the base to 'models'
        experts = sources if base in sources else sources if config.sliced else (*sources, base)
        return Roles(base, experts, has_base=False)
    if config.sliced and base not in sources and method.base is not Base.WEIGHED:
        raise SpecError(f"base_model {base!r} is not among the sources of the slices, so mergekit refuses this too")
    if not others:
        raise SpecError(f"{kind}: there is no model beside the base_model {base!r}")
    return Roles(base, others, has_base=True)


def _without_base(config: MergeConfig, method: Method, others: tuple[str, ...]) -> Roles:
    if method.base is Base.WEIGHED:
        if len(others) < 2:
            raise SpecError("there is only one model, and nothing to merge it with")
        note = _NO_BASE + "with its weight as 'base_weight'."
        return Roles(others[0], others[1:], has_base=True, notes=(note,), searched=("base_weight",))
    if method.base is Base.APART or method.base_option:
        return Roles(others[0], others, has_base=False, notes=(_NO_BASE + "which the merge makes no use of.",))
    raise SpecError(f"merge_method {config.method!r} needs a base_model, which the file lacks")


def _check_words(config: MergeConfig, method: Method, roles: Roles) -> list[str]:
    """Sentences on parameters that mergekit reads nowhere. Raises SpecError for words that it does not know."""
    notes: dict[str, None] = {}
    own = [(s.model, s.parameters) for part in config.slices for s in part.sources]
    shared = [part.parameters for part in config.slices] + [config.parameters]
    for word in [word for _, parameters in own for word in parameters] + [word for p in shared for word in p]:
        if word not in _KNOWN_WORDS | {"scale"}:
            raise SpecError(f"parameter {word!r} is unknown{did_you_mean(word, sorted(method.words) or _KNOWN_WORDS)}")
        if word not in method.words:
            notes[f"{word!r} is left out: merge_method {config.method!r} does not read it."] = None
    for model, parameters in own:
        for word in parameters:
            if word in {*method.shared, *method.flags, *method.fixed}:
                raise SpecError(f"parameter {word!r} of model {model!r}: mergekit reads it for the whole merge only; "
                                "put it under the file's own 'parameters'")  # fmt: skip
            if model == roles.base and roles.base not in roles.experts and method.base is not Base.WEIGHED:
                notes[f"{word!r} of the base is left out: mergekit does not read it."] = None
    return list(notes)


def _options(config: MergeConfig, method: Method, roles: Roles) -> dict[str, object]:
    """Our options for its flags, with its defaults where the file is silent."""
    options: dict[str, object] = dict(method.options)
    if method.base_option:
        options[method.base_option] = roles.has_base
    for word, known in method.flags.items():
        said = flag(config, word)
        value = known.default if said is None else said
        value = number(value, word) if isinstance(known.default, float) else value
        if isinstance(known.default, bool) and value not in (True, False):
            raise SpecError(f"parameter {word!r} is true or false, got {value!r}")
        options[known.option] = known.ours(bool(value) if isinstance(known.default, bool) else value)
    for word, needed in method.fixed.items():
        said = flag(config, word)
        if said is not None and said != needed:
            raise SpecError(f"parameter {word!r}: {said!r} of merge_method {config.method!r} is not expressible; "
                            f"operator {operator_of(config.method)!r} is its {needed!r}")  # fmt: skip
    return options


def _summaries(config: MergeConfig, method: Method, roles: Roles) -> dict[str, dict[str | None, Summary]]:
    """Our knob -> model (None: the whole merge) -> what mergekit's numbers say."""
    found: dict[str, dict[str | None, Summary]] = {}
    for word, knob in method.inputs.items():
        found[knob] = {m: summarise(config, word, m, method.defaults.get(word)) for m in roles.experts}
    for word, knob in method.shared.items():
        found[knob] = {None: summarise(config, word, None, method.defaults.get(word))}
    if method.base is Base.WEIGHED:
        among = roles.base in config.sources
        if not among and not config.sliced:  # mergekit adds the base to 'models', with the file's own weight if any
            found["base_weight"] = {None: summarise(config, "weight", None, None)}
        elif among:
            found["base_weight"] = {None: summarise(config, "weight", roles.base, None)}
    if method.name == "nuslerp":
        first, second = found.pop("coefficient").values()
        found["t"] = {None: _ratio(first, second)}
    return found


def _ratio(first: Summary, second: Summary) -> Summary:
    """t = w2 / (w1 + w2), of the means where they vary."""
    total = first.mean + second.mean
    t = 0.5 if abs(total) < 1e-6 else second.mean / total
    low, high = (t, t) if first.constant and second.constant else (min(t, 0.0), max(t, 1.0))
    filters = tuple(dict.fromkeys(first.filters + second.filters))
    said = f"weights {first.said} and {second.said}"
    return Summary(low, high, t, filters, first.gradient or second.gradient, first.stepped or second.stepped, said)


@dataclass(frozen=True)
class _Entry:
    """A knob's value in the study's space, and sentences on it."""

    value: object
    notes: tuple[str, ...] = ()


def _knob(
    knob: Knob,
    found: Mapping[str | None, Summary],
    searched: bool,
    labels: Mapping[str, str],
    axes: dict[str, float],
) -> _Entry:
    """What stands in the space for a knob. Numbers that differ from expert to expert go to `axes`, by axis name."""
    means = [s.mean for s in found.values()]
    alike = len(set(means)) == 1
    mean = means[0] if alike else _rounded(sum(means) / len(means))
    low = min(knob.low, *(s.low for s in found.values()))
    high = max(knob.top(len(labels)), *(s.high for s in found.values()))
    constant = all(s.constant for s in found.values())
    said = "; ".join((f"{labels[m]}: " if m is not None else "") + s.said for m, s in found.items())
    if searched:
        if not alike:
            axes.update({f"{knob.name}.{labels[m or '']}.*": _rounded(summary.mean) for m, summary in found.items()})
        note = f"'{knob.name}' starts at the mean of each expert's numbers over all layers: {said}."
        return _Entry({**_span(knob, low, high), "init": _rounded(mean)}, () if constant else (note,))
    if constant and not alike:
        for m, summary in found.items():
            axes[f"{knob.name}.{labels[m or '']}"] = _whole(knob, summary.mean)
        return _Entry({**_span(knob, low, high), "per": "expert"})
    note = f"'{knob.name}' is held at the mean of the config's numbers: {said}."
    return _Entry(_whole(knob, mean), () if constant else (note,))


def _span(knob: Knob, low: float, high: float) -> dict[str, object]:
    """A range; on a linear scale where the knob's own has no such ends."""
    ends = {Scale.LINEAR: True, Scale.LOG: low > 0.0, Scale.LOGIT: low > 0.0 and high < 1.0}
    return {"low": low, "high": high, **({} if ends[knob.scale] else {"scale": "linear"})}


def _rounded(value: float) -> float:
    """Twelve digits: a mean's last ones are rounding."""
    return float(f"{value:.12g}")


def _whole(knob: Knob, value: float) -> float | int:
    return round(value) if knob.whole else value
