"""Servers that the browser visits, each over a store of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser
from web.serving import serving

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from big_store import big_study  # noqa: E402

SMOKE = "runs/smoke"
PAGES = {
    "studies": "/",
    "study": "/studies/{study}",
    "candidate": "/studies/{study}/candidates/{candidate}",
    "baseline": "/studies/{study}/candidates/1",
    "compare": "/compare?study={study}&study={other}",
    "launch": "/launch",
    "login": "/login",
}
"""Every page but that of a job, which needs something launched."""


@dataclass(frozen=True)
class Site:
    """A server's address and token, the folder it may reach into; a study to look at, another to compare it with."""

    url: str
    token: str
    folder: Path
    study: str
    other: str
    candidate: int

    def path(self, page: str) -> str:
        """The address of one of PAGES."""
        return PAGES[page].format(study=self.study, other=self.other, candidate=self.candidate)

    def signed_in(self, browser: Browser) -> object:
        """The cookies of a visitor who has signed in, for `visiting(state=...)`."""
        context = browser.new_context(base_url=self.url)
        try:
            answer = context.request.post("/api/v1/session", data={"token": self.token})
            assert answer.ok, answer.text()
            return context.storage_state()
        finally:
            context.close()


@contextmanager
def site(folder: Path, study: str, other: str, candidate: int) -> Iterator[Site]:
    """A server over `folder`/store.db that may reach into the folder alone."""
    (folder / "workers").mkdir(exist_ok=True)
    shutil.copy(ROOT / "workers" / "inline.yaml", folder / "workers")
    url = f"sqlite:///{folder}/store.db"
    with serving(url, "--root", str(folder), "--profiles", str(folder / "workers"), folder=folder) as server:
        yield Site(server.url, server.token, folder, study, other, candidate)


def made(folder: Path, evaluations: int, objectives: int, seed: int = 0) -> str:
    """Put a study of that size into `folder`/store.db; its name."""
    name = f"made-{objectives}-{seed}"
    big_study(f"sqlite:///{folder}/store.db", name, evaluations=evaluations, objectives=objectives, seed=seed)
    return name


def smoke(folder: Path, *, name: str = "smoke", evaluations: int = 60) -> str:
    """The text of the smoke study, whose experts are made in `folder` if need be."""
    from mergesearch.demo.smoke import make_smoke

    make_smoke(folder / SMOKE, seed=0)
    text = (ROOT / "studies" / "smoke.yaml").read_text()
    text = text.replace("name: smoke", f"name: {name}").replace("evaluations: 60", f"evaluations: {evaluations}")
    return "\n".join(line for line in text.splitlines() if not line.startswith("store:")) + "\n"


def launched(folder: Path) -> str:
    """Launch the smoke study into `folder`/store.db and wait for its end; its name. Real experts, real scores."""
    (folder / "smoke.yaml").write_text(smoke(folder))
    done = subprocess.run(
        [sys.executable, "-m", "mergesearch", "launch", "smoke.yaml", "--store", f"sqlite:///{folder}/store.db"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return "smoke"
