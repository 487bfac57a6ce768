"""Pictures are drawn for every kind of study, with labels that can be read, and say what they cannot draw."""

import threading

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.text import Text
from report.synthetic import empty, finished, unfinished

from mergesearch import pareto
from mergesearch.errors import SpecError
from mergesearch.report.curves import best_so_far, convergence_figure, hypervolumes, plot_convergence
from mergesearch.report.figure import canvas, themed_svg
from mergesearch.report.heat import heatmap_figure, plot_heatmap
from mergesearch.report.labels import Label, place
from mergesearch.report.plot import front_figure, plot_front
from mergesearch.types import Split

PNG = b"\x89PNG\r\n"


def boxes_of(figure):
    """Pixel boxes of the labels beside marks."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    return [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts]  # without its line


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_a_front_is_drawn_as_png_and_svg(objectives, tmp_path):
    """Two objectives have one panel, more have one for each pair; the ending decides the format."""
    view = finished(objectives, 15, fail_every=7)
    assert plot_front(view.results, tmp_path / "new" / "front.png", chosen=view.chosen).read_bytes().startswith(PNG)
    assert "<svg" in plot_front(view.results, tmp_path / "front.svg", errors=True).read_text()
    figure = front_figure(view.results)
    assert sum(axes.get_visible() for axes in figure.axes) == objectives * (objectives - 1) // 2


def test_labels_cover_neither_each_other_nor_the_edge():
    """Every merge with a name is labelled once, inside the axes, apart from the others."""
    view = finished(2, 60)
    figure = front_figure(view.results, chosen=view.chosen)
    boxes = boxes_of(figure)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert texts >= {"base", "uniform average", "expert mnist", "expert fashion", f"searched #{view.chosen}"}
    frame = figure.axes[0].get_window_extent()
    for at, box in enumerate(boxes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert not any(box.overlaps(other) for other in boxes[at + 1 :])


def test_many_labels_on_one_spot_are_pulled_apart():
    """Eight marks on top of each other still get eight labels that can be read."""
    figure = canvas(5.0, 4.0)
    axes = figure.subplots()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    place(axes, [Label(0.5, 0.5, f"merge number {i}") for i in range(8)], np.full((8, 2), 0.5), 10.0)
    boxes = boxes_of(figure)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_one_pair_of_several_objectives_can_be_chosen():
    """x and y choose the axes, in either order, and one alone gets a partner."""
    results = finished(4, 20).results
    axes = front_figure(results, x="letters", y="mnist").axes[0]
    assert axes.get_xlabel().startswith("letters")
    assert axes.get_ylabel().startswith("mnist")
    assert front_figure(results, y="mnist").axes[0].get_xlabel().startswith("fashion")
    assert front_figure(results, x="mnist").axes[0].get_ylabel().startswith("fashion")


def test_the_held_out_front_is_filtered_again():
    """On another split only what was scored there is drawn, its dominance taken anew."""
    results = finished(2).results
    count = sum(results.outcome(n, Split.CONFIRM) is not None for n in results.scored)
    labels = [text.get_text() for text in front_figure(results, split=Split.CONFIRM).legends[0].get_texts()]
    assert sum(int(label.split("(")[1].rstrip(")").split(",")[0]) for label in labels) == count


@pytest.mark.parametrize("view", [empty(2), empty(3), unfinished(2), unfinished(3), unfinished(2, baselines=True)])
def test_unfinished_studies_are_drawn(view, tmp_path):
    """No candidate, no baseline, no choice: still a picture."""
    assert plot_front(view.results, tmp_path / "front.png").stat().st_size > 0
    assert plot_convergence(view.results, tmp_path / "convergence.svg").stat().st_size > 0


def test_what_cannot_be_drawn_is_said(tmp_path):
    """One objective, unknown objectives, a pair of one, an unknown ending: one sentence each."""
    with pytest.raises(SpecError, match="two objectives"):
        front_figure(unfinished(1).results)
    with pytest.raises(SpecError, match="did you mean 'mnist'"):
        front_figure(unfinished(2).results, x="mnits")
    with pytest.raises(SpecError, match="both"):
        front_figure(unfinished(2).results, x="mnist", y="mnist")
    with pytest.raises(SpecError, match=r"\.png, \.svg or \.pdf"):
        plot_front(unfinished(2).results, tmp_path / "front.gif")
    with pytest.raises(SpecError, match="2 groups and 2 experts"):
        heatmap_figure(np.zeros((3, 2)), ["a", "b"], ["x", "y"])


@pytest.mark.parametrize("bounded", [True, False])
def test_convergence_never_gets_worse(bounded):
    """Best so far and hypervolume are monotone and end where the results stand."""
    results = finished(2, 40, bounded=bounded).results
    best, volumes = best_so_far(results), hypervolumes(results)
    sign = 1 if bounded else -1
    assert np.all(sign * np.diff(best) >= 0)
    assert np.all(np.diff(volumes) >= 0)
    assert best[-1] == pytest.approx(-sign * results.weighted(results.best))
    assert volumes[-1] == pytest.approx(results.hypervolume())
    assert len(convergence_figure(results).axes) == 2


def test_hypervolume_is_left_out_where_it_is_not_defined():
    """Without baselines and for one objective there is one panel."""
    assert hypervolumes(unfinished(2).results) is None
    assert hypervolumes(unfinished(1, baselines=True).results) is None
    assert len(convergence_figure(unfinished(1).results).axes) == 1
    assert pareto.EXACT_UP_TO == 6


def test_a_heat_map_shows_every_coefficient(tmp_path):
    """One number in each cell while they fit; large models lose the numbers, not the picture."""
    view = finished(3, 10)
    table = view.settings(view.chosen)["coefficient"]
    figure = heatmap_figure(table, view.space.groups, view.space.experts, view.start()["coefficient"])
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == [f"{value:.2f}" for value in table.flat]
    large = np.random.default_rng(0).random((80, 8))
    groups, experts = [f"layer {i}" for i in range(80)], [f"expert {i}" for i in range(8)]
    assert plot_heatmap(large, groups, experts, tmp_path / "heat.png", 0.3).stat().st_size > 0
    assert plot_heatmap(np.full((1, 1), 0.3), ["all"], ["x"], tmp_path / "flat.png", 0.3).stat().st_size > 0


def test_a_picture_is_the_same_every_time_and_takes_a_page_s_colours():
    """SVG text depends on the figure and the name alone; its inks are CSS variables."""
    results = finished(2, 20).results
    first, second = (themed_svg(front_figure(results), "front", "the front") for _ in range(2))
    assert first == second
    assert first.startswith("<svg")
    assert "var(--ink)" in first
    assert "#24292f" not in first
    assert 'aria-label="the front"' in first


def test_drawing_leaves_no_global_state():
    """Settings are as before, pyplot keeps no figure, and threads can draw."""
    before = dict(matplotlib.rcParams)
    results = finished(2, 20).results
    threads = [threading.Thread(target=front_figure, args=(results,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
