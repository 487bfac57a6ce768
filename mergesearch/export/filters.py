"""Per-tensor numbers as mergekit reads them: a list of {filter, value}, the first match wins.

mergekit's rule (mergekit 0.1.4 and 0.1.5, `evaluate_setting` in config.py): a filter matches every tensor whose name
contains it as a substring; it is no pattern. So 'layers.1.' does not match 'layers.11.', while 'norm.weight' matches
'post_norm.weight' too. The lists made here are exact under that rule for the names they were made from.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import TypeAlias

Setting: TypeAlias = float | list[dict[str, str | float]]
"""One number for every tensor, or an ordered list of {filter: substring, value: number}."""


def as_setting(groups: Sequence[Sequence[str]], values: Sequence[float]) -> Setting:
    """A short, exact setting that gives every tensor of `groups[g]` the number `values[g]`.

    One number where all agree; a group whose tensors share a dotted prefix that no other tensor's name contains is
    one filter; the tensors of other groups are named one by one. No name stands in two groups.
    """
    if len(set(values)) == 1:
        return values[0]
    names = [name for group in groups for name in group]
    prefixes: list[dict[str, str | float]] = []
    single: list[tuple[str, float]] = []
    for group, value in zip(groups, values, strict=True):
        prefix = _own_prefix(group, names)
        if prefix:
            prefixes.append({"filter": prefix, "value": value})
        else:
            single += [(name, value) for name in group]
    single.sort(key=lambda pair: (-len(pair[0]), pair[0]))  # a name that contains another comes before it
    return prefixes + [{"filter": name, "value": value} for name, value in single]


def evaluate(setting: Setting, name: str) -> float | None:
    """What mergekit takes for the tensor `name`, by the rule above; None where no filter matches."""
    if not isinstance(setting, list):
        return setting
    return next((float(entry["value"]) for entry in setting if str(entry["filter"]) in name), None)


def _own_prefix(group: Sequence[str], names: Sequence[str]) -> str:
    """The longest dotted prefix that the names of a group share, if it occurs in no name outside; else ''."""
    columns = zip(*(name.split(".")[:-1] for name in group), strict=False)
    prefix = "".join(f"{parts[0]}." for parts in takewhile(lambda parts: len(set(parts)) == 1, columns))
    members = set(group)
    if len(group) < 2 or not prefix or any(prefix in name for name in names if name not in members):
        return ""
    return prefix
