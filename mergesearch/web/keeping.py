"""Runs a job's commands one after the other, outlives the server, and writes down how they ended.

Started as a program with a job's folder: it knows the standard library alone, so that it starts at once and stays small
beside what it runs. SIGTERM and SIGINT are passed on.
"""

import json
import os
import shutil
import signal
import subprocess  # nosec B404  # this is what it is for
import sys
from pathlib import Path
from types import FrameType


def keep(folder: Path) -> int:
    """Run the commands in `folder`/job.json, each as a list of words and never by a shell, until one fails.

    Their output goes to `folder`/log, the exit code of the last one to `folder`/code (written whole or not at
    all), with 'stopped' behind it if a signal ended it.
    Folders of the job that are named under 'remove' are removed at the end.
    """
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        stopped.append(number)
        for process in running:
            process.send_signal(number)

    stopped: list[int] = []
    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    code = 1
    with (folder / "log").open("ab") as log:
        for command in job["commands"]:
            if stopped:
                break
            try:
                process = subprocess.Popen(  # nosec B603  # a list of words, made by web/jobs.py
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=job["cwd"]
                )
            except OSError as error:
                log.write(f"error: the process could not be started: {error}\n".encode())
                code = 1
                break
            running[:] = [process]
            if stopped:  # before anybody knew whom to pass it on to
                process.send_signal(stopped[-1])
            code = process.wait()
            if code or stopped:
                break
    for name in job["remove"]:
        shutil.rmtree(folder / Path(name).name, ignore_errors=True)
    draft = folder / ".code"
    draft.write_text(f"{code}{' stopped' if stopped else ''}\n", encoding="utf-8")
    os.replace(draft, folder / "code")
    return code


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1])) & 0xFF)
