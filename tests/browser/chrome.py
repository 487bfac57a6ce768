"""Debian's Chromium, driven by Playwright, and pages that note whatever goes wrong on them."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, sync_playwright

WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
STREAM = "/events"  # a stream of events ends when its page does: no failure
WAIT_MS = 30_000  # for one step of a page, on a busy machine

# What the console says that no page can help: answers that are errors (see `Faults.answered`), and that pictures of a
# canvas are slow without a graphics card.
ABOUT_NOTHING = ("Failed to load resource", "Canvas2D: Multiple readback", "[.WebGL-", "GPU stall")

# Runs before any script of the page. Shifts that follow what a visitor just did do not count (hadRecentInput).
WATCH = """
window.watched = {shifts: 0, moved: [], refused: []};
new PerformanceObserver(list => list.getEntries().forEach(entry => {
  if (entry.hadRecentInput) return;
  window.watched.shifts += entry.value;
  for (const source of entry.sources || []) {
    const e = source.node;
    window.watched.moved.push((e && e.nodeName || "?") + "." + (e && e.className || "") + " " + entry.value.toFixed(3));
  }
})).observe({type: "layout-shift", buffered: true});
addEventListener("securitypolicyviolation",
  e => window.watched.refused.push(e.violatedDirective + " " + e.blockedURI + " " + (e.sample || "")));
"""


def executable() -> str:
    """Where Chromium is. Raises RuntimeError with what to do where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise RuntimeError("there is no Chromium for the browser tests; `make chromium` installs Debian's package")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser, without a window. Its sandbox is off: tests may run as root, and it sees only our own pages."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Faults:
    """What went wrong on a page: sentences. Answers of the statuses in `expected` are not wrong."""

    expected: frozenset[int] = frozenset()
    found: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        """Errors and warnings of scripts; the browser also says there which answers were errors, see `answered`."""
        if message.type in ("error", "warning") and not message.text.startswith(ABOUT_NOTHING):
            self.found.append(f"console {message.type}: {message.text} ({message.location.get('url')})")

    def crashed(self, error: Any) -> None:
        """A script that threw."""
        self.found.append(f"a script threw: {error}")

    def failed(self, request: Request) -> None:
        """A request without an answer, unless the page's own end ended it."""
        why = request.failure or ""
        if "ERR_ABORTED" not in why:
            self.found.append(f"no answer: {request.method} {request.url}: {why}")

    def answered(self, response: Response) -> None:
        """An answer that is an error."""
        if response.status >= 400 and response.status not in self.expected:
            self.found.append(f"{response.status}: {response.request.method} {response.url}")

    def abroad(self, request: Request, home: str) -> None:
        """A request to another place than the server: everything must work without internet."""
        if not re.match(rf"({re.escape(home)}/|data:|blob:)", request.url):
            self.found.append(f"asked elsewhere: {request.url}")


@contextmanager
def visiting(
    browser: Browser,
    home: str,
    *,
    width: str = "desk",
    dark: bool = False,
    expected: Sequence[int] = (),
    state: Any = None,
) -> Iterator[Page]:
    """A page of a visitor of his own at the server `home`. At its end AssertionError tells all that went wrong on it:
    errors of scripts, refusals of the content-security policy, requests that failed or left the server."""
    size = WIDTHS[width]
    context: BrowserContext = browser.new_context(
        base_url=home,
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        has_touch=width == "phone",
        is_mobile=width == "phone",
        storage_state=state,
        accept_downloads=True,
    )
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(WATCH)
    faults = Faults(frozenset(expected))
    page = context.new_page()
    page.on("console", faults.console)
    page.on("pageerror", faults.crashed)
    page.on("requestfailed", faults.failed)
    page.on("response", faults.answered)
    page.on("request", lambda request: faults.abroad(request, home))
    try:
        yield page
        found = faults.found + page.evaluate("window.watched ? window.watched.refused : []")
        if found:
            raise AssertionError(f"on {page.url}: " + "; ".join(found))
    finally:
        context.close()


def shown(page: Page) -> None:
    """Wait until every chart in view is drawn or says why it is not, and the page has come to rest."""
    page.wait_for_load_state("load")
    page.wait_for_function(
        """() => [...document.querySelectorAll('.chart')].every(e => {
             const box = e.getBoundingClientRect();
             return !e.offsetParent || box.top > innerHeight || box.bottom < 0 || e.childElementCount > 0; })"""
    )
    page.evaluate("document.fonts.ready")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")


def all_shown(page: Page) -> None:
    """Go down the whole page, so that what waits to be looked at is drawn, and back up."""
    shown(page)
    height = page.evaluate("document.documentElement.scrollHeight")
    step = page.viewport_size["height"] if page.viewport_size else 800
    for top in range(0, height, step):
        page.evaluate(f"scrollTo(0, {top})")
        shown(page)
    page.evaluate("scrollTo(0, 0)")
    shown(page)


def shift(page: Page) -> tuple[float, list[str]]:
    """The sum of all layout shifts so far that no input made, and what moved."""
    watched = page.evaluate("({shifts: window.watched.shifts, moved: window.watched.moved})")
    return float(watched["shifts"]), list(watched["moved"])
