"""Study files: what is refused, and where the sentence points."""

from pathlib import Path

import pytest

from mergesearch.errors import SpecError
from mergesearch.study.source import Source, parse_study, read_study

GOOD = """\
name: s
models:
  base: base
  experts: {a: a, b: b}
merge:
  operator: task_arithmetic
  heads: ["classifier.*"]
objectives:
  - {name: a, scorer: image_classification, head: a, data: {path: a.npz}}
  - name: b
    scorer: image_classification
    head: b
    data: {path: b.npz}
strategy: {kind: random, seed: 3}
budget: {evaluations: 10}
"""


def parse(text: str) -> object:
    return parse_study(Source("s.yaml", text, Path()))


def test_a_good_file_is_read() -> None:
    """Every section has defaults but models and objectives."""
    spec = parse_study(Source("s.yaml", GOOD, Path()))
    assert spec.strategy.kind == "random"
    assert spec.space.groups == "block"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("strategy:", "strategey:", r"s.yaml:14:1: unknown key 'strategey'; did you mean 'strategy'\?"),
        ("evaluations:", "evalutions:", r"s.yaml:15:10: unknown key 'evalutions'; did you mean 'evaluations'\?"),
        ("kind: random", "kind: randon", r"s.yaml:14:12: strategy 'randon' is unknown; did you mean 'random'\?"),
        ("operator: task_arithmetic", "operator: task_arithmetics", r"s.yaml:6:3: operator 'task_arithmetics'"),
        ("    scorer: image", "    scorer: imagee", r"s.yaml:11:5: scorer 'imagee_classification' is unknown; did you"),
        ("    head: b", "    head: c", r"s.yaml:12:5: no expert is called 'c'"),
        (
            "    data: {path: b.npz}",
            "    data: {paths: b.npz}",
            r"s.yaml:13:12: unknown key 'paths'; did you mean 'path'",
        ),
        (
            "    head: b",
            "    head: b\n    metric: acc",
            r"s.yaml:13:5: scorer 'image_classification' has no metric 'acc'",
        ),
        ("seed: 3", "seed: 3, sedd: 4", r"s.yaml:14:\d+: unknown key 'sedd'"),
        (
            "budget:",
            "space: {coeficient: {low: 0, high: 1}}\nbudget:",
            r"s.yaml:15:9: operator 'task_arithmetic' has no knob",
        ),
        ("{evaluations: 10}", "{evaluations: 0}", r"s.yaml:15:10: .*greater than or equal to 1"),
        ("  - name: b", "  - name: a", r"two objectives share a name"),
        ("models:", "models: [", r"s.yaml:\d+:\d+: not valid YAML"),
        ("  base: base\n", "", r"s.yaml:2:1: key 'base' is missing"),
    ],
)
def test_a_fault_is_named_with_its_line(old: str, new: str, sentence: str) -> None:
    """Line, column, what is wrong, and what was meant."""
    assert old in GOOD
    with pytest.raises(SpecError, match=sentence):
        parse(GOOD.replace(old, new, 1))


def test_every_fault_is_named_at_once() -> None:
    """Two faults give two lines."""
    with pytest.raises(SpecError) as caught:
        parse(GOOD.replace("kind: random", "kind: rendom").replace("operator: task", "operator: tusk"))
    assert len(str(caught.value).split("\n")) == 2


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """No stack trace for a file that is not there."""
    with pytest.raises(SpecError, match="cannot read study file"):
        read_study(tmp_path / "none.yaml")


def test_a_list_is_no_study() -> None:
    """A file that is not a mapping is refused."""
    with pytest.raises(SpecError, match="a study file is a mapping"):
        parse("[1, 2]")
