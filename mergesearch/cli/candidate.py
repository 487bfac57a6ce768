"""mergesearch candidate"""

from typing import Annotated

import typer

from mergesearch.cli.common import JsonOption, StoreOption, StudyArgument, find, print_json


def candidate(
    study: StudyArgument,
    number: Annotated[int, typer.Argument(help="The candidate's number.", show_default=False)],
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one candidate: its scores on every split and its coefficients.

    Example: mergesearch candidate smoke 17
    """
    from mergesearch.cli.summary import candidate_row
    from mergesearch.errors import SpecError
    from mergesearch.stored import read_stored

    named = find(study, store)
    opened = named.place.open()
    found = read_stored(opened, named.name)
    if number not in found.results.candidates:
        count = len(found.results.candidates)
        raise SpecError(f"study {named.name!r} has no candidate {number}; it has {count}, numbered from 0")
    if json:
        recipe = found.recipe(number)
        print_json(candidate_row(found.results, number) | {"recipe": None if recipe is None else recipe.to_dict()})
        return
    from rich.console import Console

    from mergesearch.report.terminal import render_candidate
    from mergesearch.report.view import read_view

    Console().print(render_candidate(read_view(opened, named.name), number))
