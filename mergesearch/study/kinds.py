"""Study files of both kinds: with models, and without."""

from pathlib import Path
from typing import TypeAlias

from mergesearch.errors import SpecError
from mergesearch.strategies.base import Need
from mergesearch.strategies.make import make_strategy, needs
from mergesearch.study.black_box import BlackBoxSpec, is_black_box
from mergesearch.study.check import Checked, Finding, Level
from mergesearch.study.outside import black_box_problem, parse_outside
from mergesearch.study.source import parse_study, read_text
from mergesearch.study.spec import StudySpec
from mergesearch.study.text import Source

__all__ = [
    "AnySpec", "BlackBoxSpec", "black_box_problem", "check_black_box", "parse_any", "read_any",
]  # fmt: skip

AnySpec: TypeAlias = StudySpec | BlackBoxSpec


def read_any(path: Path) -> tuple[AnySpec, Source]:
    """The study in a file of either kind; its relative paths are relative to the current folder.

    Raises:
        SpecError: the file is missing, is not YAML, or has keys, kinds or values that cannot be.
    """
    source = Source(str(path), read_text(path), Path.cwd())
    return parse_any(source), source


def parse_any(source: Source) -> AnySpec:
    """The study in `source`, of either kind. Raises SpecError with line and column."""
    if not is_black_box(source.text, source.name):
        return parse_study(source)
    return parse_outside(source)


def check_black_box(spec: BlackBoxSpec, source: Source) -> Checked:
    """Look at a study without models. Never raises for what it finds."""
    needed = "gradients: the strategy asks the scorers for them; say 'gradients: true' in the workers profile"
    strategy, line = spec.strategy, source.position(("strategy",))[0]
    scored = "no models: programs outside score its candidates; launch it with a profile of 'pool: external'"
    findings = [Finding(Level.OK, scored, source.position(("axes",))[0])]
    try:
        make_strategy(strategy.kind, black_box_problem(spec, gradients=True), strategy.seed, strategy.options)
        if Need.GRADIENTS in needs(strategy.kind, strategy.options):
            findings.append(Finding(Level.WARNING, needed, line))
    except SpecError as error:
        findings.append(Finding(Level.ERROR, f"{source.at(('strategy',))}: {error}", line))
    return Checked(tuple(findings), None, spec.space)
