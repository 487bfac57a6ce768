"""Layer groups from tensor names, for any architecture and without a table of them: the repeated number is the layer.

A *container* is a dotted path whose numbered children hold the same inner names, as 'model.layers' in
'model.layers.0.mlp.up_proj.weight'. The outermost number of a name decides, so that experts of a mixture or blocks of a
stage do not count as layers.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mergesearch.checkpoints.compare import is_head
from mergesearch.checkpoints.reader import Checkpoint
from mergesearch.errors import SpecError
from mergesearch.plugins import did_you_mean

Granularity: TypeAlias = str | Mapping[str, str] | Mapping[str, int]
"""'model', 'block', 'module', 'tensor', {'chunks': N}, or {regular expression: group name}."""

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Path: TypeAlias = tuple[str, ...]
KINDS = ("model", "block", "module", "tensor")


@dataclass(frozen=True)
class Grouping:
    """Ordered group names; `group_of[tensor]` is a tensor's row among them, in the order of the groups."""

    groups: tuple[str, ...]
    group_of: Mapping[str, int]


@dataclass(frozen=True)
class _Place:
    """Where a tensor stands: in layer `index` of container `container`, or outside (`index` None)."""

    container: Path | None
    index: int | None
    label: str  # group name at the granularity 'block'
    inner: Path = ()  # what follows the number


def layer_groups(shapes: Shapes, granularity: Granularity = "block") -> Grouping:
    """Put every tensor of `shapes` (name -> shape) into one group.

    'block': embeddings, 'L0', 'L1', ... ('encoder.L0', ... where there are several containers), then the rest by their
    first distinguishing name. 'module': layers further divided, as 'L3.self_attn', with parts that hold only vectors
    together as 'L3.norm'. {'chunks': N}: the layers in N runs of nearly equal length, 'C0', ... A mapping of regular
    expressions: the first that is found in a name decides.

    Raises:
        SpecError: an unknown kind, a bad or unused expression, a name that no expression matches, too many chunks, or
            no tensor at all.
    """
    if not shapes:
        raise SpecError("space.groups: there is no tensor to put into groups; do the 'heads' cover the whole model?")
    if isinstance(granularity, str):
        if granularity not in KINDS:
            raise SpecError(f"space.groups: {granularity!r} is unknown{did_you_mean(granularity, KINDS)}")
        if granularity == "model":
            return _grouping(("model",), dict.fromkeys(sorted(shapes), "model"))
        if granularity == "tensor":
            order = [name for name, _ in _ordered(_places(shapes))]
            return _grouping(order, {name: name for name in order})
        places = _places(shapes)
        return _collect(places, _module_names(places, shapes) if granularity == "module" else {})
    if set(granularity) == {"chunks"}:
        return _chunked(_places(shapes), granularity["chunks"])
    return _by_expression(shapes, {str(k): str(v) for k, v in granularity.items()})


def groups_among(names: Sequence[str], shapes: Shapes, granularity: Granularity = "block") -> Grouping:
    """`layer_groups` where only `names` of the model's `shapes` are merged, as with adapters: groups of these alone.

    They are called what they are called in the whole model; expressions and chunks divide `names` alone.
    """
    if not names:
        raise SpecError("space.groups: there is no tensor to put into groups; do the 'heads' cover the whole adapters?")
    if not isinstance(granularity, str):
        return layer_groups({name: shapes[name] for name in names}, granularity)
    whole, wanted = layer_groups(shapes, granularity), set(names)
    of = {name: whole.groups[row] for name, row in whole.group_of.items() if name in wanted}
    return _grouping([group for group in whole.groups if group in set(of.values())], of)


def group_tensors(
    checkpoint: Checkpoint,
    granularity: Granularity = "block",
    heads: Sequence[str] = (),
    among: Sequence[str] | None = None,
) -> Grouping:
    """`layer_groups` of what is merged of a checkpoint: its float tensors but the heads, or only those `among` them."""
    merged = {
        name: info.shape
        for name, info in checkpoint.headers.items()
        if info.dtype.is_floating_point and not is_head(name, heads)
    }
    return layer_groups(merged, granularity) if among is None else groups_among(among, merged, granularity)


def layer_depths(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """For each tensor that stands in a layer: the layer's place in its container, from 0, and how many layers it has.

    Tensors outside the layers (embeddings, head, final norm) are left out.
    """
    places = _places(shapes) if shapes else {}
    layers: dict[Path, set[int]] = defaultdict(set)
    for place in places.values():
        if place.container is not None and place.index is not None:
            layers[place.container].add(place.index)
    rank = {container: {index: i for i, index in enumerate(sorted(found))} for container, found in layers.items()}
    return {
        name: (rank[place.container][place.index], len(rank[place.container]))
        for name, place in places.items()
        if place.container is not None and place.index is not None
    }


def _grouping(groups: Iterable[str], of: Mapping[str, str]) -> Grouping:
    names = tuple(dict.fromkeys(groups))
    row = {name: i for i, name in enumerate(names)}
    return Grouping(names, {n: row[g] for n, g in sorted(of.items(), key=lambda item: row[item[1]])})


def _numbers(path: Path) -> list[int]:
    """Positions of the numeric segments."""
    return [i for i, segment in enumerate(path) if segment.isdigit()]


def _containers(paths: Sequence[Path]) -> list[Path]:
    """Outermost containers, sorted. Children of one segment ('classifier.0.weight') count only if nothing else does."""
    inner: dict[Path, dict[str, set[Path]]] = defaultdict(lambda: defaultdict(set))
    for path in paths:
        for i in _numbers(path):
            inner[path[:i]][path[i]].add(path[i + 1 :])
    for deep in (2, 1):
        found = {c for c, children in inner.items() if _repeats(children, deep)}
        outermost = {next((p[:i] for i in _numbers(p) if p[:i] in found), None) for p in paths}
        if outermost - {None}:
            return sorted(c for c in outermost if c is not None)
    return []


def _repeats(children: Mapping[str, set[Path]], deep: int) -> bool:
    """Whether at least two numbered children share an inner name of at least `deep` segments."""
    seen: set[Path] = set()
    for names in children.values():
        names = {n for n in names if len(n) >= deep}
        if seen & names:
            return True
        seen |= names
    return False


def _common(a: Path, b: Path) -> int:
    """Number of leading segments that two paths share."""
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def _places(shapes: Shapes) -> dict[str, _Place]:
    paths = {name: tuple(name.split(".")) for name in shapes}
    containers = _containers(list(paths.values()))
    stem = containers[0] if containers else _stem(list(paths.values()))
    for other in containers[1:]:
        stem = stem[: _common(stem, other)]
    towers = _tower_labels(containers, len(stem))
    return {name: _place(path, containers, towers, stem) for name, path in paths.items()}


def _stem(paths: Sequence[Path]) -> Path:
    """What all paths begin with, at least one segment of each being left over."""
    stem = paths[0][:-1]
    for path in paths[1:]:
        stem = stem[: _common(stem, path[:-1])]
    return stem


def _tower_labels(containers: Sequence[Path], stem: int) -> dict[Path, str]:
    """'' for a single container; else the fewest segments after the common stem that tell them apart."""
    if len(containers) < 2:
        return dict.fromkeys(containers, "")
    for length in range(1, max(map(len, containers)) + 1):
        labels = {c: ".".join(c[stem : stem + length]) for c in containers}
        if len(set(labels.values())) == len(containers):
            break
    return {c: f"{label}." if label else "" for c, label in labels.items()}


def _place(path: Path, containers: Sequence[Path], towers: Mapping[Path, str], stem: Path) -> _Place:
    for i in _numbers(path):
        if path[:i] in towers:
            container, index = path[:i], int(path[i])
            return _Place(container, index, f"{towers[container]}L{index}", path[i + 1 :])
    if not containers:
        return _Place(None, None, path[min(len(stem), len(path) - 1)])
    # Outside the layers: named by the first segment that leaves the path to the nearest container, within its tower.
    nearest = max(containers, key=lambda c: _common(c, path))
    shared = min(_common(nearest, path), len(path) - 1)
    within = len(containers) > 1 and shared > len(stem)
    return _Place(None, None, (towers[nearest] if within else "") + path[shared])


def _ordered(places: Mapping[str, _Place]) -> list[tuple[str, _Place]]:
    """Embeddings, layers by container and number, then the rest; each by name."""

    def key(item: tuple[str, _Place]) -> tuple[int, Path, int, str, str]:
        name, place = item
        if place.index is not None:
            return (1, place.container or (), place.index, "", name)
        return (0 if "emb" in place.label.lower() else 2, (), 0, place.label, name)

    return sorted(places.items(), key=key)


def _collect(places: Mapping[str, _Place], label: Mapping[str, str]) -> Grouping:
    """Groups in the order of `_ordered`; `label` overrides a tensor's block."""
    ordered = _ordered(places)
    of = {name: label.get(name, place.label) for name, place in ordered}
    if label:  # the parts of one layer stand together, by name
        rank = {place.label: i for i, (_, place) in reversed(list(enumerate(ordered)))}
        names = sorted({(rank[place.label], of[name]) for name, place in ordered})
        return _grouping([group for _, group in names], of)
    return _grouping(of.values(), of)


def _module_names(places: Mapping[str, _Place], shapes: Shapes) -> dict[str, str]:
    """Tensor -> 'L3.self_attn' for tensors in layers. A number that follows belongs to the module: 'L0.blocks.1'."""
    module = {}
    for name, place in places.items():
        if place.index is not None and place.inner:
            numbered = len(place.inner) > 2 and place.inner[1].isdigit()
            module[name] = ".".join((place.label, *place.inner[: 2 if numbered else 1]))
    matrices = {module[name] for name in module if len(shapes[name]) > 1}
    return {name: m if m in matrices else f"{places[name].label}.norm" for name, m in module.items()}


def _chunked(places: Mapping[str, _Place], count: object) -> Grouping:
    layers = list(dict.fromkeys(place.label for _, place in _ordered(places) if place.index is not None))
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(layers):
        raise SpecError(
            f"space.groups: chunks must be a whole number from 1 to {len(layers)} (the layers), got {count!r}"
        )
    chunk = {layer: f"C{i * count // len(layers)}" for i, layer in enumerate(layers)}
    return _collect(places, {n: chunk.get(p.label, p.label) for n, p in places.items()})


def _by_expression(shapes: Shapes, expressions: Mapping[str, str]) -> Grouping:
    tests: list[tuple[str, Callable[[str], object], str]] = []
    for expression, group in expressions.items():
        try:
            tests.append((expression, re.compile(expression).search, group))
        except re.error as error:
            raise SpecError(f"space.groups: {expression!r} is not a regular expression ({error})") from None
    of: dict[str, str] = {}
    used: set[str] = set()
    unmatched = []
    for name in sorted(shapes):
        hit = next(((expression, group) for expression, test, group in tests if test(name)), None)
        if hit is None:
            unmatched.append(name)
            continue
        used.add(hit[0])
        of[name] = hit[1]
    if unmatched:
        shown = ", ".join(map(repr, unmatched[:4])) + (f" and {len(unmatched) - 4} more" if len(unmatched) > 4 else "")
        raise SpecError(f"space.groups: no expression matches {shown}; add one, or a last one '.*'")
    if idle := [e for e in expressions if e not in used]:
        raise SpecError(f"space.groups: {idle[0]!r} decides no tensor; mend it, or move it before a wider one")
    return _grouping(expressions.values(), of)
