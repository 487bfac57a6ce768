"""A visitor walks through the pages of a real study: finds its front, picks by preference, takes the recipe away."""

import re
from pathlib import Path

import pytest
import yaml
from browser.chrome import all_shown, shown, visiting
from browser.sites import Site
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

JOB_MS = 90_000  # a process that imports torch, on a busy machine

DOT = """() => {
  const chart = document.getElementById('front');
  const curve = chart.data.findIndex(trace => (trace.name || '').startsWith('front'));
  const trace = chart.data[curve], axis = chart._fullLayout, box = chart.getBoundingClientRect();
  return {x: box.left + axis.xaxis._offset + axis.xaxis.l2p(trace.x[0]),
          y: box.top + axis.yaxis._offset + axis.yaxis.l2p(trace.y[0]), number: trace.customdata[0]};
}"""


def charted(page: Page, chart: str, words: str) -> None:
    """Wait until a chart was fetched from an address with these words and drawn."""
    expect(page.locator(f"#{chart}")).to_have_attribute("data-chart", re.compile(words))
    shown(page)


def test_from_the_list_to_the_recipe(browser: Browser, real: Site, tmp_path: Path) -> None:
    """Without reading any documentation: open the study, move a slider, take the recipe; it names the experts."""
    with visiting(browser, real.url) as page:
        page.goto("/")
        page.get_by_role("searchbox").fill("smo")
        expect(page.locator("#studies tbody tr:visible")).to_have_count(1)
        page.get_by_role("link", name=real.study, exact=True).first.click()
        all_shown(page)
        expect(page.get_by_text("What matters to you?")).to_be_visible()
        before = page.locator("#picked").text_content()
        page.get_by_label("Weight of a").fill("100")
        page.get_by_label("Weight of b").fill("0")
        expect(page.locator("#picked")).not_to_have_text(before or "")
        with page.expect_download() as caught:
            page.locator("#picked-recipe").click()
        caught.value.save_as(tmp_path / "recipe.yaml")
        recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
        assert {"a", "b"} <= set(str(recipe).replace("'", " ").split())
        page.get_by_role("button", name="All alike").click()
        page.locator("#picked-open").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Candidate")


def test_every_control_of_the_study_page(browser: Browser, real: Site) -> None:
    """Axes, split, error bars, cost, colours, the table's filter, order and pages; each redraws without an error."""
    with visiting(browser, real.url) as page:
        page.goto(real.path("study"))
        all_shown(page)
        page.locator("select[name=x]").select_option("b")
        charted(page, "front", "x=b")
        page.locator("select[name=split]").select_option("confirm")
        charted(page, "front", "split=confirm")
        page.locator("select[name=split]").select_option("search")
        page.locator("input[name=errors]").check()
        charted(page, "front", "errors")
        page.locator("#against").select_option("cost")
        charted(page, "convergence", "cost")
        page.locator("#colour").select_option("b")
        charted(page, "parallel", "b")
        page.get_by_role("link", name="all ", exact=False).first.click()
        expect(page.locator("#candidates tbody tr")).to_have_count(25)
        page.get_by_role("link", name="next →").click()
        expect(page.locator("#candidates .pager")).to_contain_text("26 to")
        page.locator("#candidates thead a").first.click()
        expect(page.locator("#candidates th[aria-sort]")).to_have_count(1)
        knee = page.locator("#at-knee")
        if knee.count():
            knee.click()


def test_a_click_on_a_point_opens_its_candidate(browser: Browser, real: Site) -> None:
    """The dot's own number."""
    with visiting(browser, real.url) as page:
        page.goto(real.path("study"))
        page.locator("#front").scroll_into_view_if_needed()
        page.wait_for_function("() => { const e = document.getElementById('front'); return e.data && e._fullLayout; }")
        shown(page)
        dot = page.evaluate(DOT)
        page.mouse.move(dot["x"], dot["y"])
        page.mouse.click(dot["x"], dot["y"])
        page.wait_for_url(f"**/candidates/{dot['number']}")


def test_the_way_back_brings_the_choices_back(browser: Browser, small: Site) -> None:
    """Axes in three dimensions and weights, after a look at a candidate; a new visit begins anew."""
    with visiting(browser, small.url) as page:
        page.goto(small.path("study"))
        charted(page, "front", "front$")
        names = page.locator("select[name=x] option").all_text_contents()
        page.locator("select[name=x]").select_option(names[1])
        page.locator("select[name=z]").select_option(names[2])
        weight = page.get_by_label(f"Weight of {names[0]}")
        weight.fill("90")
        page.locator("#picked-open").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Candidate")
        page.go_back()
        charted(page, "front", f"x={names[1]}.*z={names[2]}")
        expect(weight).to_have_value("90")
        expect(page.locator("#front canvas")).to_be_visible()
        page.goto(small.path("study"))
        charted(page, "front", "front$")
        expect(weight).to_have_value("50")


def test_no_button_of_a_chart_sends_it_elsewhere(browser: Browser, small: Site) -> None:
    """Plotly brings one that shares a chart on a server of its makers."""
    with visiting(browser, small.url) as page:
        page.goto(small.path("study"))
        page.locator("#front .modebar-btn").first.wait_for(state="attached")
        titles = page.locator(".modebar-btn").evaluate_all("found => found.map(e => e.dataset.title || e.ariaLabel)")
        assert not [title for title in titles if title and re.search("share|cloud|chart studio", title, re.I)], titles


def test_what_a_candidate_offers(browser: Browser, real: Site) -> None:
    """mergekit.yaml, or a sentence why mergekit cannot say this merge; an export by a process that ends well."""
    with visiting(browser, real.url, state=real.signed_in(browser), expected=[409, 422]) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(real.path("candidate"))
        all_shown(page)
        taken: list[str] = []
        page.on("download", lambda download: taken.append(download.suggested_filename))
        page.get_by_role("link", name="Download mergekit.yaml").click()
        while not taken and not page.locator(".toast, [role=alert]:visible").count():
            page.wait_for_timeout(50)
        page.get_by_role("button", name="Export on the server").click()
        page.wait_for_url("**/jobs/*")
        expect(page.locator("#state")).to_have_text("done", timeout=JOB_MS)
        assert list(real.folder.glob("**/recipe.yaml"))


def test_light_and_dark_are_told_apart_by_charts(browser: Browser, real: Site) -> None:
    """A chart's text follows the theme."""
    with visiting(browser, real.url) as page:
        page.goto(real.path("study"))
        shown(page)
        page.wait_for_function("() => document.getElementById('front').layout")
        ink = "document.getElementById('front').layout.font.color"
        before = page.evaluate(ink)
        page.get_by_role("button", name="Change between light and dark").click()
        assert page.evaluate(ink) != before
