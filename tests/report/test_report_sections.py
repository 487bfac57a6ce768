"""What a reviewer looks for stands in the report, is right, and opens without network or script."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from report.synthetic import Study, finished

from mergesearch.recipe import Recipe
from mergesearch.report.background import Background, background, export_grid
from mergesearch.report.html import report_html
from mergesearch.report.interactive import script_json
from mergesearch.report.pool import Geometry, pool_grids, stored_pool
from mergesearch.report.soundness import failure_grid, figures, flip_grid, rung_grid
from mergesearch.report.splits import indicator_grid, picks_grid, split_grid
from mergesearch.report.table import Control
from mergesearch.store.base import Artifact
from mergesearch.stored import read_stored
from mergesearch.types import Candidate, Request, Split

SPEC = "name: made\nmodels: {base: models/base, experts: {a: models/a, b: models/b}}\n"


def texts(grid):
    """A table's cells as texts."""
    return [[cell.text for cell in row] for row in grid.rows]


def test_charts_are_inside_and_nothing_is_fetched():
    """Plotly stands in the file once, charts as JSON; each picture is still there for a page without script."""
    view = finished(3, 20)
    text = report_html(view)
    (body,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL)
    charts = json.loads(body)
    assert {"front", "convergence", "hypervolume"} <= set(charts)
    assert len(charts["front"]) == 3  # a pair each
    assert all(chart["data"] for figure in charts.values() for chart in figure.values())
    assert text.count("plotly.js v") == 1
    assert "default-src 'none'" in text
    assert text.count("<svg") >= 3
    assert len(report_html(view, static=True)) < 1_500_000


def test_names_cannot_leave_the_script():
    """An objective called '</script>' is text."""
    study = Study(2, names=("</script><b>", "x"))
    study.baselines()
    study.search(5)
    text = report_html(study.view())
    assert "</script><b>" not in text
    assert script_json({}) == "{}"


def test_finalists_stand_on_every_split():
    """Search, confirm and test side by side."""
    view = finished(2, 20)
    found = texts(split_grid(view))
    assert {row[1] for row in found} == {"search", "confirm", "test"}
    assert len([row for row in found if row[1] == "confirm"]) == 4


def test_indicators_know_the_controls():
    """A front against the union of all: the better one has the smaller distance and the greater share."""
    view = finished(2, 40)
    worse = finished(2, 3)
    found = texts(indicator_grid(replace(view, controls=(Control("random", worse.results, None),))))
    rows = {(row[0], row[1]): row for row in found}
    mine, other = rows["this study", "search"], rows["control: random", "search"]
    assert float(mine[4]) >= float(other[4])
    assert float(mine[5]) <= float(other[5])


def test_picks_follow_the_preference():
    """Who wants one objective alone gets the best of it."""
    view = finished(3, 40)
    rows = {row[0]: row for row in texts(picks_grid(view))}
    for at, objective in enumerate(view.results.objectives):
        number = int(rows[f"only {objective.name}"][1].removeprefix("#"))
        losses = [view.results.losses(n)[at] for n in view.results.front]
        assert view.results.losses(number)[at] == min(losses)


def test_flips_add_up():
    """Gained minus lost is the difference of the scores."""
    view = finished(2, 20)
    comparison = view.comparison()
    rows = {row[0]: row for row in texts(flip_grid(view, comparison))}
    label = next(r.label for r in comparison.rows if r.kind == "uniform")
    gained, lost = (float(cell.rstrip(" %")) for cell in rows[label][2:4])
    scores = {r.kind: np.mean([s.value for s in r.cells[Split.TEST].scores]) for r in comparison.rows}
    assert gained - lost == pytest.approx(100 * (scores["searched"] - scores["uniform"]), abs=0.11)


def test_rungs_are_compared_where_a_merge_went_on():
    """τ between a share of the examples and all of them; a study without shares has no table."""
    study = Study(2)
    generator = np.random.default_rng(0)
    for i in range(12):
        point = generator.uniform(size=study.space.dim)
        table = study.space.decode(point)["coefficient"]
        study.evaluate(Candidate(2 * i, point, "sample", Request(share=0.5), 0.5), table)
        rest = Request(share=0.5, offset=0.5, continues=2 * i)
        study.evaluate(Candidate(2 * i + 1, point, "sample", rest, 0.5), table)
    (row,) = texts(rung_grid(study.view().results))
    assert row == ["50 %", "12", "1.00", "trusted"]  # the same scores on both
    assert rung_grid(finished(2, 5).results) is None


def test_failures_are_counted_by_kind():
    """With their number."""
    assert texts(failure_grid(finished(2, 20, fail_every=5).results)) == [["not_finite", "4"]]
    assert failure_grid(finished(2, 5).results) is None


def test_the_pool_says_what_is_not_known():
    """Paths and digests from the store; norms and angles only where the models were read."""
    body = {"models": {"base": "models/base", "experts": {"a": "models/a", "b": "models/b"}}}
    pool = stored_pool(body, {"models": {"base": "ab" * 32}, "preflight": ["they agree"]}, "made")
    (models,) = pool_grids(pool)
    assert texts(models)[0] == ["base", "models/base", "ab" * 8, "–", "–"]
    assert any("--models" in sentence for sentence in pool.missing)
    assert list(pool.findings) == ["at launch: they agree"]
    gram = np.array([[[4.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 3.0]]])
    geometry = Geometry(("a", "b"), gram, np.array([50.0, 50.0]), 7.0)
    models, cosines = pool_grids(replace(pool, geometry=geometry))
    assert [row[3:] for row in texts(models)] == [["10", "–"], ["2", "0.2"], ["2", "0.2"]]
    assert texts(cosines) == [["a", "1.000", "0.000"], ["b", "0.000", "1.000"]]
    recipe = Recipe("task_arithmetic", ("a", "b"), ("x", "y"), {"coefficient": np.array([[1.0, 0.0], [0.0, 1.0]])}, {})
    assert geometry.displacement(recipe) == pytest.approx(np.sqrt(4.0 + 3.0) / 10)
    assert geometry.displacement(replace(recipe, operator="ties")) is None
    assert dict(figures(finished(2, 4), pool, None))["distance from the base, ‖θ − θ0‖"].startswith("not known")


def test_exports_and_the_recipe_are_in_the_report():
    """Where they stand, with their digest; the recipe as YAML."""
    study = Study(2)
    study.search(4)
    study.store.add_artifact(study.name, Artifact(1, "export", "out/<merged>", "cd" * 32, 5.0))
    view = study.view()
    found = background(study.store, read_stored(study.store, study.name), view.searched)
    assert texts(export_grid(found.artifacts)) == [["#1", "export", "out/<merged>", "cd" * 8, "not on this machine"]]
    text = report_html(view, replace(found, recipe_text="operator: ties"), static=True)
    assert "out/&lt;merged&gt;" in text
    assert "operator: ties" in text
    assert Background().displacement is None
