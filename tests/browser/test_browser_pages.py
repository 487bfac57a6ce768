"""What every page owes its visitors, in light and dark, on a wide screen and on a telephone."""

import pytest
from browser.audit import audit, by_keyboard
from browser.chrome import all_shown, shift, shown, visiting
from browser.sites import PAGES, Site
from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

LARGEST_SHIFT = 0.1  # what is called good


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", ["desk", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_is_named_and_stays_still(browser: Browser, small: Site, name: str, width: str, dark: bool) -> None:
    """No overflow, no control without a name or too small to touch, no layout shift, no error of any kind."""
    with visiting(browser, small.url, width=width, dark=dark, state=small.signed_in(browser)) as page:
        page.goto(small.path(name))
        all_shown(page)
        assert audit(page) == []
        amount, moved = shift(page)
        assert amount < LARGEST_SHIFT, moved


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_walked_by_keyboard(browser: Browser, small: Site, name: str) -> None:
    """Tab reaches every link, button and field, and one sees where it is."""
    with visiting(browser, small.url, state=small.signed_in(browser)) as page:
        page.goto(small.path(name))
        shown(page)
        assert by_keyboard(page) == []


def test_the_other_theme_is_kept(browser: Browser, small: Site) -> None:
    """The button changes light to dark, on the next page too, whose text is then lighter than its ground."""
    with visiting(browser, small.url) as page:
        page.goto("/")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        page.get_by_role("button", name="Change between light and dark").click()
        dark = page.evaluate(ground)
        assert light != dark
        page.goto(f"/studies/{small.study}")
        assert page.evaluate(ground) == dark


def test_an_unknown_page_says_what_to_do(browser: Browser, small: Site) -> None:
    """Not a stack trace, and a sentence with the name that was asked for."""
    with visiting(browser, small.url, expected=[404]) as page:
        page.goto("/studies/nowhere")
        text = page.text_content("body") or ""
        assert "nowhere" in text
        assert "Traceback" not in text
        assert audit(page) == []
