"""Asks for known vulnerabilities of what is installed: `make check` runs it. Fails on any that is found.

Where no service of vulnerabilities answers (no way out of the machine), it says loudly that nothing was audited, and
goes on: that is a warning for the reader of the log, not a fault of the code.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SERVICES = ("pypi", "osv")
ACCEPTED: dict[str, str] = {}
"""Identifiers of vulnerabilities that do not concern us, each with the reason."""

LOUD = "!" * 100

Ask = Callable[[str], "list[dict[str, Any]] | None"]


def ask(service: str) -> "list[dict[str, Any]] | None":
    """What pip-audit says of each package, with `service`; None if it cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "audit.json"
        words = ["--local", "--skip-editable", "--progress-spinner=off", "--timeout=10", "--format=json"]
        command = [sys.executable, "-m", "pip_audit", f"--vulnerability-service={service}", *words, f"--output={told}"]
        try:
            subprocess.run(command, check=False, capture_output=True, timeout=300)
            return list(json.loads(told.read_text(encoding="utf-8"))["dependencies"])
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
            return None


def audit(ask: Ask, say: Callable[[str], object], services: Sequence[str] = SERVICES) -> int:
    """0 if nothing is known against any package, or nobody could be asked; 1 if something is."""
    for service in services:
        packages = ask(service) or []
        asked = [package for package in packages if "skip_reason" not in package]
        if not asked:
            continue
        bad = [(p, v) for p in asked for v in p["vulns"] if v["id"] not in ACCEPTED]
        for package, found in bad:
            mended = ", ".join(found.get("fix_versions", ())) or "no version yet"
            say(f"{package['name']} {package['version']}: {found['id']}, mended in {mended}")
        say(
            f"pip-audit ({service}): {len(asked)} packages audited, {len(packages) - len(asked)} unknown, "
            f"{len(bad)} faults"
        )
        return 1 if bad else 0
    say(
        f"{LOUD}\nNOTHING WAS AUDITED: no service of known vulnerabilities ({', '.join(services)}) answers from here."
        f"\n{LOUD}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(audit(ask, lambda text: sys.stdout.write(f"{text}\n")))
