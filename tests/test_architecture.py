"""The house rules that a machine can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "mergesearch").rglob("*.py"))
LONGEST_FILE = 500
LONGEST_FUNCTION = 60
HEAVY = (
    "torch",
    "transformers",
    "ray",
    "sqlalchemy",
    "alembic",
    "optuna",
    "cma",
    "pymoo",
    "matplotlib",
    "pandas",
    "scipy",
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    """No file over 500 lines, no function over 60."""
    text = path.read_text()
    assert text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node, clean=False) or ""
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - doc.count("\n")
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_says_what_it_is(path: Path) -> None:
    """Each file begins with a docstring; none hides an import cycle behind TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert "TYPE_CHECKING" not in path.read_text()


@pytest.mark.parametrize("arguments", [["--help"], ["launch", "--help"], ["list", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """`mergesearch --help` answers at once: it imports no heavy library."""
    code = (
        "import sys; from mergesearch.cli.app import app\n"
        f"try: app({arguments!r})\nexcept SystemExit: pass\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_are_few_and_real() -> None:
    """At most 15 public names, each importable."""
    import mergesearch

    assert len(mergesearch.__all__) <= 15
    for name in mergesearch.__all__:
        assert getattr(mergesearch, name) is not None
