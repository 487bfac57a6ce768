"""Puts the commands together and turns errors into one clear sentence and an honest exit code."""

import logging
import sys
from importlib import import_module

import typer

from mergesearch.cli import COMMANDS, GROUPS
from mergesearch.errors import MergesearchError

INTERRUPTED = 130

app = typer.Typer(
    name="mergesearch",
    help="Search the coefficients of a model merge: launch studies, look at their fronts, export the best recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_groups: dict[str, typer.Typer] = {}
for _name, _where in COMMANDS.items():
    _module, _function = _where.split(":")
    *_group, _last = _name.split()
    if _group and _group[0] not in _groups:
        _groups[_group[0]] = typer.Typer(no_args_is_help=True)
        app.add_typer(_groups[_group[0]], name=_group[0], help=GROUPS[_group[0]])
    (_groups[_group[0]] if _group else app).command(_last)(getattr(import_module(_module), _function))


def main() -> None:
    """Run the command line; exits with 0, with an error's own code, or with 130 after Ctrl-C."""
    # Beside the store's own sentence, psycopg would log that it could not end a pipeline on a connection that is gone.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        app()
    except MergesearchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
