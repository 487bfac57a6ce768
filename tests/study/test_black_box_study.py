"""Study files without models: what is refused, and what launches."""

from pathlib import Path

import pytest

from mergesearch.controller.launch import launch, resume, stored_spec
from mergesearch.errors import SpecError, StudyNotFound
from mergesearch.pool.profile import Profile, load_profile, parse_profile
from mergesearch.space import Scale
from mergesearch.store.memory import MemoryStore
from mergesearch.study.black_box import BlackBoxSpec
from mergesearch.study.check import Level
from mergesearch.study.kinds import check_black_box, parse_any, read_any
from mergesearch.study.source import Source, parse_study
from mergesearch.study.spec import StudySpec

ROOT = Path(__file__).parents[2]
FILE = ROOT / "studies" / "external.yaml"
GOOD = """\
name: s
axes:
  x: {low: 0, high: 2}
  rate: {low: 0.01, high: 100, scale: log}
  depth: {low: 1, high: 4, kind: whole, init: 3}
objectives:
  - {name: up}
  - {name: down, direction: min, weight: 2, low: 0}
strategy: {kind: random}
budget: {evaluations: 9}
"""


def parse(text: str) -> BlackBoxSpec:
    spec = parse_any(Source("s.yaml", text, Path()))
    assert isinstance(spec, BlackBoxSpec)
    return spec


def test_axes_and_objectives_are_as_the_file_says() -> None:
    """Ranges, scales, whole numbers and starts, in the file's order; a start left out is the middle of the scale."""
    spec = parse(GOOD)
    axes = spec.space.axes
    assert [(a.name, a.low, a.high, a.scale, a.whole) for a in axes] == [
        ("x", 0, 2, Scale.LINEAR, False), ("rate", 0.01, 100, Scale.LOG, False), ("depth", 1, 4, Scale.LINEAR, True),
    ]  # fmt: skip
    assert [a.init for a in axes] == [1.0, pytest.approx(1.0), 3]
    assert [(o.name, o.direction.value, o.weight, o.low) for o in spec.wanted] == [
        ("up", "max", 1.0, None), ("down", "min", 2.0, 0.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("high: 2}", "high: 0}", r"s.yaml:3:3: low 0.0 must be below high 0.0"),
        ("low: 0.01", "low: 0", r"s.yaml:4:3: a log scale needs low > 0"),
        ("init: 3", "init: 3.5", r"s.yaml:5:3: takes whole numbers"),
        ("kind: whole", "kind: int", r"s.yaml:5:\d+: Input should be 'real' or 'whole'"),
        ("high: 2}", "hihg: 2}", r"unknown key 'hihg'; did you mean 'high'"),
        ("{name: up}", "{name: down}", r"two objectives share a name"),
        ("kind: random", "kind: randm", r"s.yaml:9:12: strategy 'randm' is unknown; did you mean 'random'"),
        ("kind: random", "kind: random, sigma: 1", r"s.yaml:9:\d+: unknown key 'sigma'"),
        ("evaluations: 9", "evaluations: 9, gpu_seconds: 3", r"'gpu_seconds' of work done outside cannot be counted"),
        ("evaluations: 9", "evaluations: 9, target: {upp: 3}", r"no objective is called 'upp'; did you mean 'up'"),
        ("high: 2}", "high: .inf}", r"finite number"),
        ("strategy:", "merge: {}\nstrategy:", r"unknown key 'merge'"),
    ],
)
def test_a_wrong_file_is_refused(old: str, new: str, sentence: str) -> None:
    """Each fault is named with its line."""
    with pytest.raises(SpecError, match=sentence):
        parse(GOOD.replace(old, new))


def test_both_kinds_are_told_apart() -> None:
    """A file with models is read as before; one without is no study of models."""
    assert isinstance(read_any(ROOT / "studies" / "smoke.yaml")[0], StudySpec)
    with pytest.raises(SpecError, match="key 'models' is missing"):
        parse_study(Source("s.yaml", GOOD, Path()))


def test_a_check_says_what_it_is() -> None:
    """Axes are shown; a strategy that asks for gradients is a warning."""
    source = Source("s.yaml", GOOD, Path())
    checked = check_black_box(parse(GOOD), source)
    assert checked.ok
    assert checked.space is not None
    assert checked.space.dim == 3
    text = GOOD.replace("kind: random", "kind: gradient_map")
    found = check_black_box(parse(text), Source("s.yaml", text, Path())).findings[-1]
    assert (found.level, found.line) == (Level.WARNING, 9)
    assert "say 'gradients: true'" in found.sentence


def test_only_the_external_pool_will_do() -> None:
    """Any other pool is refused before anything is recorded, with what to type instead."""
    for workers in (None, Profile(), parse_profile({"pool": "ray"}, "r")):
        store = MemoryStore()
        with pytest.raises(SpecError, match=r"--workers workers/external\.yaml"):
            launch(FILE, store=store, workers=workers)
        assert store.studies() == []


def test_a_strategy_without_its_gradients_is_refused(tmp_path: Path) -> None:
    """Gradients come only from scorers that are said to send them."""
    (tmp_path / "s.yaml").write_text(GOOD.replace("kind: random", "kind: gradient_map"))
    with pytest.raises(SpecError, match="'gradient_map' asks for gradients"):
        launch(tmp_path / "s.yaml", store=MemoryStore(), workers=load_profile(ROOT / "workers" / "external.yaml"))


def test_there_is_nothing_to_export_or_raise() -> None:
    """What needs models says so; limits that cannot be counted are refused on a resume too."""
    store = MemoryStore()
    store.create("s", GOOD, parse(GOOD).digest, facts={"outside": True, "budget": 9})
    with pytest.raises(SpecError, match="has axes and no models"):
        stored_spec(store, "s")
    with pytest.raises(SpecError, match="'examples' of work done outside cannot be counted"):
        resume("s", store, limits={"examples": 5})
    with pytest.raises(StudyNotFound):
        resume("t", store)
