"""The picture of coefficients: every shape is drawn, labels stay apart, and what has none is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from report.synthetic import KNOB, finished

from mergesearch.errors import SpecError
from mergesearch.report.coefficients import MOST_LABELS, coefficients_figure, plot_coefficients
from mergesearch.report.view import StudyView
from mergesearch.space import KnobRange, Per, Scale, build_space
from mergesearch.types import Candidate


def view_of(groups: int, experts: int, knobs: int) -> tuple[StudyView, int]:
    """A study with one candidate whose coefficients are drawn at random."""
    names = tuple(f"knob{i}" for i in range(knobs))
    space = build_space(
        [replace(KNOB, name=name) for name in names],
        [f"expert-{i}" for i in range(experts)],
        tuple(f"model.layers.{i // 7}.part{i % 7}" for i in range(groups)),
        {name: KnobRange(0.0, 1.5, 0.3, Per.EXPERT_GROUP, Scale.LINEAR) for name in names},
        {},
    )
    view = finished(2, 4)
    number = view.results.best
    point = np.random.default_rng(0).uniform(size=space.dim)
    view.results._candidates = {**view.results.candidates, number: Candidate(number, point)}
    return replace(view, space=space), number


@pytest.mark.parametrize(("groups", "experts", "knobs"), [(8, 3, 1), (8, 3, 2), (24, 12, 2), (300, 8, 2)])
def test_labels_stay_apart_and_inside(groups: int, experts: int, knobs: int) -> None:
    """However many groups there are, no label covers another or is cut off."""
    figure = coefficients_figure(*view_of(groups, experts, knobs), title="a title")
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    panels = [axes for axes in figure.axes if axes.get_title("left")]
    assert len(panels) == knobs
    for axes in panels:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            shown = [label for label in labels if label.get_text()]
            assert len(shown) <= MOST_LABELS
            boxes = [label.get_window_extent(renderer) for label in shown]
            assert all(page.x0 <= box.x0 and box.x1 <= page.x1 + 1 and page.y0 <= box.y0 for box in boxes)
            upright = [label.get_rotation() in (0, 90) for label in shown]
            if all(upright):  # of slanted ones only the boxes overlap
                assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_it_is_written_in_three_formats(tmp_path) -> None:
    """PNG, SVG and PDF by the ending; another ending is refused."""
    view, number = view_of(8, 3, 1)
    assert plot_coefficients(view, number, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in plot_coefficients(view, number, tmp_path / "a.svg").read_text()
    assert plot_coefficients(view, number, tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(SpecError, match=r"ends in \.png, \.svg or \.pdf"):
        plot_coefficients(view, number, tmp_path / "a.gif")


def test_a_baseline_has_none() -> None:
    """Its recipe is fixed: one sentence says so."""
    view = finished(2, 4)
    with pytest.raises(SpecError, match="it is a baseline"):
        coefficients_figure(view, 0)
