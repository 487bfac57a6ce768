"""The commands as a user types them, on the smoke study: what they print, what they write, how they exit."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mergesearch.cli.app import main
from mergesearch.demo.smoke import make_smoke

ROOT = Path(__file__).parents[2]
EVALUATIONS = 14


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the smoke experts and a shorter smoke study."""
    made = tmp_path_factory.mktemp("clone")
    make_smoke(made / "runs" / "smoke", seed=0)
    text = (ROOT / "studies" / "smoke.yaml").read_text()
    (made / "smoke.yaml").write_text(text.replace("evaluations: 60", f"evaluations: {EVALUATIONS}"))
    return made


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Types a command in that folder."""
    monkeypatch.chdir(folder)

    def typed(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["mergesearch", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return typed


@pytest.fixture
def launched(run: Run, folder: Path) -> Run:
    """As `run`, once the study has been searched."""
    if not (folder / "runs" / "mergesearch.db").exists():
        done = run("launch", "smoke.yaml")
        assert done.code == 0, done.err
    return run


def test_check_lists_the_axes(run: Run) -> None:
    """Findings, axes in order, and an estimate; exit 0."""
    done = run("check", "smoke.yaml", "--time")
    assert done.code == 0
    assert "coefficient.a.embeddings" in done.out
    assert "s for one candidate" in done.out
    body = json.loads(run("check", "smoke.yaml", "--json").out)
    assert body["ok"]
    assert len(body["axes"]) == 8


def test_launch_shows_progress_and_what_is_next(launched: Run) -> None:
    """The summary tells a program all it needs."""
    body = json.loads(launched("show", "smoke", "--json").out)
    assert (body["status"], body["evaluations"], body["budget"]) == ("done", EVALUATIONS, EVALUATIONS)
    assert body["front_size"] >= 1
    assert body["best"] is not None


def test_a_taken_name_is_refused(launched: Run) -> None:
    """Launching again says to resume; nothing is overwritten."""
    done = launched("launch", "smoke.yaml")
    assert done.code == 4
    assert "smoke" in done.err


def test_resume_of_a_finished_study_does_nothing(launched: Run) -> None:
    """The same evaluations as before."""
    assert launched("resume", "smoke").code == 0
    assert json.loads(launched("show", "smoke", "--json").out)["evaluations"] == EVALUATIONS


def test_show_has_the_final_table(launched: Run) -> None:
    """Baselines and the searched merge, on the test split, with their difference."""
    out = launched("show", "smoke").out
    for words in ("base", "expert a", "uniform average", "best λ", "searched", "test"):
        assert words in out


def test_front_lists_and_plots(launched: Run, folder: Path) -> None:
    """A table, JSON, and a picture."""
    done = launched("front", "smoke", "--plot", "front.png")
    assert done.code == 0
    assert (folder / "front.png").stat().st_size > 10_000
    rows = json.loads(launched("front", "smoke.yaml", "--json").out)
    assert all(set(row["scores"]["search"]) == {"a", "b"} for row in rows)


def test_candidate_shows_scores_and_coefficients(launched: Run) -> None:
    """One candidate; its recipe as JSON."""
    number = json.loads(launched("show", "smoke", "--json").out)["chosen"]
    assert "embeddings" in launched("candidate", "smoke", str(number)).out
    body = json.loads(launched("candidate", "smoke", str(number), "--json").out)
    assert body["recipe"]["operator"] == "task_arithmetic"
    wrong = launched("candidate", "smoke", "999")
    assert (wrong.code, "no candidate 999" in wrong.err) == (2, True)


def test_studies_lists_the_store(launched: Run) -> None:
    """By name, and as JSON."""
    assert "smoke" in launched("studies").out
    assert [s["name"] for s in json.loads(launched("studies", "--json").out)] == ["smoke"]


def test_export_scores_what_the_store_says(launched: Run) -> None:
    """The exported checkpoint, scored through the command line, has the recorded scores."""
    number = json.loads(launched("show", "smoke", "--json").out)["chosen"]
    recorded = json.loads(launched("candidate", "smoke", str(number), "--json").out)["scores"]["test"]
    done = launched("export", "smoke", "--to", "exports/best", "--force")
    assert done.code == 0, done.err
    scored = json.loads(launched("score", "exports/best", "smoke.yaml", "--split", "test", "--json").out)
    for name, score in recorded.items():
        assert scored[name]["value"] == pytest.approx(score["value"], abs=1e-6)


@pytest.mark.parametrize("way", [["--knee"], ["--prefer", "a=0.8,b=0.2"], ["--candidate", "1"]])
def test_export_in_other_ways(launched: Run, way: list[str], folder: Path) -> None:
    """The knee, a preference, a number."""
    to = f"exports/{way[0].strip('-')}"
    assert launched("export", "smoke", "--to", to, *way).code == 0
    assert (folder / to / "recipe.yaml").exists()


def test_report_is_one_page(launched: Run, folder: Path) -> None:
    """An HTML file that refers to nothing else."""
    assert launched("report", "smoke", "--to", "report.html").code == 0
    text = (folder / "report.html").read_text()
    assert not re.search(r"<script[^>]* src=", text)
    page = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)  # Plotly's own holds addresses of its makers
    assert not re.search(r'(src|href)="https?:', page)


@pytest.mark.parametrize("family", ["operators", "strategies", "scorers"])
def test_list_says_what_the_code_declares(run: Run, family: str) -> None:
    """Every kind with a line about it."""
    rows = json.loads(run("list", family, "--json").out)
    assert all(row["doc"] and row["kind"] for row in rows)
    assert run("list", family).code == 0


@pytest.mark.parametrize(
    ("old", "new", "code", "sentence"),
    [
        ("cma_es", "cma_ess", 2, "did you mean 'cma_es'"),
        ("runs/smoke/base", "runs/smoke/bass", 3, "bass"),
        ("{a: runs/smoke/a, b", "{a: runs/smoke/a, c: runs/smoke/data, b", 3, "data"),
        ("a-{split}.npz", "z-{split}.npz", 3, "z-search.npz"),
        ("groups: block", "groups: {vit.embeddings: e}", 2, "add"),
        ("coefficient: {low: 0.0", "coefficient: {low: 9.0", 2, "low 9.0 must be below high 1.5"),
    ],
)
def test_bad_studies_are_refused_before_anything_is_recorded(
    run: Run, folder: Path, old: str, new: str, code: int, sentence: str
) -> None:
    """One clear sentence, an honest exit code, no study in the store."""
    text = (folder / "smoke.yaml").read_text()
    assert old in text
    (folder / "bad.yaml").write_text(text.replace(old, new, 1).replace("name: smoke", "name: bad"))
    done = run("launch", "bad.yaml", "--store", "sqlite:///bad.db")
    assert (done.code, sentence in done.err) == (code, True), done.err
    assert "Traceback" not in done.err
    listed = run("studies", "--store", "sqlite:///bad.db", "--json")
    assert listed.code == 4 or json.loads(listed.out) == []


def test_check_finds_what_launch_would(run: Run, folder: Path) -> None:
    """A missing column and a label that no head knows are errors of the check, with exit 1."""
    data = np.load(folder / "runs/smoke/data/a-search.npz")
    np.savez(
        folder / "odd.npz", image=data["image"], label=np.where(np.arange(len(data["label"])) == 3, 77, data["label"])
    )
    text = (folder / "smoke.yaml").read_text()
    (folder / "odd.yaml").write_text(text.replace("runs/smoke/data/a-{split}.npz", "odd.npz"))
    done = run("check", "odd.yaml")
    assert (done.code, "label 77" in done.out) == (1, True), done.out
    (folder / "odd.yaml").write_text(text.replace('a-{split}.npz"', 'a-{split}.npz", label: lable'))
    done = run("check", "odd.yaml")
    assert (done.code, "lable" in done.out) == (1, True), done.out


def test_a_missing_store_is_not_made_by_looking(run: Run, folder: Path) -> None:
    """Commands that read never create a store."""
    done = run("show", "smoke", "--store", "sqlite:///nowhere.db")
    assert (done.code, (folder / "nowhere.db").exists()) == (4, False)


def test_an_expert_with_nan_is_refused_by_name(run: Run, folder: Path) -> None:
    """The sentence names the expert and the tensor; the study is kept, and can be resumed with another file."""
    broken = folder / "runs" / "broken"
    shutil.copytree(folder / "runs" / "smoke" / "a", broken)
    tensors = load_file(broken / "model.safetensors")
    name = next(name for name in sorted(tensors) if "embeddings" in name)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    text = (folder / "smoke.yaml").read_text()
    (folder / "nan.yaml").write_text(
        text.replace("a: runs/smoke/a", "a: runs/broken").replace("name: smoke", "name: nan")
    )
    done = run("launch", "nan.yaml", "--store", "sqlite:///nan.db")
    assert done.code in (3, 5)
    assert name in done.err
    assert "Traceback" not in done.err
    assert json.loads(run("show", "nan", "--store", "sqlite:///nan.db", "--json").out)["status"] == "stopped"


def test_report_has_charts_or_is_small(launched: Run, folder: Path) -> None:
    """-o names the file; --static leaves the charts out; --models adds what only the weights tell."""
    assert launched("report", "smoke", "-o", "whole.html").code == 0
    assert launched("report", "smoke", "-o", "small.html", "--static", "--models").code == 0
    whole, small = (folder / name for name in ("whole.html", "small.html"))
    assert whole.stat().st_size > 4_000_000 > 1_000_000 > small.stat().st_size
    text = small.read_text()
    assert "at launch: base and 2 experts agree" in text
    assert "Cosine between" in text
    assert "not kept in the store: `mergesearch report" not in text
    assert "‖θ0‖" in text
    assert "<script" not in text


def test_front_is_drawn_as_asked(launched: Run, folder: Path) -> None:
    """Axes, split, errors and title; what is about the picture alone needs one."""
    done = launched("front", "smoke", "--plot", "f.svg", "--x", "b", "--split", "confirm", "--errors", "--title", "T")
    assert done.code == 0, done.err
    assert "<svg" in (folder / "f.svg").read_text()
    assert "add --plot" in launched("front", "smoke", "--errors").err
    assert "did you mean 'test'" in launched("front", "smoke", "--split", "tset").err


def test_coefficients_are_shown_and_drawn(launched: Run, folder: Path) -> None:
    """A table, JSON with every group, a picture; a baseline has none."""
    done = launched("coefficients", "smoke", "--knee", "--plot", "c.png")
    assert done.code == 0, done.err
    assert "embeddings" in done.out
    assert (folder / "c.png").stat().st_size > 5_000
    body = json.loads(launched("coefficients", "smoke", "--prefer", "a=1", "--json").out)
    assert body["experts"] == ["a", "b"]
    assert all(len(row) == 2 for row in body["coefficients"]["coefficient"].values())
    assert "it is a baseline" in launched("coefficients", "smoke", "--candidate", "0").err
    assert launched("coefficients", "smoke", "--best", "--knee").code == 2


def test_sinks_are_listed_and_checked_before_the_launch(launched: Run) -> None:
    """A wrong one is refused while nothing has begun; a right one follows a resume."""
    assert "tensorboard" in launched("list", "sinks").out
    done = launched("resume", "smoke", "--sink", "tensorbord")
    assert (done.code, "did you mean 'tensorboard'" in done.err) == (2, True)
    evaluations = str(EVALUATIONS + 1)
    done = launched("resume", "smoke", "--evaluations", evaluations, "--sink", "tensorboard", "--sink-dir", "sinks")
    assert done.code == 0, done.err
    (file,) = Path("sinks").glob("tensorboard/smoke-*/events*")
    assert b"search/a" in file.read_bytes()
