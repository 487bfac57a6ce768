"""Answers that are made once and sent many times, as the JSON text they are sent as."""

import json
import math
from typing import Any

from fastapi import Response


def as_json(value: Any) -> bytes:
    """JSON text, with null for NaN and infinities, which JSON does not have: scores near the largest number have some
    for their means and squares."""
    try:
        return _text(value)
    except ValueError:
        return _text(_finite(value))


def _text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def answer(body: bytes) -> Response:
    """What `as_json` gave, as a response; its form is what the route's response model says."""
    return Response(body, media_type="application/json")
