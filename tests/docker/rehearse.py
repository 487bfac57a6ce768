"""Builds an image without Docker, as near as a chroot comes: debootstrap's minimal system in place of BASE_IMAGE, then
every ARG, ENV, COPY, RUN, USER and WORKDIR of a target in order, and its health check at the end.

    python tests/docker/rehearse.py /var/tmp/image --target worker --suite bookworm

Needs root, debootstrap, and a network that has Debian's packages and Python's; takes minutes, so no test runs it.
What it does not show: the layers and caches of a real builder, the Python image itself, and everything CUDA.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from dockerfile import Instruction, ignored, read, stage

ROOT = Path(__file__).parents[2]


def say(line: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Image:
    """A folder that is filled like an image."""

    def __init__(self, folder: Path, binds: list[str]) -> None:
        self.folder = folder
        self.binds = binds
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.passed = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_CERT_", "REQUESTS_"))}
        self.arguments: dict[str, str] = {}
        self.user = "0"
        self.place = "/"
        self.health: list[str] = []

    def do(self, instruction: Instruction) -> None:
        """Carry out one instruction."""
        word, rest = instruction.word, instruction.rest
        if word == "ARG":
            name, _, default = rest.partition("=")
            self.arguments.setdefault(name, default)
        elif word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                self.environment[name] = value.replace("$PATH", self.environment["PATH"])
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                self._copy(ROOT / source, self.folder / target.lstrip("/"), target.endswith("/"))
        elif word == "RUN":
            self.run(rest)
        elif word == "USER":
            self.user = rest.replace("${USER_ID}", self.arguments["USER_ID"])
            self.environment["HOME"] = "/home/mergesearch"
        elif word == "WORKDIR":
            self.place = rest
        elif word == "HEALTHCHECK":
            self.health = json.loads(rest.split(" CMD ", 1)[1])

    def run(self, line: str) -> None:
        """A shell line, as the image's user, in its own mount namespace: nothing stays mounted."""
        inside = {**self.passed, **self.arguments, **self.environment}
        where = shlex.quote(str(self.folder))
        mounts = [f"mount -t proc proc {where}/proc", f"mount --rbind /dev {where}/dev"]
        mounts.append(f"mount --bind /etc/resolv.conf {where}/etc/resolv.conf")
        for path in self.binds:
            at = self.folder / path.lstrip("/")
            if Path(path).is_dir():
                at.mkdir(parents=True, exist_ok=True)
            else:
                at.parent.mkdir(parents=True, exist_ok=True)
                at.touch()
            # Read-only, or a package's installation script in there would change this machine.
            mounts.append(f"mount --bind {shlex.quote(path)} {shlex.quote(str(at))}")
            mounts.append(f"mount -o remount,bind,ro {shlex.quote(str(at))}")
        shell = f"cd {self.place} && {line}"
        words = ["env", "-i", *(f"{k}={v}" for k, v in inside.items()), "/bin/sh", "-c", shell]
        chroot = f"exec chroot --userspec={self.user}:{self.user} {where} {shlex.join(words)}"
        (self.folder / "etc/resolv.conf").touch()
        say(f"+ {line}")
        began = time.monotonic()
        subprocess.run(["unshare", "--mount", "/bin/sh", "-ec", "\n".join([*mounts, chroot])], check=True)
        say(f"  {time.monotonic() - began:.0f} s")

    def _copy(self, source: Path, target: Path, into: bool) -> None:
        say(f"+ copy {source.name}")
        target = target / source.name if into else target
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            skip = shutil.ignore_patterns(*ignored(ROOT / "docker" / "Dockerfile.dockerignore"))
            shutil.copytree(source, target, ignore=skip, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)


def mirror() -> str:
    """Where this machine takes Debian's packages from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]


def main() -> None:
    """Make the base unless it stands, carry out the target's instructions, then its health check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="worker", choices=["controller", "worker"])
    parser.add_argument("--suite", default="bookworm", help="Debian's release in place of BASE_IMAGE")
    parser.add_argument("--bind", action="append", default=[], help="a path of this machine to show inside")
    parser.add_argument("--copy", action="append", default=[], help="a folder of this machine to copy in beforehand")
    parser.add_argument("--then", action="append", default=[], help="a shell line to run in the finished image")
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("chroot needs root")
    if not (given.folder / "etc").is_dir():
        command = ["debootstrap", "--variant=minbase", given.suite, str(given.folder), mirror()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for path in given.copy:
        shutil.copytree(path, given.folder / path.lstrip("/"), dirs_exist_ok=True)
    image = Image(given.folder, given.bind)
    for instruction in stage(read(ROOT / "docker" / "Dockerfile"), given.target):
        image.do(instruction)
    for line in given.then:
        image.run(line)
    say(f"health check: {shlex.join(image.health)}")


if __name__ == "__main__":
    main()
