"""Pictures of every page of `mergesearch serve`, light and dark, on a wide screen and on a telephone, to be looked at.

    python benchmarks/screenshots.py FOLDER [--store URL --study NAME [--other NAME] [--candidate N]] [--pages a,b]
        [--widths desk,phone] [--readme docs/study.png]

Without --store the smoke study is launched first (half a minute) and looked at beside a made one. It also prints what
an audit finds: what does not fit, has no name, is too small to touch, moves, or fails.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser

# In the place of this folder, whose web.py would be found for the tests' folder of that name.
sys.path.remove(str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser.audit import audit
from browser.chrome import WIDTHS, all_shown, chromium, shift, visiting
from browser.sites import PAGES, Site, launched, made, site
from web.serving import serving


@contextmanager
def looked_at(arguments: argparse.Namespace) -> Iterator[Site]:
    """The server whose pages are pictured."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.store is None:
            study = launched(folder)
            with site(folder, study, made(folder, 400, 3), 30) as own:
                yield own
            return
        other = arguments.other or arguments.study
        with serving(arguments.store, folder=folder) as server:
            yield Site(server.url, server.token, folder, arguments.study, other, arguments.candidate)


def picture(browser: Browser, at: Site, name: str, width: str, dark: bool, path: Path) -> list[str]:
    """Save the whole page as a picture; what is wrong with it."""
    found: list[str] = []
    state = at.signed_in(browser) if name != "login" else None
    try:
        with visiting(browser, at.url, width=width, dark=dark, state=state) as page:
            page.goto(at.path(name))
            all_shown(page)
            page.screenshot(path=path, full_page=True, caret="initial")
            found = audit(page)
            amount, moved = shift(page)
            found += [f"layout shift {amount:.3f}: {moved}"] if amount >= 0.1 else []
    except AssertionError as error:
        found.append(str(error))
    return found


def for_readme(browser: Browser, at: Site, path: Path) -> None:
    """The top of the study's page, in 256 colours, so that it is small."""
    from PIL import Image

    with visiting(browser, at.url) as page:
        page.goto(at.path("study"))
        all_shown(page)
        page.screenshot(path=path, caret="initial")
    image = Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store")
    parser.add_argument("--study", default="demo")
    parser.add_argument("--other")
    parser.add_argument("--candidate", type=int, default=30)
    parser.add_argument("--pages", default=",".join(PAGES))
    parser.add_argument("--widths", default=",".join(WIDTHS))
    parser.add_argument("--readme", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with looked_at(arguments) as at, chromium() as browser:
        for name in arguments.pages.split(","):
            for width in arguments.widths.split(","):
                for theme in ("light", "dark"):
                    path = arguments.folder / f"{name}-{width}-{theme}.png"
                    for fault in picture(browser, at, name, width, theme == "dark", path):
                        print(f"{path.stem}: {fault}", flush=True)
        if arguments.readme:
            for_readme(browser, at, arguments.readme)


if __name__ == "__main__":
    main()
