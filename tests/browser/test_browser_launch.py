"""A visitor signs in, launches a study from the page, and then changes its mind in every way there is."""

from pathlib import Path

import pytest
from browser.chrome import shown, visiting
from browser.sites import Site, site, smoke
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(280)]

JOB_MS = 120_000  # a process that imports torch, on a busy machine


def badge(page: Page, word: str) -> None:
    """Wait, without loading the page again by hand, until the study has that status."""
    expect(page.locator("#badge")).to_contain_text(word, timeout=JOB_MS)


def test_from_the_token_to_a_study_that_was_paused_resumed_and_cancelled(browser: Browser, tmp_path: Path) -> None:
    """Sign in; a wrong file is refused at its line; the mended one runs, live; pause, raise the budget, cancel, sign
    out, and then nothing can be changed."""
    text = smoke(tmp_path, name="mine", evaluations=400)
    with site(tmp_path, "mine", "mine", 5) as at, visiting(browser, at.url, expected=[401, 422]) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        sign_in(page, at)
        launch(page, text)
        page.locator("#study").click(timeout=JOB_MS)
        badge(page, "running")
        told = page.locator("[data-figure=evaluations]")
        page.locator("select[name=x]").select_option("b", timeout=JOB_MS)
        before = told.text_content() or ""
        expect(told).not_to_have_text(before, timeout=JOB_MS)  # by itself: the stream of events
        page.get_by_role("button", name="Pause").click()
        badge(page, "paused")
        expect(page.locator("select[name=x]")).to_have_value("b")  # what was chosen outlives the page's own reload
        page.locator("#resume-form input[name=evaluations]").fill("500")
        page.locator("#resume-form button").click(timeout=JOB_MS)  # waits until the process has ended
        page.wait_for_url("**/jobs/*")
        page.goto("/studies/mine")
        badge(page, "running")
        page.get_by_role("button", name="Cancel").click()
        badge(page, "stopped")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()
        page.goto("/studies/mine")
        page.locator("#resume-form button").click()
        page.wait_for_url("**/login?next=**")


def sign_in(page: Page, at: Site) -> None:
    """A wrong token is told to be one; the right one leads on."""
    page.goto("/login?next=/launch")
    page.get_by_label("Token").fill("x" * 40)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#wrong")).to_contain_text("not this server's token")
    page.get_by_label("Token").fill(at.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/launch")


def launch(page: Page, text: str) -> None:
    """A wrong file first, whose finding names its line; then the right one."""
    area = page.locator("#text")
    area.fill(text.replace("cma_es", "cma_ess"))
    page.locator("#check").click()
    expect(page.locator("#findings")).to_contain_text("did you mean", timeout=JOB_MS)
    expect(page.locator("#findings")).to_contain_text("line ")
    area.fill(text)
    page.locator("#check").click()
    expect(page.locator("#verdict")).to_contain_text("can be launched", timeout=JOB_MS)
    page.locator("#launch").click()
    page.wait_for_url("**/jobs/*")
    shown(page)


def test_the_link_with_the_token_signs_in(browser: Browser, tmp_path: Path) -> None:
    """What the first start says, opened: signed in, and the token stands in no address any more."""
    with site(tmp_path, "none", "none", 1) as at, visiting(browser, at.url) as page:
        page.goto(f"/login#{at.token}")
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        assert at.token not in page.url
        expect(page.get_by_text("No study yet")).to_be_visible()
