"""The default demo, step by step: experts, search, table, report, export, and a check of the export."""

import json
import subprocess
import sys
import time
from pathlib import Path

import typer
from rich.console import Console

from mergesearch.cli.common import Named, Place
from mergesearch.cli.running import profile, watched
from mergesearch.controller.launch import Launched, launch, resume
from mergesearch.demo.vision import make_experts
from mergesearch.errors import CheckpointError, SpecError
from mergesearch.export import export_study
from mergesearch.report.html import write_report
from mergesearch.report.plot import plot_front
from mergesearch.report.table_text import render_table
from mergesearch.report.terminal import render_front
from mergesearch.report.view import StudyView, read_view
from mergesearch.store.open import open_store
from mergesearch.stored import read_stored
from mergesearch.study.source import read_study
from mergesearch.types import Split

STUDY = Path("studies/demo.yaml")
FOLDER = Path("runs/demo")
SAME = 1e-6  # the export is scored by another process, in batches of the same size: the scores are equal


def vision(workers: Path | None) -> None:
    """Run the whole demo in the current folder, which is a clone of the repository."""
    if not STUDY.exists():
        raise SpecError(f"there is no {STUDY} here; run the demo in the folder of the repository")
    began = time.monotonic()
    console = Console()
    console.rule("1. experts from real data")
    make_experts(FOLDER, seed=0, variant="gentle", progress=console.print)
    console.rule("2. search")
    done = _search(workers)
    study = read_view(done.store, done.resolved.spec.name)
    console.rule("3. what was found")
    console.print(render_front(study))
    _report(study, console)
    console.rule("4. export")
    _export(study, done, console)
    console.print(f"\nthe whole demo took {time.monotonic() - began:.0f} s")


def _search(workers: Path | None) -> Launched:
    spec, source = read_study(STUDY)
    store = open_store(spec.store)
    known = {record.name: record for record in store.studies()}
    with watched(Named(spec.name, Place(spec.store))) as view:
        if spec.name not in known:
            return launch(STUDY, workers=profile(workers), store=store, observers=[view])
        if known[spec.name].spec != source.text:
            raise SpecError(
                f"{STUDY} has changed since study {spec.name!r} was launched; give it another name to search again"
            )
        return resume(spec.name, store, workers=profile(workers), observers=[view])


def _report(study: StudyView, console: Console) -> None:
    console.print(render_table(study.comparison()))
    plot_front(study.results, FOLDER / "front.png", chosen=study.chosen)
    write_report(study, FOLDER / "report.html")
    console.print(f"wrote {FOLDER / 'report.html'} and {FOLDER / 'front.png'}")


def _export(study: StudyView, done: Launched, console: Console) -> None:
    if study.chosen is None:
        raise SpecError(f"study {study.record.name!r} has chosen no candidate yet: resume it")
    folder = FOLDER / "merged"
    stored = read_stored(done.store, study.record.name)
    export_study(done.resolved, stored, done.store, study.chosen, folder, plot=plot_front, force=True)
    console.print(f"candidate {study.chosen} written to {folder}")
    command = [sys.executable, "-m", "mergesearch", "score", str(folder), str(STUDY), "--split", "test", "--json"]
    rescored = subprocess.run(command, check=True, capture_output=True, text=True)  # nosec B603  # our own command
    scored = json.loads(rescored.stdout)
    recorded = study.results.outcome(study.chosen, Split.TEST)
    if recorded is None:
        raise SpecError(f"candidate {study.chosen} was not scored on the test split: resume the study")
    for name, score in recorded.scores.items():
        console.print(f"  {name}: {scored[name]['value']:.4f} reloaded, {score.value:.4f} recorded")
        if abs(scored[name]["value"] - score.value) > SAME:
            raise CheckpointError(f"the export in {folder} does not score what was recorded for objective {name!r}")
    typer.echo("the exported checkpoint, loaded in a new process, scores what the store says")
