"""README.md of an exported merge: a model card with its scores, how sure they are, and how to load and rebuild it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from mergesearch import __version__
from mergesearch.export.folder import RECIPE_FILE
from mergesearch.export.mergekit import MERGEKIT_FILE, OTHER_DRAW, MergekitConfig
from mergesearch.export.provenance import ModelSource, Provenance
from mergesearch.results import BASE, EXPERT, LAMBDA, UNIFORM, Results
from mergesearch.stats import Examples, paired_error
from mergesearch.types import Direction, Split

CARD_FILE = "README.md"
PICTURE_FILE = "front.png"
CACHE_PREFIX = "models--"


@dataclass(frozen=True, eq=False)
class CardFacts:
    """What a card is written from.

    `folders` maps each expert whose head was exported to its subfolder; the key '' stands for the export's folder
    itself. `architectures` has the class named in each one's config.json.
    """

    provenance: Provenance
    results: Results
    examples: Examples
    folders: Mapping[str, str]
    architectures: Mapping[str, str]
    mergekit: MergekitConfig
    picture: bool


def model_card(facts: CardFacts) -> str:
    """The text of README.md."""
    made = facts.provenance
    parts = [
        _front_matter(made),
        f"# {made.study}: merge {made.candidate}\n",
        f"A merge of {len(made.experts)} expert{'s' if len(made.experts) != 1 else ''} by `{made.recipe.operator}`, "
        f"found by mergesearch {__version__} "
        f"(candidate {made.candidate} of study `{made.study}`: {made.why}).\n",
        _scores(facts),
        *_notes(facts),
        "![The front on the search split](front.png)\n" if facts.picture else "",
        _loading(facts),
        _rebuilding(facts),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(made: Provenance) -> str:
    """YAML that the hub reads. `base_model` takes model ids of the hub only, so local folders are left out of it."""
    ids = [found for model in (made.base, *made.experts.values()) if (found := hub_id(model)) is not None]
    body: dict[str, object] = {"library_name": "transformers", "tags": ["merge", "mergesearch"]}
    if ids:
        body |= {"base_model": list(dict.fromkeys(ids)), "base_model_relation": "merge"}
    return f"---\n{yaml.safe_dump(body, sort_keys=False)}---\n"


def hub_id(model: ModelSource) -> str | None:
    """'owner/name' of a model that lies in the hub's cache (.../models--owner--name/snapshots/...), else None."""
    for part in reversed(Path(model.path).parts):
        if part.startswith(CACHE_PREFIX):
            return part.removeprefix(CACHE_PREFIX).replace("--", "/", 1)
    return None


def _scores(facts: CardFacts) -> str:
    """One table for each split on which the merge was scored: the merge and the baselines scored there."""
    number, objectives = facts.provenance.candidate, facts.results.objectives
    directions = {o.direction for o in objectives}
    mean = len(objectives) > 1 and len(directions) == 1
    arrows = {Direction.MAX: "↑", Direction.MIN: "↓"}
    heads = [f"{o.name} {arrows[o.direction]}" for o in objectives] + (["weighted mean"] if mean else [])
    parts = ["## Scores\n\nMean ± standard error. " + _SPLITS]
    for split in Split:
        rows = [(label, n) for label, n in _rows(facts) if facts.results.outcome(n, split) is not None]
        if not any(n == number for _, n in rows):
            continue
        parts.append(f"**{split.value} split** ({_sizes(facts, split)})\n")
        lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        for label, n in rows:
            cells = _cells(facts.results, n, split, mean)
            bold = "**" if n == number else ""
            lines.append(f"| {bold}{label}{bold} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


_SPLITS = (
    "The search split guided the search, the confirm split chose among its finalists, the test split was read once, "
    "at the end.\n"
)


def _rows(facts: CardFacts) -> list[tuple[str, int]]:
    """Label and number of each merge to compare: base, experts, uniform average, best single λ, this merge."""
    results, number = facts.results, facts.provenance.candidate
    baselines = results.baselines()
    rows = [("base", n) for o, n in baselines.items() if o == BASE]
    rows += [(f"expert {o.removeprefix(EXPERT)}", n) for o, n in baselines.items() if o.startswith(EXPERT)]
    rows += [("uniform average", n) for o, n in baselines.items() if o == UNIFORM]
    best = results.best_lambda()
    if best is not None:
        rows.append((f"best single λ ({results.candidates[best].origin.removeprefix(LAMBDA)})", best))
    return [*((label, n) for label, n in rows if n != number), ("this merge", number)]


def _sizes(facts: CardFacts, split: Split) -> str:
    outcome = facts.results.outcome(facts.provenance.candidate, split)
    assert outcome is not None
    sizes = {o.name: outcome.scores[o.name].n for o in facts.results.objectives}
    if len(set(sizes.values())) == 1:
        each = " each" if len(sizes) > 1 else ""
        return f"{next(iter(sizes.values()))} examples{each}"
    return "examples: " + ", ".join(f"{name} {n}" for name, n in sizes.items())


def _cells(results: Results, number: int, split: Split, mean: bool) -> list[str]:
    outcome = results.outcome(number, split)
    assert outcome is not None
    scores = [outcome.scores[o.name] for o in results.objectives]
    cells = [f"{s.value:.4g} ± {s.stderr:.2g}" for s in scores]
    if mean:
        weights = np.array([o.weight for o in results.objectives])
        weights = weights / weights.sum()
        value = float(weights @ np.array([s.value for s in scores]))
        error = float(np.sqrt(np.sum((weights * np.array([s.stderr for s in scores])) ** 2)))
        cells.append(f"{value:.4g} ± {error:.2g}")
    return cells


def _notes(facts: CardFacts) -> list[str]:
    """How far the scores can be trusted, in sentences."""
    results, number = facts.results, facts.provenance.candidate
    held_out = next((s for s in (Split.TEST, Split.CONFIRM) if results.outcome(number, s) is not None), None)
    notes = []
    if held_out is None:
        notes.append(
            "This merge was scored on the search split alone, which the search itself saw: expect less elsewhere."
        )
    else:
        notes.append(_optimism(facts, held_out))
        notes += [s for label, n in _rivals(facts) if (s := _against(facts, label, n, held_out))]
    if held_out is Split.CONFIRM:
        notes.append(
            "It was not scored on the test split. The confirm split helped to choose it, so its scores flatter."
        )
    return ["### How sure this is\n", "\n".join(f"- {note}" for note in notes) + "\n"]


def _rivals(facts: CardFacts) -> list[tuple[str, int]]:
    return [row for row in _rows(facts) if row[0] == "uniform average" or row[0].startswith("best single λ")]


def _optimism(facts: CardFacts, split: Split) -> str:
    """The gap between what the search saw and what held-out examples say. The splits share no example."""
    results, number = facts.results, facts.provenance.candidate
    search, held = results.weighted(number), results.weighted(number, split)
    assert search is not None
    assert held is not None
    gap = held - search  # losses: positive, the search split flattered
    error = float(np.hypot(_stderr(results, number, Split.SEARCH), _stderr(results, number, split)))
    which = "better" if gap >= 0 else "worse"
    verdict = "more than two standard errors" if abs(gap) > 2 * error else "within two standard errors"
    return (
        f"Its weighted score is {abs(gap):.3g} ± {error:.2g} {which} on the search split, which {results.search_told} "
        f"evaluations competed for, than on the {split.value} split: {verdict}."
    )


def _against(facts: CardFacts, label: str, rival: int, split: Split) -> str:
    """The difference from a baseline on the same examples, and whether it may be luck."""
    results, number = facts.results, facts.provenance.candidate
    mine, theirs = results.weighted(number, split), results.weighted(rival, split)
    if mine is None or theirs is None:
        return ""
    gain, error = theirs - mine, paired_error(results, number, rival, facts.examples, split)
    if error == 0.0:
        verdict = "the error is not known"
    elif abs(gain) <= error:
        verdict = "within its error, so either may be the better one: a difference like this comes about by noise"
    else:
        verdict = "more than twice its error" if abs(gain) > 2 * error else "more than its error, but not twice as much"
    which = "better" if gain >= 0 else "worse"
    return f"Against the {label} it is {abs(gain):.3g} ± {error:.2g} {which} on the {split.value} split ({verdict})."


def _stderr(results: Results, number: int, split: Split) -> float:
    outcome = results.outcome(number, split)
    assert outcome is not None
    weights = np.array([o.weight for o in results.objectives])
    errors = np.array([outcome.scores[o.name].stderr for o in results.objectives])
    return float(np.sqrt(np.sum((weights / weights.sum() * errors) ** 2)))


def _loading(facts: CardFacts) -> str:
    classes: Sequence[str] = sorted(set(facts.architectures.values()) - {""})
    lines = [f"from transformers import {', '.join(classes) or 'AutoModel'}", ""]
    for head, folder in facts.folders.items():
        name = facts.architectures[head] or "AutoModel"
        where = f"PATH_OF_THIS_FOLDER/{folder}" if folder else "PATH_OF_THIS_FOLDER"
        variable = f"model_{head.replace('-', '_')}" if head else "model"
        lines.append(f'{variable} = {name}.from_pretrained("{where}")')
    text = "## Loading\n\n```python\n" + "\n".join(lines) + "\n```\n"
    if len(facts.folders) > 1 or "" not in facts.folders:
        text += (
            "\nThe merge has one body and a head for each task; each subfolder is a whole model with its own head.\n"
        )
    return text


def _rebuilding(facts: CardFacts) -> str:
    made = facts.provenance
    models = [f"| base | `{made.base.path}` | `{made.base.digest}` |"]
    models += [f"| {name} | `{model.path}` | `{model.digest}` |" for name, model in made.experts.items()]
    text = (
        f"## Rebuilding\n\n`{RECIPE_FILE}` holds every coefficient, the layer groups and the digests of the models; "
        f'`mergesearch.export.rebuild("{RECIPE_FILE}", "NEW_FOLDER")` builds the same bits from them.\n\n'
        "| model | folder at the time | digest of its weights |\n|---|---|---|\n" + "\n".join(models) + "\n"
    )
    if facts.mergekit.text is not None:
        other = "" if facts.mergekit.seed is None else f" {OTHER_DRAW[0].upper()}{OTHER_DRAW[1:]}."
        return text + f"\n`{MERGEKIT_FILE}` is the same merge for mergekit (`{facts.mergekit.command}`).{other}\n"
    return (
        text + f"\nThere is no `{MERGEKIT_FILE}`: mergekit cannot express this merge, since {facts.mergekit.why_not}.\n"
    )
