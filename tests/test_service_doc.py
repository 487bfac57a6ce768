"""What docs/service.md tells people to type, to open and to ask for exists."""

import pkgutil
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from mergesearch.cli.app import app
from mergesearch.web import pages, settings
from mergesearch.web.app import create_app
from mergesearch.web.jobs import FOLDER
from mergesearch.web.security.tokens import SHORTEST, token_file

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
BASH = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
TYPED = sorted({line.partition(" #")[0].strip() for line in BASH if line.startswith("mergesearch ")})
ASKED = sorted({line.partition(" #")[0].strip() for line in BASH if "curl" in line})


@cache
def described() -> dict[str, Any]:
    """The API's description of itself: path -> method -> what it takes."""
    found: dict[str, Any] = create_app(settings.Settings("memory://")).openapi()["paths"]
    return found


def route(path: str, method: str) -> dict[str, Any] | None:
    """What takes that request; None if nothing does."""
    for pattern, methods in described().items():
        if re.fullmatch(shape(pattern), path) and method.lower() in methods:
            found: dict[str, Any] = methods[method.lower()]
            return found
    return None


def shape(pattern: str) -> str:
    """A route's path as a regular expression."""
    return re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(pattern))


def options(name: str) -> set[str]:
    """The options of a command."""
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("line", TYPED)
def test_every_command_and_option_exists(line: str) -> None:
    """Each `mergesearch ...` takes its options."""
    words = shlex.split(line)[1:]
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= options(words[0])


def test_the_table_has_every_option_of_the_server() -> None:
    """None is missing, none is made up; the defaults are those of the code."""
    named = set(re.findall(r"`(--[a-z-]+)`", TEXT.partition("## The token")[0]))
    assert named == options("serve") - {"--help"}
    assert f"`127.0.0.1`, {settings.PORT}" in TEXT
    assert f"at\nleast {SHORTEST} characters" in TEXT
    assert f"`{FOLDER}/`" in TEXT
    home = str(token_file({})).replace(str(Path.home()), "~")
    assert TEXT.count(f"`{home}`") == 2


@pytest.mark.parametrize("line", ASKED)
def test_every_request_has_a_route(line: str) -> None:
    """Path and method; a query names only parameters that the route takes."""
    asked = re.search(r"\$A(/[^\s\"?]+)\??([^\s\"]*)", line)
    assert asked
    found = route(f"/api/v1{asked[1]}", "POST" if "-X POST" in line or "-d " in line else "GET")
    assert found is not None
    taken = {parameter["name"] for parameter in found.get("parameters", ())}
    assert {part.partition("=")[0] for part in asked[2].split("&") if part} <= taken


def test_every_page_and_route_in_the_text_exists() -> None:
    """Those in tables and sentences."""
    known = "|".join(shape(path) for path in _pages())
    for path in re.findall(r"^\| `(/[^`?]*)", TEXT, re.M):
        assert re.fullmatch(known, path), path
    for path in re.findall(r"`(/api/v1/[^`]+)`", TEXT):
        assert route(path, "GET") or route(path, "POST") or path == "/api/v1/openapi.json", path


def _pages() -> Iterator[str]:
    for found in pkgutil.iter_modules(pages.__path__):
        router = getattr(import_module(f"{pages.__name__}.{found.name}"), "router", None)
        yield from (page.path for page in getattr(router, "routes", ()))


def test_links_lead_somewhere() -> None:
    """Headings, files, and studies that are named."""
    headings = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target[1:] in headings if target.startswith("#") else (ROOT / "docs" / target).exists(), target
    for path in re.findall(r"\b(?:studies)/[\w-]+\.yaml", TEXT):
        assert (ROOT / path).exists(), path
