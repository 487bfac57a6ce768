"""mergesearch candidate"""

from typing import Annotated

import typer

from mergesearch.cli.common import JsonOption, Named, StoreOption, StudyArgument, find, print_json


def candidate(
    study: StudyArgument,
    number: Annotated[int, typer.Argument(help="The candidate's number.", show_default=False)],
    recipe: Annotated[bool, typer.Option("--recipe", help="Print its recipe as YAML.")] = False,
    mergekit: Annotated[bool, typer.Option("--mergekit", help="Print it as a configuration for mergekit.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one candidate: its scores on every split and its coefficients.

    Example: mergesearch candidate smoke 17
    """
    from mergesearch.cli.summary import candidate_row
    from mergesearch.errors import SpecError
    from mergesearch.export.stored_recipe import stored_recipe
    from mergesearch.stored import read_stored

    if recipe and mergekit:
        raise SpecError("name one of --recipe and --mergekit")
    named = find(study, store)
    opened = named.place.open()
    found = read_stored(opened, named.name)
    if number not in found.results.candidates:
        count = len(found.results.candidates)
        raise SpecError(f"study {named.name!r} has no candidate {number}; it has {count}, numbered from 0")
    if mergekit:
        _print_mergekit(named, number, json)
        return
    if recipe:
        text = stored_recipe(found, number)
        if text is None:
            raise SpecError(f"candidate {number} has no recipe of a search: it is a baseline, or nothing is merged")
        typer.echo(text, nl=False)
        return
    if json:
        made = found.recipe(number)
        print_json(candidate_row(found.results, number) | {"recipe": None if made is None else made.to_dict()})
        return
    from rich.console import Console

    from mergesearch.report.terminal import render_candidate
    from mergesearch.report.view import read_view

    Console().print(render_candidate(read_view(opened, named.name), number))


def _print_mergekit(named: Named, number: int, json: bool) -> None:
    """Models are called as in the study file, so that the text tells no more of this machine than that does."""
    from mergesearch.controller.launch import resolve_stored
    from mergesearch.errors import SpecError
    from mergesearch.export.export import BASE, plan_mergekit, study_plan
    from mergesearch.stored import read_stored

    opened = named.place.open()
    resolved, found = resolve_stored(opened, named.name), read_stored(opened, named.name)
    models = resolved.spec.models
    made = plan_mergekit(study_plan(resolved, found.results, number), {**models.experts, BASE: models.base})
    if json:
        print_json({"mergekit": made.text, "why_not": made.why_not})
    elif made.text is None:
        raise SpecError(f"mergekit cannot express candidate {number}, since {made.why_not}")
    else:
        typer.echo(made.text, nl=False)
