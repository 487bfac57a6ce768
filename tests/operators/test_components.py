"""What operators with remembered components share."""

from collections.abc import Sequence

import numpy as np
import torch

from mergesearch.operators.algebra.components import Components, Key, Plan
from mergesearch.operators.base import Layout
from mergesearch.operators.passes.stream import Stream
from mergesearch.space import Settings

GROUP = {"a": 0, "b": 1, "bias": 1}
LAYOUT = Layout(("x", "y"), ("g0", "g1"), GROUP)


def models() -> list[dict[str, torch.Tensor]]:
    """A base of zeros and two experts."""
    shapes = {"a": (3, 4), "b": (5, 2), "bias": (6,)}
    return [{n: torch.full(s, value) for n, s in shapes.items()} for value in (0.0, 1.0, 3.0)]


def plan(settings: Settings, row: int) -> Plan:
    """One component, made for the knob `shape`, weighted by the knob `scale`."""
    return Plan((float(settings["shape"][row, 0]),), (float(settings["scale"][row, 0]),))


def tables(shape: Sequence[float], scale: float) -> dict[str, np.ndarray]:
    """Settings of the two groups."""
    return {"shape": np.array(shape)[:, None], "scale": np.full((2, 1), scale)}


def test_components_are_made_anew_only_where_their_key_changed() -> None:
    """Weights change nothing that is remembered; a structural knob of one group remakes that group alone."""
    made: list[tuple[str, Key]] = []

    def make(name: str, key: Key) -> list[torch.Tensor]:
        made.append((name, key))
        return [torch.full(models()[0][name].shape, key[0], dtype=torch.float64)]

    prepared = Components(Stream(models(), list(GROUP)), LAYOUT, ["a", "b"], make, plan, lambda _s, _r: (1.0, 1.0))
    into = models()[0]
    prepared.apply(tables([2.0, 2.0], 0.5), list(GROUP), into)
    assert sorted(made) == [("a", (2.0,)), ("b", (2.0,))]
    assert torch.equal(into["a"], torch.ones(3, 4))
    assert torch.equal(into["bias"], torch.full((6,), 2.0))
    prepared.apply(tables([2.0, 2.0], 1.5), list(GROUP), into)
    assert torch.equal(into["b"], torch.full((5, 2), 3.0))
    prepared.apply(tables([2.0, 4.0], 1.0), list(GROUP), into)
    assert made[2:] == [("b", (4.0,))]
    assert torch.equal(into["b"], torch.full((5, 2), 4.0))


def test_other_tensors_keep_the_base_without_a_mean_and_a_balance_multiplies_weights() -> None:
    """`mean` None writes the base; `balance` acts on matrices alone."""
    make = lambda name, _key: [torch.ones(models()[0][name].shape)]  # noqa: E731
    stream = Stream(models(), list(GROUP))
    prepared = Components(
        stream, LAYOUT, ["a", "b"], make, plan, None, lambda name, _s, _r: [2.0 if name == "a" else 3.0]
    )
    into = {n: t + 9 for n, t in models()[0].items()}
    prepared.apply(tables([1.0, 1.0], 0.5), list(GROUP), into)
    assert [float(into[n].unique()) for n in GROUP] == [1.0, 1.5, 0.0]


def test_components_do_not_depend_on_the_number_of_threads() -> None:
    """Many matrices at once on several threads, each on one, give the bits of one thread."""
    rng = torch.Generator().manual_seed(0)
    base = {str(i): torch.randn(40, 30, generator=rng) for i in range(8)}
    layout = Layout(("x",), ("g",), dict.fromkeys(base, 0))
    make = lambda name, _key: [torch.linalg.svd(base[name].double())[0][:, :30]]  # noqa: E731
    results, threads = [], torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        into = {n: torch.empty_like(t) for n, t in base.items()}
        prepared = Components(Stream([base, base], list(base)), layout, list(base), make, plan, None)
        prepared.apply({"shape": np.ones((1, 1)), "scale": np.ones((1, 1))}, list(base), into)
        assert torch.get_num_threads() == count
        results.append(into)
    torch.set_num_threads(threads)
    assert all(torch.equal(results[0][n], results[1][n]) for n in base)
