"""The budget and cache of a study file: what it may say, and what its digest leaves out."""

from pathlib import Path

import pytest
from export.small_study import STUDY, make_models, resolved_study

from mergesearch.controller.launch import check_gpus, spec_digest
from mergesearch.errors import SpecError
from mergesearch.pool.profile import Profile, parse_profile
from mergesearch.study.source import Source, parse_study
from mergesearch.study.spec import Budget, Plateau

WHOLE = (
    "budget: {examples: 5000, gpu_seconds: 60, hours: 2, target: {d: 0.9}, plateau: {evaluations: 30, gain: 0.01}}\n"
)


def test_every_limit_can_stand_in_a_study_file() -> None:
    """Each with its type; a plateau has a default gain, and the store is used unless the file says otherwise."""
    spec = parse_study(Source("s.yaml", STUDY + WHOLE, Path()))
    assert spec.budget == Budget(
        examples=5000, gpu_seconds=60.0, hours=2.0, target={"d": 0.9}, plateau=Plateau(evaluations=30, gain=0.01)
    )
    assert Plateau(evaluations=30).gain == 0.001
    assert spec.cache
    assert not parse_study(Source("s.yaml", STUDY + "cache: false\n", Path())).cache


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("budget:\n  target: {dd: 0.9}\n", r"s.yaml:\d+:12: no objective is called 'dd'; did you mean 'd'"),
        ("budget: {plateau: {gain: 0.1}}\n", "key 'evaluations' is missing"),
        ("budget: {gpuseconds: 3}\n", "unknown key 'gpuseconds'; did you mean 'gpu_seconds'"),
        ("budget: {target: {d: .inf}}\n", "finite"),
        ("budget: {examples: 0}\n", "greater than or equal to 1"),
    ],
)
def test_bad_limits_have_their_line(text: str, sentence: str) -> None:
    """Where it stands, what was given, what is allowed."""
    with pytest.raises(SpecError, match=sentence):
        parse_study(Source("s.yaml", STUDY + text, Path()))


def test_budget_and_cache_do_not_decide_results(tmp_path: Path) -> None:
    """So a study whose file changes in them has the digest it had."""
    make_models(tmp_path)
    first = spec_digest(resolved_study(tmp_path))
    assert spec_digest(resolved_study(tmp_path, STUDY + WHOLE + "cache: false\n")) == first
    assert spec_digest(resolved_study(tmp_path, STUDY + "strategy: {seed: 3}\n")) != first


def test_gpu_seconds_need_workers_with_a_gpu() -> None:
    """Refused with the profile's name and what to do; fractions of a GPU will do."""
    budget = Budget(gpu_seconds=60.0)
    with pytest.raises(SpecError, match="this process, the only worker, has no GPUs to count; set gpus_per_worker"):
        check_gpus(budget, Profile())
    with pytest.raises(SpecError, match=r"profile .w\.yaml. has no GPUs"):
        check_gpus(budget, parse_profile({"pool": "ray"}, "w.yaml"))
    check_gpus(budget, parse_profile({"pool": "ray", "gpus_per_worker": 0.5}, "w.yaml"))
    check_gpus(Budget(), Profile())
