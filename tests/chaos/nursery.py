"""Starts children quickly: a process that has imported all they need forks one for each script.

A start takes some 10 ms instead of 2 s, and a child is a process like any other: it has its own pid, its signals, its
files, and SIGKILL ends it at once. Talks JSON lines over its standard streams.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative for a signal, and what it wrote to standard error."""

    code: int
    said: str


class Nursery:
    """The parent's end. `hash_seed` is that of its children: what depends on the order of a set differs by it."""

    def __init__(self, folder: Path, hash_seed: int) -> None:
        self._folder = folder
        self._errors: dict[int, Path] = {}
        self._started = 0
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": str(hash_seed),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def start(self, script: Any) -> int:
        """Start a child; its pid."""
        self._started += 1
        errors = self._folder / f"child-{self._started}.err"
        login = {key: value for key, value in os.environ.items() if key.startswith("PG")}
        pid = int(self._ask({"start": asdict(script), "errors": str(errors), "environment": login}))
        self._errors[pid] = errors
        return pid

    def wait(self, pid: int, seconds: float) -> Ended | None:
        """How a child ended; None if it still runs after `seconds`."""
        code = self._ask({"wait": pid, "seconds": seconds})
        if code is None:
            return None
        return Ended(int(code), self._errors.pop(pid).read_text())

    def run(self, script: Any, seconds: float = 60.0) -> Ended:
        """Start a child and wait for its end. Fails if it takes longer than `seconds`."""
        pid = self.start(script)
        ended = self.wait(pid, seconds)
        if ended is None:
            os.kill(pid, signal.SIGKILL)
            self.wait(pid, 10.0)
            raise AssertionError(f"a child did not end within {seconds:g} s: {script}")
        return ended

    def _ask(self, request: dict[str, object]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery has died"
        return json.loads(answer)

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # it ends, and its children with it
        self._process.wait(timeout=30)
        self._process.stdout.close()


def serve() -> None:
    """The nursery's own loop; ends with its input."""
    from chaos.child import Script, main

    from mergesearch.pool.inline import InlinePool  # noqa: F401
    from mergesearch.store.postgresql import open_postgresql  # noqa: F401
    from mergesearch.store.sqlite import open_sqlite  # noqa: F401
    from mergesearch.strategies.make import strategy_class

    alive: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            body = request["start"]
            for name in ("baselines", "echo"):
                body[name] = None if body[name] is None else tuple(body[name])
            body["actors"] = tuple((step, nth) for step, nth in body["actors"])
            script = Script(**body)
            strategy_class(script.strategy)  # its imports are made once, here
            pid = os.fork()
            if pid == 0:
                os.environ.update(request["environment"])
                _become(script, request["errors"], main)
            alive.add(pid)
            answer: int | None = pid
        else:
            answer = _reap(request["wait"], request["seconds"])
            if answer is not None:
                alive.discard(request["wait"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _become(script: Any, errors: str, main: Any) -> None:
    """The child's life. Never returns."""
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null, said = os.open(os.devnull, os.O_RDWR), os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(said, 2)
        code = main(script)
    except BaseException:  # noqa: BLE001 - a traceback is what the test shall see
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _reap(pid: int, seconds: float) -> int | None:
    """Exit code of a child, None while it runs after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.001)


if __name__ == "__main__":
    serve()
