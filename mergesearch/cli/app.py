"""Puts the commands together and turns errors into one clear sentence and an honest exit code."""

import sys
from importlib import import_module

import typer

from mergesearch.cli import COMMANDS
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
for _name, _where in COMMANDS.items():
    _module, _function = _where.split(":")
    app.command(_name)(getattr(import_module(_module), _function))


def main() -> None:
    """Run the command line; exits with 0, with an error's own code, or with 130 after Ctrl-C."""
    try:
        app()
    except MergesearchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
