"""A study of tiny real models that follows gradients, from its file to its summary."""

from pathlib import Path

import numpy as np
import pytest
from export.small_study import STUDY, make_models
from typer.testing import CliRunner

from mergesearch.cli.app import app
from mergesearch.controller.launch import launch, resume
from mergesearch.types import Asked, Scored, Split, Told


@pytest.mark.timeout(120)
def test_a_gradient_study_keeps_its_budget_and_its_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of both objectives stand in the store, cost what the file says, and come back in a resume; `show` and
    `candidate` say what was asked and what it cost."""
    make_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/g.db"
    more = "strategy: {kind: gradient_map}\nbudget: {evaluations: 9, gradient_cost: 2.0}\nholdout: {finalists: 1}\n"
    text = STUDY.replace("store: memory://", f"{more}baselines: {{lambdas: []}}\nstore: '{url}'")
    (tmp_path / "small.yaml").write_text(text)
    launched = launch("small.yaml")
    results = launched.results
    assert results.cost_asked == results.cost_told <= 9.0
    asked = [c for c in results.candidates.values() if c.request.gradient]
    assert asked
    assert all(c.cost == 2.0 * c.request.share for c in asked)
    told = [e for e in launched.store.events("small") if isinstance(e, Told) and e.candidate.request.gradient]
    for event in told:
        if event.split is Split.SEARCH:
            assert isinstance(event.outcome, Scored)
            assert set(event.outcome.gradients) == {"d", "l"}
            assert all(np.abs(g).max() > 0 for g in event.outcome.gradients.values())
        else:
            assert isinstance(event.outcome, Scored)
            assert event.outcome.gradients == {}
    assert resume("small", launched.store).results.cost_asked == results.cost_asked
    assert any(isinstance(e, Asked) for e in launched.store.events("small"))
    launched.store.close()
    shown = CliRunner().invoke(app, ["show", "small", "--store", url])
    assert shown.exit_code == 0, shown.output
    assert f"cost {results.cost_told:.1f} of 9" in shown.output
    number = str(asked[0].number)
    said = CliRunner().invoke(app, ["candidate", "small", number, "--store", url])
    assert f"with the gradient of '{asked[0].request.gradient}'; cost 2" in said.output
    body = CliRunner().invoke(app, ["candidate", "small", number, "--store", url, "--json"])
    assert '"gradient": "loss"' in body.output
    assert '"cost": 2.0' in body.output
