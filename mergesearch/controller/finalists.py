"""Who is confirmed, who is chosen, who is tested: the steps that keep a lucky score from winning (winner's curse)."""

from mergesearch.results import BASE, EXPERT, RECOMMENDED, UNIFORM, Results
from mergesearch.stats import Examples, paired_error
from mergesearch.types import Split


def finalists(results: Results, count: int) -> list[int]:
    """At most `count` candidates for the confirm split, the default choice first.

    The recommended candidate, the start, then the best on the search split by what guided the search.
    """
    ranked = sorted(results.scored, key=lambda n: (results.guided(n), n))
    whole, firsts = set(ranked), (results.by_origin(RECOMMENDED), results.by_origin("start"))
    numbers = [n for n in firsts if n is not None and n in whole]
    return list(dict.fromkeys(numbers + ranked))[:count]


def compared(results: Results) -> list[int]:
    """The baselines that stand in the final table: base, experts, uniform average, the best single λ."""
    rows = [n for origin, n in results.baselines().items() if origin in (BASE, UNIFORM) or origin.startswith(EXPERT)]
    best = results.best_lambda()
    scored = [n for n in [*rows, *([] if best is None else [best])] if results.outcome(n) is not None]
    return list(dict.fromkeys(scored))


def choose(results: Results, numbers: list[int], examples: Examples) -> int | None:
    """The finalist to export: the first of `numbers`, unless another beats it on the confirm split by more than one
    standard error of their paired difference; of several such, the one with the least weighted loss there.

    With the recommended candidate first, a merely lucky finalist does not replace it.
    """
    confirmed = [n for n in numbers if results.outcome(n, Split.CONFIRM) is not None]
    if not confirmed:
        return numbers[0] if numbers else None
    first = confirmed[0]
    better = [n for n in confirmed[1:] if _gain(results, n, first) > paired_error(results, n, first, examples)]
    return min(better, key=lambda n: (results.weighted(n, Split.CONFIRM), n)) if better else first


def _gain(results: Results, number: int, other: int) -> float:
    mine, theirs = results.weighted(number, Split.CONFIRM), results.weighted(other, Split.CONFIRM)
    assert mine is not None
    assert theirs is not None
    return theirs - mine
