"""Optuna itself opens what was written, and finds what the study holds."""

from datetime import datetime
from pathlib import Path

import optuna
import pytest
from export.stored_study import fill, scored
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from mergesearch.errors import DataError, SpecError
from mergesearch.export.optuna_storage import export_optuna, open_storage
from mergesearch.store.memory import MemoryStore
from mergesearch.stored import StoredStudy, read_stored
from mergesearch.types import Candidate, Split

TIMES = {(n, Split.SEARCH): (1_700_000_000.0 + n, 1_700_000_000.5 + n) for n in range(1, 30)}


@pytest.fixture(scope="module")
def study() -> StoredStudy:
    """Enough candidates that some rows are written by us, not by Optuna."""
    store = MemoryStore()
    fill(store, count=12)
    return read_stored(store, "made")


@pytest.mark.parametrize("form", ["sqlite:///{}", "{}", "journal://{}"])
def test_optuna_loads_the_study(study: StoredStudy, tmp_path: Path, form: str) -> None:
    """Directions, natural ranges, values, states, moments and attributes, from a database and from a journal."""
    to = form.format(tmp_path / "folder" / "optuna.db")
    assert export_optuna(study, TIMES, to) == 11  # the twelfth is open, the baseline has no point
    loaded = optuna.load_study(study_name="made", storage=open_storage(to))
    assert [d.name for d in loaded.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert loaded.metric_names == ["acc", "loss"]
    assert [t.number for t in loaded.trials] == list(range(11))
    for trial in loaded.trials:
        number = trial.number + 1
        candidate = study.results.candidates[number]
        assert candidate.point is not None
        assert list(trial.params.values()) == study.space.values(candidate.point).tolist()
        assert trial.distributions == {
            "coefficient.a.L0": FloatDistribution(0.0, 1.5),
            "density": FloatDistribution(0.01, 1.0, log=True),
            "keep": FloatDistribution(0.05, 0.95),
            "rank": IntDistribution(1, 8),
            "cost": FloatDistribution(-2.0, 2.0),
        }
        state = {3: TrialState.FAIL, 4: TrialState.PRUNED}.get(number, TrialState.COMPLETE)
        assert trial.state is state
        assert trial.values == ([number / 10] * 2 if state is TrialState.COMPLETE else None)
        attributes = trial.user_attrs
        assert (attributes["number"], attributes["split"], attributes["origin"]) == (number, "search", "sample")
        assert trial.datetime_start == datetime.fromtimestamp(1_700_000_000 + number)
        assert trial.duration is not None
        assert trial.duration.total_seconds() == 0.5


def test_what_has_no_place_of_its_own_is_an_attribute(study: StoredStudy, tmp_path: Path) -> None:
    """Baselines and the chosen candidate of the study; held-out scores, failures, partial scores of candidates."""
    export_optuna(study, TIMES, str(tmp_path / "o.journal"))
    loaded = optuna.load_study(study_name="made", storage=open_storage(str(tmp_path / "o.journal")))
    assert loaded.user_attrs["baseline:base"] == {"search": {"acc": 0.0, "loss": 0.0}}
    assert (loaded.user_attrs["chosen"], loaded.user_attrs["source"]) == (1, "mergesearch")
    first, failed, partial = loaded.trials[0], loaded.trials[2], loaded.trials[3]
    assert (first.user_attrs["confirm"]["acc"], first.user_attrs["test"]["acc"]) == (0.11, 0.12)
    assert failed.user_attrs["failure"] == "timeout: took longer than 3 s"
    assert (partial.user_attrs["share"], partial.user_attrs["scores"]["acc"]) == (0.25, 0.4)


def test_optuna_goes_on_with_it(study: StoredStudy, tmp_path: Path) -> None:
    """The database is whole: Optuna's own sampler adds to it, with the next number."""
    to = f"sqlite:///{tmp_path / 'o.db'}"
    export_optuna(study, TIMES, to)
    loaded = optuna.load_study(
        study_name="made", storage=open_storage(to), sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
    )
    asked = loaded.ask(loaded.trials[0].distributions)
    loaded.tell(asked, [0.5, 0.5])
    assert (asked.number, len(loaded.best_trials) > 0) == (11, True)


def test_a_second_study_fits_the_same_database(study: StoredStudy, tmp_path: Path) -> None:
    """Another study beside it is fine; the same name twice is refused in one sentence, nothing is overwritten."""
    to = f"sqlite:///{tmp_path / 'o.db'}"
    store = MemoryStore()
    fill(store, "other", 8)
    export_optuna(study, TIMES, to)
    export_optuna(read_stored(store, "other"), {}, to)
    assert len(optuna.load_study(study_name="other", storage=open_storage(to)).trials) == 7
    with pytest.raises(SpecError, match="already holds a study 'made'"):
        export_optuna(study, TIMES, to)
    assert len(optuna.load_study(study_name="made", storage=open_storage(to)).trials) == 11


def test_a_place_that_cannot_be_written_is_one_sentence(study: StoredStudy, tmp_path: Path) -> None:
    """For a database and for a journal; never with a password."""
    (tmp_path / "file").write_text("in the way")
    for to in (f"sqlite:///{tmp_path}/file/o.db", f"{tmp_path}/file/o.journal"):
        with pytest.raises(DataError, match="cannot be written"):
            export_optuna(study, TIMES, to)
    with pytest.raises(DataError) as caught:
        export_optuna(study, TIMES, "nonsense://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_study_with_nothing_told_is_an_empty_one(tmp_path: Path) -> None:
    """No candidate, no error."""
    store = MemoryStore()
    fill(store, count=1)
    lease = store.acquire("made", "test", 60.0)
    store.ask(lease, Candidate(2, [0.5] * 5), Split.SEARCH)
    assert export_optuna(read_stored(store, "made"), {}, str(tmp_path / "o.journal")) == 0
    store.tell(lease, 2, Split.SEARCH, scored(0.5))
    assert export_optuna(read_stored(store, "made"), {}, str(tmp_path / "p.journal")) == 1
