"""How soon pages of a big study stand in a real browser: 100,000 evaluations of four objectives.

    python benchmarks/web_pages.py [--json FILE] [--evaluations 100000] [--visits 5] [--store URL --study NAME]

first content   the browser's own entry first-contentful-paint, milliseconds after the page was asked for
interactive     when every chart in view was drawn and no task of 50 ms or more was under way any more
server          until the page's first byte came
shift           the sum of layout shifts

The server has read the study before (`first reading` says how long that took); each visit is of a new visitor with an
empty cache. The goals: first content under 1 s, the study's page interactive under 2 s.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

# In the place of this folder, whose web.py would be found for the tests' folder of that name.
sys.path.remove(str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser.chrome import chromium, shift, shown, visiting
from browser.sites import big_study
from web.serving import serving

LONG_TASKS = """
window.busyUntil = 0;
new PerformanceObserver(list => list.getEntries().forEach(entry => {
  window.busyUntil = Math.max(window.busyUntil, entry.startTime + entry.duration);
})).observe({type: "longtask", buffered: true});
"""
TIMES = """drawn => ({
  first: (performance.getEntriesByName("first-contentful-paint")[0] || {}).startTime,
  server: performance.getEntriesByType("navigation")[0].responseStart,
  interactive: Math.max(drawn, window.busyUntil),
})"""


def visit(browser: Browser, home: str, path: str) -> dict[str, float]:
    """Milliseconds of one visit, and the layout shift."""
    with visiting(browser, home) as page:
        page.context.set_default_timeout(120_000)
        page.add_init_script(LONG_TASKS)
        page.goto(path, wait_until="commit")
        shown(page)
        drawn = page.evaluate("performance.now()")
        page.wait_for_timeout(300)  # so that a long task that goes on is known
        times: dict[str, float] = page.evaluate(TIMES, drawn)
        return {**times, "shift": shift(page)[0]}


def measured(browser: Browser, home: str, path: str, visits: int) -> dict[str, Any]:
    """Medians and the slowest of so many visits."""
    rows = [visit(browser, home, path) for _ in range(visits)]
    found: dict[str, Any] = {"path": path, "visits": visits}
    for name in ("server", "first", "interactive"):
        values = [row[name] for row in rows]
        found |= {f"{name}_ms": round(statistics.median(values)), f"{name}_worst_ms": round(max(values))}
    return {**found, "shift": round(max(row["shift"] for row in rows), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--evaluations", type=int, default=100_000)
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--store")
    parser.add_argument("--study", default="big")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, name = arguments.store or f"sqlite:///{folder}/big.db", arguments.study
        if arguments.store is None:
            big_study(store, name, evaluations=arguments.evaluations)
        with serving(store, folder=Path(folder)) as server, chromium() as browser:
            began = time.perf_counter()
            visit(browser, server.url, f"/studies/{name}")
            found: dict[str, Any] = {
                "date": datetime.now(UTC).date().isoformat(),
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                "evaluations": arguments.evaluations,
                "first_reading_s": round(time.perf_counter() - began, 1),
                "pages": [],
            }
            print(f"first reading: {found['first_reading_s']} s; load of the machine {found['load']}")
            for path in ("/", f"/studies/{name}", f"/studies/{name}/candidates/50000", f"/compare?study={name}"):
                found["pages"].append(measured(browser, server.url, path, arguments.visits))
                print(json.dumps(found["pages"][-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
