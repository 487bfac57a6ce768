"""Which number mergekit takes for a tensor, by its rule: filters by substring, the first match wins; slices by layer.

The tensors before the layers take the first slice's numbers, those behind them the last one's (`plan_module` in plan.py
of mergekit 0.1.5). That the rule is read right is shown by test_mergekit_run.py, which runs mergekit.
"""

import re
from typing import Any

from mergesearch.export.filters import evaluate

FIRST = "model.embed_tokens.weight"


def number(body: dict[str, Any], word: str, model: str | None, name: str) -> float | None:
    """Parameter `word` of a model, or of the whole merge (None), for the tensor `name`; None where it has none."""
    scopes = [body.get("parameters", {})]
    entries = body.get("models")
    if entries is None:
        part = _slice(body["slices"], name)
        scopes.insert(0, part.get("parameters", {}))
        entries = part["sources"]
    if model is not None:
        scopes.insert(0, next(entry for entry in entries if entry["model"] == model).get("parameters", {}))
    found = (evaluate(scope[word], name) for scope in scopes if word in scope)
    return next((value for value in found if value is not None), None)


def _slice(slices: list[dict[str, Any]], name: str) -> dict[str, Any]:
    if layer := re.search(r"\.layers\.(\d+)\.", name):
        covers = [s for s in slices if s["sources"][0]["layer_range"] == [int(layer[1]), int(layer[1]) + 1]]
        assert len(covers) == 1
        return covers[0]
    return slices[0 if name == FIRST else -1]
