"""Per-tensor numbers in mergekit's own form."""

from hypothesis import given
from hypothesis import strategies as st

from mergesearch.export.filters import as_setting, evaluate

LAYERS = [[f"model.layers.{i}.{part}.weight" for part in ("attn.q", "mlp.up", "norm")] for i in range(12)]


def test_a_layer_is_one_filter_that_does_not_reach_into_another() -> None:
    """'layers.1.' gives layer 1 its number and leaves layers 10 and 11 alone."""
    setting = as_setting(LAYERS, [0.1 * i for i in range(12)])
    assert isinstance(setting, list)
    assert setting[1] == {"filter": "model.layers.1.", "value": 0.1}
    assert len(setting) == 12
    for i, names in enumerate(LAYERS):
        assert {evaluate(setting, name) for name in names} == {0.1 * i}


def test_equal_numbers_are_one_number() -> None:
    """A single λ is written as one number, without filters."""
    assert as_setting(LAYERS, [0.3] * 12) == 0.3


def test_names_within_names_are_told_apart() -> None:
    """'norm.weight' stands in 'post_norm.weight'; the longer name is asked first."""
    setting = as_setting([["norm.weight"], ["post_norm.weight"]], [1.0, 2.0])
    assert evaluate(setting, "norm.weight") == 1.0
    assert evaluate(setting, "post_norm.weight") == 2.0


def test_groups_without_a_prefix_of_their_own_are_named_tensor_by_tensor() -> None:
    """Attention across all layers as one group cannot be said by a prefix, only by names."""
    attention = [names[0] for names in LAYERS]
    rest = [name for names in LAYERS for name in names[1:]]
    setting = as_setting([attention, rest], [0.2, 0.7])
    assert {evaluate(setting, name) for name in attention} == {0.2}
    assert {evaluate(setting, name) for name in rest} == {0.7}


WORDS = st.lists(st.sampled_from(["a", "b", "ab", "1", "11", "norm"]), min_size=1, max_size=4).map(".".join)


@given(st.lists(WORDS, min_size=1, max_size=12, unique=True), st.data())
def test_every_tensor_gets_its_own_number(names: list[str], data: st.DataObject) -> None:
    """Whatever the names and however they are grouped, the setting is exact."""
    count = data.draw(st.integers(1, len(names)))
    group_of = [data.draw(st.integers(0, count - 1)) for _ in names]
    groups = [[n for n, g in zip(names, group_of, strict=True) if g == wanted] for wanted in range(count)]
    values = [float(g) for g in range(count)]
    setting = as_setting(groups, values)
    for name, group in zip(names, group_of, strict=True):
        assert evaluate(setting, name) == values[group]
