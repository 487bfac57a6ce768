"""What the terminal shows fits 80 columns and holds for every state of a study."""

import io
import json

import numpy as np
import pytest
from report.synthetic import Study, empty, finished, text_of, unfinished
from rich.console import Console

from mergesearch.report.scatter import HEIGHT, scatter
from mergesearch.report.terminal import render_candidate, render_front, render_show, render_studies
from mergesearch.report.view import knee, numbers, timing
from mergesearch.types import Failed, Split

VIEWS = {
    "one": finished(1),
    "two": finished(2),
    "three": finished(3, fail_every=7),
    "four": finished(4, fail_every=7),
    "losses": finished(2, bounded=False),
    "searching": unfinished(3),
    "baselines": unfinished(2, baselines=True),
    "empty": empty(2),
}


def widest(text):
    """Columns of the longest line."""
    return max(len(line.rstrip()) for line in text.splitlines())


@pytest.mark.parametrize("name", VIEWS)
def test_everything_fits_eighty_columns(name):
    """Status, front and every candidate of every kind of study."""
    view = VIEWS[name]
    shown = [render_show(view), render_front(view)]
    shown += [render_candidate(view, number) for number in view.results.candidates]
    assert max(widest(text_of(renderable)) for renderable in shown) <= 80


def test_show_says_where_a_study_stands():
    """Name, status, evaluations of budget, best, front, hypervolume, failures with the last message, figures."""
    view = VIEWS["four"]
    text = text_of(render_show(view))
    for part in ("vision-4", "done", "60 of 60", f"#{view.results.best}", "hypervolume", "8, the last: not_finite"):
        assert part in text
    assert "score 1.0 s" in text
    assert "r2.letters" in text


def test_the_summary_is_what_programs_read():
    """At least status, evaluations, budget, best and front_size, as JSON."""
    body = json.loads(json.dumps(VIEWS["two"].summary()))
    assert (body["status"], body["evaluations"], body["budget"]) == ("done", 60, 60)
    assert body["front_size"] == len(VIEWS["two"].results.front)
    assert json.loads(json.dumps(VIEWS["empty"].summary()))["best"] is None


def test_the_front_is_sorted_and_marks_its_knee():
    """Best mean first; best, knee and chosen are named; a long front says how much is left."""
    view = VIEWS["four"]
    lines = text_of(render_front(view, 5)).splitlines()
    rows = [line for line in lines if line.startswith("#")]
    means = [float(row.split("±")[-2].split()[-1]) for row in rows]
    assert len(rows) == 5
    assert means == sorted(means, reverse=True)
    assert "best" in rows[0]
    assert "the first 5 shown" in " ".join(" ".join(lines).split())
    full = text_of(render_front(view, 1000))
    row = next(line for line in full.splitlines() if line.startswith(f"#{knee(view.results)} "))
    assert "knee" in row


@pytest.mark.parametrize("name", ["two", "losses", "searching", "baselines"])
def test_the_scatter_has_the_best_of_each_objective_at_its_edge(name):
    """Better is right and up for scores and for losses."""
    text = scatter(VIEWS[name].results, VIEWS[name].searched).plain
    lines = text.splitlines()[1 : 1 + HEIGHT]
    assert set(lines[0][10:]) & set("●★·BUλ")
    assert any(line.rstrip()[-1] in "●★·BUλ" and len(line.rstrip()) == 68 for line in lines)


def test_a_candidate_shows_scores_by_split_and_settings():
    """Splits in order, coefficients by group and expert; a failed one its message."""
    view = VIEWS["four"]
    text = text_of(render_candidate(view, view.chosen))
    assert text.index("search") < text.index("confirm") < text.index("test")
    assert f"{view.settings(view.chosen)['coefficient'][3, 1]:.3f}" in text
    failed = next(n for (n, _), o in view.results.outcomes.items() if isinstance(o, Failed))
    assert "not_finite: objective 'mnist'" in text_of(render_candidate(view, failed))
    base = text_of(render_candidate(view, 0, {"coefficient": np.zeros((8, 4))}))
    assert base.startswith("base")
    assert "0 everywhere" in base


def test_a_candidate_under_way_is_not_yet_scored():
    """Asked and not told."""
    study = Study(2)
    study.search(2)
    candidate, _ = study.add(np.full((8, 2), 0.3), point=study.space.start)
    study.store.ask(study.lease, candidate, Split.TEST, 1.0)
    view = study.view()
    assert "not yet" in text_of(render_candidate(view, candidate.number))
    assert "1 under way" in text_of(render_show(view))


def test_names_are_not_read_as_markup():
    """Square brackets in messages and names are shown as they are."""
    study = Study(2, name="my-study")
    study.add(np.full((8, 2), 0.3), point=study.space.start, failed=Failed("ValueError", "[red]no[/red] [/x]"))
    assert "[red]no[/red] [/x]" in text_of(render_show(study.view()))


def test_studies_are_listed():
    """One line each; an empty store says what to do."""
    records = [view.record for view in VIEWS.values()]
    text = text_of(render_studies(records, 100.0, {records[0].name: 60}))
    assert len(text.splitlines()) == len(records) + 1
    assert widest(text) <= 80
    assert "launch" in text_of(render_studies([], 0.0))


def test_colours_say_which_way_a_coefficient_went():
    """Above the start in blue, below in red."""
    file = io.StringIO()
    view = VIEWS["two"]
    Console(width=80, force_terminal=True, color_system="standard", file=file).print(
        render_candidate(view, view.chosen)
    )
    assert "\x1b[1;34m" in file.getvalue() or "\x1b[34m" in file.getvalue()


def test_times_are_medians_and_diagnostics_are_numbers():
    """Medians over the search's scored candidates; what is no number is left out."""
    assert timing(VIEWS["two"].results).score == 1.0
    assert timing(VIEWS["empty"].results) is None
    assert numbers({"a": 1, "b": 0.5, "c": "text", "d": None}) == {"a": 1.0, "b": 0.5}
    assert numbers(None) == {}
