"""Promises of workers/*.yaml and their schema."""

from pathlib import Path

import pytest

from mergesearch.errors import SpecError
from mergesearch.pool import POOLS
from mergesearch.pool.profile import Profile, load_profile, open_pool

WORKERS = Path(__file__).parents[2] / "workers"
PROFILES = sorted(WORKERS.glob("*.yaml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_every_file_in_workers_loads(path: Path) -> None:
    """Each profile that is shipped is valid, begins with a comment, and stands in the README."""
    assert load_profile(path).pool in POOLS
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert f"`{path.name}`" in (WORKERS / "README.md").read_text(encoding="utf-8")


def test_every_key_is_described() -> None:
    """The README of workers/ names every kind of pool and every key."""
    text = (WORKERS / "README.md").read_text(encoding="utf-8")
    assert len(PROFILES) >= 2
    for path in PROFILES:
        profile = load_profile(path)
        assert f"`{profile.pool}`" in text
        assert all(f"`{key}`" in text for key in type(profile.options).model_fields)


def test_without_a_profile_this_process_works() -> None:
    """The default profile is inline, on any device."""
    profile = Profile()
    assert (profile.pool, profile.device, profile.threads_per_worker) == ("inline", "auto", None)
    assert open_pool(profile, dict).size == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pool: ray\nworkesr: 2\n", r"p.yaml:2: unknown key 'workesr'; did you mean 'workers'\?"),
        ("# two\n\npool: inlin\n", r"p.yaml:3: pool 'inlin' is unknown; did you mean 'inline'\?"),
        ("workers: 2\n", r"p.yaml: key 'pool' is missing; it is one of inline, ray"),
        ("pool: ray\nworkers: 0\n", r"p.yaml:2: workers is a number above 0, 'auto', or bounds .* \(got 0\)"),
        ("pool: ray\nworkers: some\n", r"p.yaml:2: .*'auto'"),
        ("pool: inline\ntimeout_s: 3\n", r"p.yaml:2: unknown key 'timeout_s'"),
        ("pool: ray\ndevice: tpu\n", r"p.yaml:2: Input should be 'auto', 'cpu' or 'cuda'"),
        ("pool: [ray\n", r"p.yaml:2: not valid YAML"),
        ("- ray\n", r"p.yaml:1: a workers profile is a mapping"),
        ("", r"p.yaml:1: a workers profile is a mapping"),
    ],
)
def test_a_wrong_profile_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """Each fault gets one line with file, line and what is allowed."""
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=sentence):
        load_profile(path)


def test_a_missing_profile_is_refused(tmp_path: Path) -> None:
    """A path that leads nowhere is named."""
    with pytest.raises(SpecError, match=r"cannot read workers profile .*none.yaml.*No such file"):
        load_profile(tmp_path / "none.yaml")
