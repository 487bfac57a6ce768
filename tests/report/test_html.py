"""The report is one whole, safe, self-contained HTML file for any study."""

import re
from html.parser import HTMLParser

import pytest
from report.synthetic import Study, empty, finished, unfinished

from mergesearch.report.html import FRONT_SHOWN, front_grid, report_html, write_report
from mergesearch.types import Failed

VOID = {"meta", "br", "path", "use", "image", "hr", "img", "input", "link"}


class Outline(HTMLParser):
    """Tags that open and close, ids, and addresses that a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.fetched, self.tags = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Note a tag; void elements and SVG's self-closing ones do not stay open."""
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]

    def handle_startendtag(self, tag, attributes):
        """Opens and closes at once."""
        self.tags.add(tag)

    def handle_endtag(self, tag):
        """Must close what was opened last."""
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize(
    "view",
    [finished(1, 12), finished(2, 12), finished(4, 12, fail_every=5), finished(2, 12, bounded=False, keep=False)],
    ids=["one", "two", "failures", "losses"],
)
def test_a_finished_study_has_every_part(view, tmp_path):
    """Comparison, verdicts, pictures, budget, diagnostics, failures, export; well-formed, nothing fetched."""
    text = write_report(view, tmp_path / "new" / "report.html", static=True).read_text(encoding="utf-8")
    outline = Outline(text)
    assert outline.open == []
    assert outline.fetched == []
    assert "script" not in outline.tags
    for part in (
        "Comparison",
        "test: read once",
        "Convergence",
        "coefficient of #",
        "Budget",
        "Failures",
        "--candidate",
    ):
        assert part in text
    assert ("Merges on the front" in text) == (len(view.results.objectives) > 1)
    assert "r2.mnist" in text
    assert "prefers-color-scheme" in text


@pytest.mark.parametrize("view", [empty(1), unfinished(1), unfinished(3), unfinished(2, baselines=True)])
def test_an_unfinished_study_has_a_report(view):
    """Whatever is missing is left out; nothing is None on the page."""
    text = report_html(view, static=True)
    assert Outline(text).open == []
    assert "None" not in re.sub(r"<p>None\.</p>", "", text)
    assert "of 40 evaluations" in text or "of 60 evaluations" in text


def test_messages_are_escaped():
    """What a scorer's error says cannot become markup."""
    study = Study(2)
    study.search(3)
    failed = Failed("ValueError", "<script>alert('x')</script> & <b>bold</b>")
    study.add(study.space.decode(study.space.start)["coefficient"], "sample", study.space.start, failed)
    text = report_html(study.view(), static=True)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "1 failed" in text


def test_names_are_escaped_in_the_pictures_too():
    """A study of the public search function may name objectives as it likes."""
    study = Study(2, names=("a<b>&c", "x > y"))
    study.search(5)
    text = report_html(study.view(), static=True)
    assert "a<b>" not in text
    assert "a&lt;b&gt;&amp;c" in text
    assert Outline(text).open == []


def test_a_long_front_is_cut():
    """At most fifty merges are listed, and the page says how many there are."""
    view = finished(4, 200)
    grid = front_grid(view)
    assert len(view.results.front) > FRONT_SHOWN
    assert len(grid.rows) == FRONT_SHOWN
    assert f"{len(view.results.front)} merges, the best {FRONT_SHOWN} by mean" in grid.title


def test_the_page_is_the_same_every_time():
    """Bootstrap and pictures are seeded: two reports of one study are equal, byte for byte."""
    view = finished(2, 10)
    assert report_html(view, static=True) == report_html(view, static=True)
