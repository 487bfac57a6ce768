"""The page docs/operators.md, made from what the operators declare."""

import inspect
import re
from typing import Any, Literal, get_args, get_origin

from mergesearch.cli.about import summary
from mergesearch.cli.markdown import table
from mergesearch.operators import OPERATORS
from mergesearch.operators.algebra.matrices import NOT_MATRICES
from mergesearch.operators.base import Checked, OperatorTraits
from mergesearch.plugins import PluginOptions, load
from mergesearch.space import Knob, Scale

_INTRODUCTION = """\
# Merge operators

Made from the code by `mergesearch list operators --markdown`; a test compares the two.

An operator turns a base and its experts into one candidate. In the formulas θ0 is the base, θ_k an expert,
τ_k = θ_k - θ0 its change (task vector) and K the number of experts. A *knob* is a number that a study may search, per
study, expert, layer group, or expert and group; those marked **searched** are axes unless the study holds them, the
others stay at their start unless it frees them. `scale` is the same everywhere: the candidate is
base + scale · (merged - base). An *option* is fixed for a study and stands beside `operator` in the study file.

- **Class** says what a candidate costs once the models are prepared. P0: one weighted sum of the models. P1: one
  weighted sum of changes that were transformed once. P2: entries are chosen anew, at the speed of memory. P3: small
  products with factorisations that were made once. P4: factorisations, iterations or a sequence for each candidate.
  `benchmarks/operators.py` measures all of them.
- **Checked** says how it is known that the operator does what its source says. *golden*: it meets outputs of a
  reference implementation (`tests/golden`). *formula*: the properties that follow from the formula are tested. *after
  the abstract*: no more than an abstract or summaries were at hand; the details are ours, and their properties tested.

Numbers are accumulated in float32 or wider and rounded once to the dtype of the base. Random masks come from a counter
keyed by (seed, expert, tensor), so that all candidates of a study share them. Matrix methods leave embeddings, heads
and vectors to the mean of the changes, or as their section says.
"""


def operators_page() -> str:
    """The whole page in Markdown."""
    classes = {kind: load("operator", OPERATORS, kind) for kind in sorted(OPERATORS)}
    rows = [_row(kind, cls) for kind, cls in classes.items()]
    overview = table(("operator", "what it does", "source", "class", "checked"), rows)
    sections = [_section(kind, cls) for kind, cls in classes.items()]
    return "\n".join([_INTRODUCTION, *overview, "", *sections])


def _row(kind: str, cls: Any) -> tuple[str, ...]:
    return (f"[`{kind}`](#{kind})", summary(cls), _where(cls), cls.CACHE, cls.SOURCE.checked.value)


def _section(kind: str, cls: type[OperatorTraits]) -> str:
    knobs = table(("knob", "range", "start", "per", "meaning"), [_knob(knob) for knob in cls.KNOBS])
    about = f"{summary(cls)} Source: {cls.SOURCE.title}, {_where(cls)}.{_takes(cls)}"
    lines = [f"## {kind}", "", about, "", *knobs]
    if cls.Options.model_fields:
        said = _comments(cls.Options)
        options = [_option(name, field, said.get(name, "")) for name, field in cls.Options.model_fields.items()]
        lines += ["", "Options:", "", *options]
    if cls.SOURCE.checked is Checked.ABSTRACT:
        lines += ["", "Built after the abstract: the details are ours."]
    if cls.SOURCE.differs:
        lines += [
            "",
            "Not matched, or done otherwise, and why:",
            "",
            *(f"- {sentence}" for sentence in cls.SOURCE.differs),
        ]
    return "\n".join([*lines, ""])


def _where(cls: Any) -> str:
    where: str = cls.SOURCE.where
    arxiv = where.removeprefix("arXiv:")
    return f"[{where}](https://arxiv.org/abs/{arxiv})" if where.startswith("arXiv:") else where


def _takes(cls: type[OperatorTraits]) -> str:
    """What is unusual about the experts that it takes and the models that it gives, as sentences."""
    low, high = cls.MIN_EXPERTS, cls.MAX_EXPERTS
    said = ""
    if hasattr(cls, "prepare_adapters"):
        said += " Takes LoRA adapters or checkpoints." if hasattr(cls, "prepare") else " Takes LoRA adapters."
    if low == high:
        said += " Merges exactly one expert with the base." if low == 1 else f" Merges exactly {low} experts."
    elif low > 1:
        said += f" Needs at least {low} experts."
    if cls.DIFFERENTIABLE:
        said += f" Gradients pass back to {', '.join(f'`{knob}`' for knob in cls.DIFFERENTIABLE)}."
    return said + (" Can rebuild each expert from what it keeps." if cls.COMPRESSES else "")


def _knob(knob: Knob) -> tuple[str, ...]:
    searched = ", **searched**" if knob.searched else ""
    return (f"`{knob.name}`{searched}", _range(knob), _start(knob), knob.per.value.replace("_", " and "), knob.doc)


def _range(knob: Knob) -> str:
    high = "K" if knob.high is None else f"{knob.high:g}"
    kind = " whole" if knob.whole else "" if knob.scale is Scale.LINEAR else f" {knob.scale.value}"
    return f"[{knob.low:g}, {high}]{kind}"


def _start(knob: Knob) -> str:
    return "1/K" if knob.init is None else f"{knob.init:g}"


def _comments(options: type[PluginOptions]) -> dict[str, str]:
    """Option -> what the comment behind its declaration says."""
    return dict(re.findall(r"^    (\w+): .*  # (.+)$", inspect.getsource(options), flags=re.MULTILINE))


def _option(name: str, field: Any, meaning: str) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    default = field.get_default(call_default_factory=True)
    if default == NOT_MATRICES:
        default, meaning = (
            "embeddings and heads",
            f"{meaning}; {', '.join(f'`{p}`' for p in NOT_MATRICES)}".lstrip("; "),
        )
    shown = (
        "required" if field.is_required() else f"default `{list(default) if isinstance(default, tuple) else default}`"
    )
    allowed = f" of {', '.join(f'`{choice}`' for choice in choices)}" if choices else ""
    return f"- `{name}` ({shown}{allowed})" + (f": {meaning}" if meaning else "")
