"""Makes the strategy of a kind, and the one inside another."""

from collections.abc import Mapping
from typing import Any

from mergesearch.errors import SpecError
from mergesearch.plugins import load, parse_options
from mergesearch.strategies import STRATEGIES
from mergesearch.strategies.base import Need, Problem, Strategy


def strategy_class(kind: str) -> type[Strategy]:
    """The class of a kind. Raises SpecError for an unknown one."""
    cls: type[Strategy] = load("strategy", STRATEGIES, kind)
    return cls


def make_strategy(kind: str, problem: Problem, seed: int, options: Mapping[str, Any]) -> Strategy:
    """The strategy `kind`.

    Raises:
        SpecError: an unknown kind or option, or a strategy that asks for gradients where there are none.
    """
    cls = strategy_class(kind)
    if Need.GRADIENTS in cls.NEEDS and not problem.gradients:
        raise SpecError(
            f"strategy {kind!r} asks for gradients, and this study has none to give: its operator must be "
            "differentiable and every scorer offer a differentiable loss; or take 'auto', which does without"
        )
    return cls(problem, seed, parse_options(f"strategy {kind!r}", cls.Options, options))


def needs(kind: str, options: Mapping[str, Any]) -> frozenset[Need]:
    """What a strategy needs, with what the strategy inside it needs (`inner`)."""
    wanted = strategy_class(kind).NEEDS
    inner = options.get("inner")
    if isinstance(inner, Mapping) and isinstance(inner.get("kind"), str):
        wanted |= needs(inner["kind"], {key: value for key, value in inner.items() if key != "kind"})
    return wanted


def make_inner(inner: Mapping[str, Any], problem: Problem, seed: int) -> Strategy:
    """The strategy that another one steers: `inner` is `kind` with its options beside it.

    Raises:
        SpecError: no kind, an unknown one, or a strategy that steers others itself.
    """
    body = dict(inner)
    kind = body.pop("kind", None)
    if not isinstance(kind, str):
        raise SpecError("the inner strategy needs its kind, such as inner: {kind: cma_es}")
    if "inner" in strategy_class(kind).Options.model_fields:
        raise SpecError(f"strategy {kind!r} steers another one itself: it cannot be an inner strategy")
    return make_strategy(kind, problem, seed, body)
