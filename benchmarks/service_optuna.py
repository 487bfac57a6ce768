"""The peer of `service.py`: an ask and a tell of Optuna's RDB storage, in a study that is as large as ours."""

import logging
import time
import warnings
from typing import Any

import optuna
import sqlalchemy as sa

TABLES = ("trials", "trial_values", "trial_params")


def asks_and_tells(url: str, dim: int, prefill: int, timed: int) -> list[float]:
    """Seconds of each of `timed` evaluations (`ask` with fixed distributions, `tell`) after `prefill` of them.

    The sampler is the random one, which costs least.
    """
    optuna.logging.set_verbosity(logging.ERROR)
    warnings.simplefilter("ignore")
    axes = {f"x{i}": optuna.distributions.FloatDistribution(0.0, 1.0) for i in range(dim)}
    study = optuna.create_study(storage=url, study_name="s", direction="maximize")
    study.add_trial(optuna.trial.create_trial(params=dict.fromkeys(axes, 0.5), distributions=axes, value=0.5))
    copy_first(url, prefill - 1)
    study = optuna.load_study(study_name="s", storage=url, sampler=optuna.samplers.RandomSampler(seed=0))
    if len(study.trials) != prefill:
        raise SystemExit(f"Optuna sees {len(study.trials)} of {prefill} prefilled evaluations")
    seconds = []
    for _ in range(timed):
        began = time.perf_counter()
        study.tell(study.ask(axes), 0.5)
        seconds.append(time.perf_counter() - began)
    return seconds


def cold_load(url: str) -> float:
    """Seconds to read all evaluations of the study in a storage that was just opened."""
    began = time.perf_counter()
    _ = optuna.load_study(study_name="s", storage=url).trials
    return time.perf_counter() - began


def copy_first(url: str, copies: int) -> None:
    """Write `copies` of the first evaluation's rows as Optuna would: its own way takes 0.4 s for each at 384 axes."""
    engine = sa.create_engine(url)
    metadata = sa.MetaData()
    metadata.reflect(engine, only=TABLES)
    with engine.begin() as connection:
        for name in TABLES:
            table = metadata.tables[name]
            key = next(iter(table.primary_key.columns)).name
            rows = [dict(row._mapping) for row in connection.execute(sa.select(table))]
            for first in range(1, copies + 1, 100):
                numbers = range(first, min(first + 100, copies + 1))
                moved = [_shifted(row, key, n, len(rows)) for n in numbers for row in rows]
                connection.execute(sa.insert(table), moved)
            if engine.dialect.name == "postgresql":
                sequence, last = f"pg_get_serial_sequence('{name}', '{key}')", f"SELECT max({key}) FROM {name}"
                connection.execute(sa.text(f"SELECT setval({sequence}, ({last}))"))
    engine.dispose()


def _shifted(row: dict[str, Any], key: str, n: int, rows: int) -> dict[str, Any]:
    """A row of the first evaluation as the n-th copy has it: its own key, its evaluation's id and number moved on."""
    step = {"trial_id": 1, "number": 1, key: 1 if key == "trial_id" else rows}
    return {c: value + n * step[c] if c in step else value for c, value in row.items()}
