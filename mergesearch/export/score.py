"""Score a checkpoint folder as a study would: an export against its record, or anyone's model against a front."""

import json
from pathlib import Path

import numpy as np
import torch

from mergesearch.errors import CheckpointError, EvaluationError
from mergesearch.plugins import load, parse_options
from mergesearch.pool.live import load_model
from mergesearch.pool.worker import ObjectiveSetup, mean_score
from mergesearch.scorers import SCORERS
from mergesearch.scorers.base import ScorerContext
from mergesearch.study.resolve import ResolvedStudy
from mergesearch.types import Score, Split

CONFIG_FILE = "config.json"


def score_checkpoint(folder: Path, resolved: ResolvedStudy, split: Split, device: str = "auto") -> dict[str, Score]:
    """Objective -> its score on `split` of the study's data, by the study's scorers and example order.

    An objective that wears a head is scored on `folder`/<head> where that is a model folder, else on `folder`; one of
    how a candidate is stored, or of an expert rebuilt from it, is left out: no folder shows it. Label map, processor
    and tokenizer are those of the folder scored. Each folder is loaded once, by transformers.

    Args:
        device: 'auto' (a GPU where there is one), 'cpu' or 'cuda'.

    Raises:
        CheckpointError: no model there, or transformers cannot load it.
        DataError: the data do not fit the folder's labels, or a file is missing.
        EvaluationError: a score is not finite.
    """
    setup = resolved.worker_setup()
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device)
    models: dict[Path, torch.nn.Module] = {}
    scores = {}
    for objective in setup.objectives:
        kind = load("scorer", SCORERS, objective.scorer)
        if objective.rebuild is not None or not hasattr(kind, "score"):
            continue
        where = model_folder(folder, objective)
        if where not in models:
            models.clear()  # one model in memory at a time
            models[where] = load_model(where, _architectures(where), place, None)
        options = parse_options(f"objective {objective.name!r}: data", kind.Options, objective.data)
        scorer = kind(options, ScorerContext(where, setup.root, setup.seed))
        values = scorer.score(models[where], split)[objective.metric]
        if not np.isfinite(values).all():
            raise EvaluationError(f"{str(where)!r}: {objective.metric} of objective {objective.name!r} is not finite")
        scores[objective.name] = mean_score(values)
    return scores


def model_folder(folder: Path, objective: ObjectiveSetup) -> Path:
    """Where the model for an objective stands: the subfolder of its head where there is one, else `folder`."""
    if objective.head is not None and (folder / objective.head / CONFIG_FILE).is_file():
        return folder / objective.head
    return folder


def _architectures(folder: Path) -> list[str]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"no model in {str(folder)!r}: cannot read its config.json ({error.strerror})") from None
    except ValueError:
        raise CheckpointError(f"model folder {str(folder)!r}: config.json is not valid JSON") from None
    return list(config.get("architectures") or [])
