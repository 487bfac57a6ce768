"""Controls of a study: studies of their own with the same budget, and a row of the report for each."""

from pathlib import Path

import numpy as np
import pytest
from export.small_study import STUDY, make_models, resolved_study

from mergesearch.controller.launch import launch, resume, stored_spec
from mergesearch.controller.observer import Observer, Progress
from mergesearch.errors import SpecError
from mergesearch.report.view import read_view
from mergesearch.store.memory import MemoryStore
from mergesearch.study.controls import Control, control_study
from mergesearch.types import Split, Told

SHORT = "strategy: {kind: random}\nbudget: {evaluations: 3}\nholdout: {finalists: 1}\nbaselines: {lambdas: []}"


def text_of(controls: str) -> str:
    """The small study, short, with controls."""
    return STUDY.replace("store: memory://", f"{SHORT}\ncontrols: {controls}\nstore: memory://")


class Phases(Observer):
    """Collects the phases it sees."""

    def __init__(self, phases: set[str]) -> None:
        self.phases = phases

    def evaluated(self, study: str, told: Told, attempt: int) -> None:
        """Nothing."""

    def repeated(self, study: str, told: Told, attempt: int) -> None:
        """Nothing."""

    def progressed(self, progress: Progress) -> None:
        self.phases.add(progress.phase)


@pytest.mark.timeout(180)
def test_all_controls_run_and_stand_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal budgets, no baselines of their own, scored on test; a resume finds them done and runs nothing again."""
    make_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(text_of("[random, lambda, random_experts]"))
    store = MemoryStore()
    phases: set[str] = set()
    launched = launch("small.yaml", store=store, observers=[Phases(phases)])
    names = {record.name for record in store.studies()}
    assert names == {"small", "small--random", "small--lambda", "small--random_experts"}
    view = read_view(store, "small")
    rows = [row for row in view.comparison().rows if row.kind == "control"]
    assert [row.label for row in rows] == [
        "control: random search",
        "control: one λ for all, equal budget",
        "control: random experts",
    ]
    assert all(Split.TEST in row.cells for row in rows)
    for name in names - {"small"}:
        results = read_view(store, name).results
        assert results.cost_told == 3.0
        assert results.baselines() == {}
        assert stored_spec(store, name)[0].control_of == "small"
    assert any("random experts" in phase for phase in phases)
    before = {name: len(store.events(name)) for name in names}
    resume("small", launched.store)
    assert {name: len(store.events(name)) for name in names} == before


def test_one_lambda_is_one_axis(tmp_path: Path) -> None:
    """Every coefficient moves together."""
    make_models(tmp_path)
    resolved = resolved_study(tmp_path, text_of("[lambda]"))
    spec, _ = control_study(resolved, Control.LAMBDA)
    tied = resolved_study(tmp_path, control_study(resolved, Control.LAMBDA)[1].text)
    assert tied.space.dim == 1
    table = tied.space.decode(np.array([0.4]))["coefficient"]
    assert np.unique(table).size == 1
    assert spec.budget == resolved.spec.budget


def test_a_space_without_coefficients_has_no_lambda(tmp_path: Path) -> None:
    """The control says so, and what to do."""
    make_models(tmp_path)
    text = text_of("[lambda]").replace("{groups: block}", "{groups: block, coefficient: 0.3, scale: {low: 0, high: 1}}")
    with pytest.raises(SpecError, match="searches no coefficient"):
        control_study(resolved_study(tmp_path, text), Control.LAMBDA)
