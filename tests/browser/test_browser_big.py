"""100,000 evaluations of four objectives: every page of such a study works, and no chart drowns in points."""

import pytest
from browser.chrome import all_shown, shift, shown, visiting
from browser.sites import Site
from playwright.sync_api import Browser, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(240)]

MOST_POINTS = 5000
LARGEST_SHIFT = 0.1
POINTS = """[...document.querySelectorAll('.js-plotly-plot')].map(
  chart => chart.data.reduce((count, trace) => count + (trace.x || []).length, 0))"""
READ_MS = 120_000  # the first reading of the log, on a busy machine


def test_every_page_of_a_big_study(browser: Browser, big: Site) -> None:
    """The list, the study with its charts, the table's last page, three dimensions, a candidate: nothing moves,
    no error, and a chart holds few enough points."""
    with visiting(browser, big.url) as page:
        page.context.set_default_timeout(READ_MS)
        page.goto("/")
        expect(page.locator("#studies")).to_contain_text("100,000", timeout=READ_MS)
        page.goto(big.path("study"))
        all_shown(page)
        assert shift(page)[0] < LARGEST_SHIFT, shift(page)[1]
        counts = page.evaluate(POINTS)
        assert counts
        assert max(counts) <= MOST_POINTS, counts
        page.locator("select[name=z]").select_option("letters")
        shown(page)
        page.get_by_label("Weight of letters").fill("100")
        page.goto(f"{big.path('study')}?show=all&offset=99975#candidates")
        expect(page.locator("#candidates .pager")).to_contain_text("99,976", timeout=READ_MS)
        page.goto(big.path("candidate"))
        all_shown(page)
        expect(page.get_by_role("heading", level=1)).to_contain_text("50")
