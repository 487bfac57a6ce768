"""YAML that is small to send and large to open is refused at once, with a sentence."""

import time

import pytest

from mergesearch.errors import SpecError
from mergesearch.study.bounded import CHARACTERS, DEPTH, NODES, load_bounded

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "unfolds into more than"),
        ("a: &a {<<: *a}\n", "itself"),
        ("a: &a [*a]\n", "itself"),
        ("a: *nothing\n", "not known yet"),
        ("[" * 200_000, "deep"),
        ("{a: " * 50_000, "deep"),
        ("".join(f"{' ' * i}a:\n" for i in range(300)), "deep"),
        ("[" + "1," * (NODES + 5) + "]", "unfolds into more than"),
        ("- &a x\n" + "- *a\n" * (NODES + 1), "unfolds into more than"),
        ("x" * (CHARACTERS + 1), "are allowed"),
        ("a: !!python/object/apply:os.system ['true']\n", "constructor"),
        ("a: !!python/name:os.system\n", "constructor"),
        ("a: \x00\n", "not valid YAML"),
        ("a: 2024-99-99\n", "not valid YAML"),
        ("a: " + "9" * 5000 + "\n", "not valid YAML"),
        ("a: [\n", "not valid YAML"),
        ("? [a]\n: b\n", "not valid YAML"),
    ],
)
def test_a_bomb_is_refused_in_milliseconds(text: str, why: str) -> None:
    """Each is a sentence with file and line, made before anything is unfolded."""
    began = time.process_time()
    with pytest.raises(SpecError, match=why) as raised:
        load_bounded(text, "study.yaml")
    assert str(raised.value).startswith("study.yaml:")
    seconds = time.process_time() - began
    assert seconds < (0.05 if len(text) < 1000 else 5.0)


def test_anchors_that_repeat_little_are_welcome() -> None:
    """As are files as deep as studies are."""
    assert load_bounded("a: &a {x: 1}\nb: {<<: *a, y: 2}\n", "f") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
    deep = "[" * (DEPTH - 1) + "]" * (DEPTH - 1)
    assert load_bounded(deep, "f") is not None
