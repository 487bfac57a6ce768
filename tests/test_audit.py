"""The audit of dependencies fails on what is known, and never says that all is well when nobody was asked."""

import runpy
from pathlib import Path
from typing import Any

import pytest

AUDIT = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "audit.py"))
FINE = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not on PyPI"}


@pytest.mark.parametrize(
    ("answers", "code", "word"),
    [
        ({"pypi": [FINE, UNKNOWN]}, 0, "1 packages audited, 1 unknown, 0 faults"),
        ({"pypi": [FINE, BAD]}, 1, "b 2: PYSEC-1, mended in 3"),
        ({"pypi": [UNKNOWN], "osv": [BAD]}, 1, "PYSEC-1"),
        ({"pypi": None, "osv": None}, 0, "NOTHING WAS AUDITED"),
        ({"pypi": [UNKNOWN], "osv": []}, 0, "NOTHING WAS AUDITED"),
    ],
)
def test_a_known_fault_fails_and_silence_is_said_aloud(answers: dict[str, Any], code: int, word: str) -> None:
    """The second service is asked where the first knows nothing of any package."""
    said: list[str] = []
    assert AUDIT["audit"](answers.get, said.append) == code
    assert word in "\n".join(said)
