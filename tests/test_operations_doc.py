"""What docs/operations.md tells an operator to type and to query exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from observe.watched_study import tell_all

from mergesearch.cli import COMMANDS
from mergesearch.cli.app import app
from mergesearch.observe.metrics import MetricsObserver

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
CODE = [*re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL), *re.findall(r"`([^`\n]+)`", TEXT)]
TYPED = sorted(
    {
        line.partition(" #")[0].strip()
        for block in CODE
        for line in block.splitlines()
        if line.startswith("mergesearch ")
    }
)


@pytest.mark.parametrize("line", TYPED)
def test_every_command_and_option_exists(line: str) -> None:
    """Each `mergesearch ...` names a command that is there, with options that it takes."""
    words = shlex.split(line)[1:]
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    assert name in COMMANDS, name
    command = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def test_commands_stand_in_the_document() -> None:
    """Those that an operator needs are told of."""
    told = " ".join(TYPED)
    for command in ("launch", "resume", "pause", "cancel", "status", "show", "store info", "store gc", "store export"):
        assert f"mergesearch {command}" in told


def test_every_option_alone_exists() -> None:
    """An option in running text belongs to a command of ours, or stands beside another program's name."""
    command = typer.main.get_command(app)
    known = {option for c in _all(command) for parameter in c.params for option in parameter.opts}
    named = {word for code in re.findall(r"`(--[a-z][a-z-]*)[^`]*`", TEXT) for word in [code]} - {"--log-"}
    assert named <= known, named - known


def _all(command: typer.core.TyperCommand) -> list[typer.core.TyperCommand]:
    inner = getattr(command, "commands", {}).values()
    return [command, *(found for one in inner for found in _all(one))]


def test_every_metric_is_real() -> None:
    """Each name is served by a controller, and each that is served is told of."""
    with MetricsObserver(0) as metrics:
        tell_all([metrics])
        served = {s.name for family in metrics.metrics.registry.collect() for s in family.samples}
    served = {name for name in served if not name.endswith("_created")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in served}
    named = set(re.findall(r"\bmergesearch_[a-z_]+\b", TEXT))
    assert named <= served | families, named - served
    assert {name for name in families if name.startswith("mergesearch_")} <= named


def test_yaml_examples_are_yaml() -> None:
    """Prometheus' configuration and rules can be read."""
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert [list(yaml.safe_load(block)) for block in blocks] == [["scrape_configs"], ["groups"]]


def test_every_file_and_heading_that_is_named_exists() -> None:
    """Profiles, bring-up files, links, and the table of contents."""
    for path in re.findall(r"\b((?:workers|docker|studies)/[\w./-]+\.(?:yaml|sh|md))", TEXT):
        assert (ROOT / path).exists(), path
    headings = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (ROOT / "docs" / target).exists(), target
