"""The documents cannot lag behind the code."""

import re
from pathlib import Path

import pytest

from mergesearch.cli import COMMANDS
from mergesearch.cli.operators_page import operators_page
from mergesearch.cli.strategies_page import meanings, strategies_page
from mergesearch.plugins import load
from mergesearch.pool import POOLS
from mergesearch.scorers import SCORERS
from mergesearch.store import STORES
from mergesearch.strategies import STRATEGIES
from mergesearch.study.kinds import parse_any
from mergesearch.study.source import Source, parse_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_described(command: str) -> None:
    """The README names each command, and its help has an example."""
    from importlib import import_module

    assert re.search(rf"`{command}[ `]", README)
    module, function = COMMANDS[command].split(":")
    assert f"Example: mergesearch {command}" in (getattr(import_module(module), function).__doc__ or "")


@pytest.mark.parametrize("kind", sorted([*STRATEGIES, *SCORERS, *POOLS]))
def test_every_kind_is_described(kind: str) -> None:
    """What works today stands in the README's table."""
    assert f"`{kind}`" in README


def test_the_page_of_operators_is_what_the_code_says() -> None:
    """docs/operators.md is made by `mergesearch list operators --markdown`."""
    assert (ROOT / "docs" / "operators.md").read_text(encoding="utf-8") == operators_page()


def test_the_page_of_strategies_is_what_the_code_says() -> None:
    """docs/strategies.md is made by `mergesearch list strategies --markdown`."""
    assert (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8") == strategies_page()


@pytest.mark.parametrize("kind", sorted(STRATEGIES))
def test_every_option_of_a_strategy_has_a_meaning(kind: str) -> None:
    """The docstring of its options names each one."""
    options = load("strategy", STRATEGIES, kind).Options
    assert set(options.model_fields) == set(meanings(options))


def test_every_store_is_described() -> None:
    """Both stores are named."""
    for kind in STORES:
        assert kind in README.lower()


@pytest.mark.parametrize("folder", ["studies", "workers"])
def test_every_launched_file_is_described(folder: str) -> None:
    """Each YAML file of studies/ and workers/ stands in its folder's README."""
    text = (ROOT / folder / "README.md").read_text()
    for path in (ROOT / folder).glob("*.yaml"):
        assert f"`{path.name}`" in text


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.name)
def test_every_study_file_is_valid(path: Path) -> None:
    """The schema accepts each, kinds and options included."""
    parse_any(Source(str(path), path.read_text(), ROOT))


def test_the_study_file_of_the_readme_is_valid() -> None:
    """The example that is explained line by line passes the schema."""
    (text,) = blocks("yaml")
    parse_study(Source("README.md", text, ROOT))


@pytest.mark.parametrize("code", blocks("python"), ids=lambda c: c.split("\n")[0])
def test_python_examples_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each example of the README runs as it stands."""
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    """Relative links of the README exist."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_docstring_examples_run() -> None:
    """The examples in the public functions' docstrings give what they say."""
    import doctest
    import importlib

    for name in ("mergesearch.controller.search", "mergesearch.merging"):
        failures, _ = doctest.testmod(importlib.import_module(name))
        assert failures == 0
