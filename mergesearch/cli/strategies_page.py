"""The page docs/strategies.md, made from what the strategies declare."""

import inspect
import re
from enum import Enum
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

from mergesearch.cli.about import summary
from mergesearch.cli.markdown import table
from mergesearch.plugins import PluginOptions, load
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Need, Strategy

_INTRODUCTION = """\
# Search strategies

Made from the code by `mergesearch list strategies --markdown`; a test compares the two.

A strategy proposes coefficients, learns from their scores and proposes again. It stands in a study file under
`strategy`, its options beside its kind: `strategy: {kind: cma_es, seed: 0, sigma0: 0.1}`. Leave it out and `auto`
chooses one, and says why in the log and in `mergesearch show`.

## Which to take

| your study | take |
| --- | --- |
| you do not know | `auto` |
| a differentiable operator (`task_arithmetic`, say) and a scorer with a differentiable loss, labelled or not | \
`gradient_map`, for one objective or a front |
| the same, one objective and no labels | `expert_merging`, or `gradient_map` with `loss: kl` |
| a large pool of experts, some of which do not belong | `frank_wolfe`, then a search over those it kept |
| scores only, one objective or a front, up to about 200 axes | `quadratic` |
| one objective, scores only, more axes or rugged scores | `cma_es` |
| a front, scores only, more axes or rugged scores | `nsga2`; `nsga3` above three objectives |
| at most 150 evaluations that take minutes each, up to 30 axes | `gp`, or `qlog_nehvi` for a front of up to four |
| the whole front from one parallel batch, up to eight axes | `map` |
| more axes than evaluations | `coarse_to_fine` around any of them |
| scoring is dear, and most candidates are bad | `racing` around any of them |
| a control | `random` |

Every strategy starts at the space's `init`, a known good recipe, proposes without waiting for a generation to end,
survives failed candidates, and is resumed by replaying its log. The budget counts cost: an evaluation on all examples
is 1, on a share of them that share, one with gradients `budget.gradient_cost` (3 by default) times as much. The last
evaluation measures what the strategy recommends, which is seldom its luckiest sample: the best of many noisy scores is
a biased pick.

The curves below, and the tables behind them, are in [benchmarks](benchmarks.md): hypervolume and accuracy against cost
on a merge of 40 coefficients, ours beside peers called through their own packages.

![Hypervolume and mean accuracy against cost](benchmarks/search-digits-module-4.svg)
"""


def strategies_page() -> str:
    """The whole page in Markdown."""
    classes = {kind: load("strategy", STRATEGIES, kind) for kind in sorted(STRATEGIES)}
    rows = [(f"[`{kind}`](#{kind})", summary(cls), _finds(cls), _wants(cls)) for kind, cls in classes.items()]
    head = ("strategy", "what it does, and when to take it", "finds", "needs")
    sections = [_section(kind, cls) for kind, cls in classes.items()]
    return "\n".join([_INTRODUCTION, *table(head, rows), "", *sections])


def _finds(cls: type[Strategy]) -> str:
    return "a front" if cls.MULTI_OBJECTIVE else "the best weighted sum"


def _wants(cls: type[Strategy]) -> str:
    said = {
        Need.GRADIENTS: "gradients",
        Need.EXAMPLES: "scores per example",
        Need.GEOMETRY: "one pass over the weights",
    }
    return ", ".join(said[need] for need in Need if need in cls.NEEDS)


def _section(kind: str, cls: type[Strategy]) -> str:
    lines = [f"## {kind}", "", summary(cls), *_further(cls)]
    if cls.Options.model_fields:
        said = meanings(cls.Options)
        lines += ["", "Options:", ""]
        lines += [_option(name, field, said.get(name, "")) for name, field in cls.Options.model_fields.items()]
    return "\n".join([*lines, ""])


def _further(cls: type[Strategy]) -> list[str]:
    """The paragraphs of the file's docstring after its first line."""
    text = (inspect.getdoc(inspect.getmodule(cls)) or "").split("\n", 1)
    return ["", text[1].strip()] if len(text) > 1 and text[1].strip() else []


def meanings(options: type[PluginOptions]) -> dict[str, str]:
    """Option -> what the docstring of its class says after '`name`: '."""
    text = " ".join((inspect.getdoc(options) or "").split())
    parts = re.split(r"(?:^|(?<=[.;:] )|(?<=\) ))`(\w+)`: ", text)
    return {name: meaning.strip().rstrip(".;") for name, meaning in zip(parts[1::2], parts[2::2], strict=True)}


def _option(name: str, field: Any, meaning: str) -> str:
    default = field.get_default(call_default_factory=True)
    shown = default.value if isinstance(default, Enum) else list(default) if isinstance(default, tuple) else default
    allowed = _range(field)
    return f"- `{name}` (default `{shown}`{allowed})" + (f": {meaning}" if meaning else "")


def _range(field: Any) -> str:
    words = {Ge: ("at least", "ge"), Gt: ("above", "gt"), Le: ("at most", "le"), Lt: ("below", "lt")}
    bounds = [(*words[type(bound)], bound) for bound in field.metadata if type(bound) in words]
    said = [f"{word} {getattr(bound, name):g}" for word, name, bound in bounds]
    if not said and isinstance(field.annotation, type) and issubclass(field.annotation, Enum):
        return ", one of " + ", ".join(f"`{choice.value}`" for choice in field.annotation)
    return f", {' and '.join(said)}" if said else ""
