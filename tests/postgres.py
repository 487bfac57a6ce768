"""A real PostgreSQL server for the tests, Debian's, in a temporary folder. The fixture `postgres` starts one a session.

It listens on 127.0.0.1 and on a unix socket, asks for passwords (scram) and writes through to the disk (fsync). The
passwords stand in a file that PGPASSFILE names, so that no URL holds one. A watcher stops the server and removes its
folder even when the tests are killed.
"""

import itertools
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import final

import psycopg

ADMIN, USER = "admin", "mergesearch"
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_connections": "on",
    "log_line_prefix": "%m [%p] %a ",
    "lc_messages": "C",
    "timezone": "UTC",
}
# Until the pipe closes, which a killed test session does too; then nothing of the server is left.
WATCH = (
    'cat >/dev/null; kill -QUIT "$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)" 2>/dev/null; sleep 0.5; rm -rf "$1"'
)


@final
class Server:
    """One server. `environment` lets a process log in to it; every URL is without a password."""

    def __init__(self) -> None:
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="ms-postgres-"))
        self._numbers = itertools.count()
        self.port = _free_port()
        self.passwords = {name: f"secret-{secrets.token_hex(8)}" for name in (ADMIN, USER)}
        self._watch = subprocess.Popen(
            ["sh", "-c", WATCH, "sh", str(self._folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            self._prepare()
            self.start()
            with self.admin() as connection:
                connection.execute(f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{self.passwords[USER]}'")
        except BaseException:
            self.close()
            raise

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to log in."""
        return {"PGPASSFILE": str(self._folder / "pgpass")}

    @property
    def pid(self) -> int:
        """The process that all others of the server come from. It changes with every start."""
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def url(self, database: str, *, user: str = USER, port: int = 0, options: str = "") -> str:
        """The store URL of a database, over TCP; `port`: that of a proxy."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}{'?' if options else ''}{options}"

    def socket_url(self, database: str) -> str:
        """The same, over the unix socket."""
        return f"postgresql://{USER}@/{database}?host={self._folder}/socket&port={self.port}"

    def new_database(self) -> str:
        """The name of a new, empty database that belongs to the tests' user."""
        name = f"studies_{next(self._numbers)}"
        with self.admin() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {USER}")
        return name

    @contextmanager
    def admin(self, database: str = "postgres") -> Iterator[psycopg.Connection]:
        """A connection that may do everything, each statement its own transaction."""
        password = self.passwords[ADMIN]
        head = {"host": "127.0.0.1", "port": self.port, "user": ADMIN, "dbname": database}
        with psycopg.connect(**head, password=password, autocommit=True) as connection:
            yield connection

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        options = f"-p {self.port} -k {self._folder}/socket -c listen_addresses=127.0.0.1"
        log = ("-l", str(self._folder / "data" / "server.log"))
        done = self._run("pg_ctl", "-D", self._data, *log, "-o", options, "-w", "-t", "60", "start")
        assert done.returncode == 0, f"PostgreSQL does not start: {done.stdout}\n{self.log()[-2000:]}"

    def stop(self) -> None:
        """Stop at once, as a power cut would: every connection breaks, the next start recovers."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "-t", "60", "stop")

    def restart(self) -> None:
        """Stop at once, and start."""
        self.stop()
        self.start()

    def log(self) -> str:
        """All that the server has logged since it was made."""
        path = self._folder / "data" / "server.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Stop, and remove every trace."""
        self.stop()
        self._watch.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _prepare(self) -> None:
        self._folder.chmod(0o755)
        for name in ("data", "socket"):
            (self._folder / name).mkdir(mode=0o700 if name == "data" else 0o755)
            _give_to_server(self._folder / name)
        lines = [f"*:*:*:{user}:{password}\n" for user, password in self.passwords.items()]
        passwords = self._folder / "pgpass"
        passwords.touch(mode=0o600)
        passwords.write_text("".join(lines))
        secret = self._folder / "socket" / "admin"
        secret.touch(mode=0o600)
        secret.write_text(self.passwords[ADMIN])
        _give_to_server(secret)
        head = ("-U", ADMIN, f"--pwfile={secret}", "--auth=scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync")
        done = self._run("initdb", "-D", self._data, *head)
        secret.unlink()
        assert done.returncode == 0, f"initdb failed: {done.stdout}"
        with (self._folder / "data" / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in SETTINGS.items())

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [str(self._programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        # Into a file: the server would keep a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, cwd="/", timeout=120
            )
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, output.read())


def _programs() -> Path:
    """The folder of Debian's newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert found, "these tests need PostgreSQL's server programs; install them with `make postgresql`"
    return found[-1].parent


def _give_to_server(path: Path) -> None:
    """PostgreSQL refuses to run as root, so its files are not root's."""
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
