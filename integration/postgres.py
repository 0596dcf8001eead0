"""A PostgreSQL of its own, on loopback.

PostgreSQL refuses to run as root, so there it runs as Debian's `postgres`. Nothing in it survives `stop`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from stack import processes
from stack.ports import free_port
from stack.processes import Process, StackError

PROGRAMS = Path("/usr/lib/postgresql")

OWNER, READER = "posthog", "flag_definitions_publisher"
# Development passwords: this server listens on loopback only.
OWNER_PASSWORD, READER_PASSWORD = "posthog-development", "reader-development"

# Durability is not what is tested; the buffers are small, for several may run beside each other.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "max_wal_size": "256MB",
    "autovacuum": "off",
}


def programs() -> Path:
    """Where the newest installed server's programs are."""
    found = [path for path in PROGRAMS.glob("*/bin") if (path / "postgres").exists()]
    if not found:
        raise StackError("PostgreSQL is not installed; run: make setup")
    return max(found, key=lambda path: float(path.parent.name))


def as_server_user() -> list[str]:
    """What comes before a command that must not run as root. It replaces itself by the command, so that the
    pid is the server's."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@dataclass
class Server:
    """One PostgreSQL. Also a context manager: start on enter, stop and remove on exit."""

    port: int = field(default_factory=free_port)
    directory: Path = Path()
    process: Process | None = None

    def __enter__(self) -> Server:
        self.directory = Path(tempfile.mkdtemp(prefix="flag-definitions-postgres-"))
        try:
            self._initialize()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        options = [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
        self.process = processes.start(
            "postgres",
            [*as_server_user(), programs() / "postgres", "-D", self._data, "-p", self.port, *options],
            self.directory,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connect("postgres").close()
                break
            except psycopg.OperationalError:
                if not self.process.alive() or time.monotonic() > deadline:
                    raise StackError(f"PostgreSQL did not start:\n{self.process.last_lines()}") from None
                time.sleep(0.05)
        if not self.process.alive():  # somebody else answered
            raise StackError(f"PostgreSQL did not start:\n{self.process.last_lines()}")

    def stop(self) -> None:
        """Ends all connections: PostgreSQL's fast shutdown."""
        if process := self.process:
            self.resume()  # a backend that is stopped would outlive it
            process.stop(first=signal.SIGINT)
            self.process = None

    def pause(self) -> None:
        """SIGSTOP to all of its processes: connections stay open, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def connect(self, name: str) -> psycopg.Connection:
        """As the owner of PostHog's tables. Each statement is a transaction of its own."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=OWNER,
            password=OWNER_PASSWORD,
            dbname=name,
            connect_timeout=15,
            autocommit=True,
        )

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _initialize(self) -> None:
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                raise StackError("PostgreSQL is not installed; run: make setup") from None
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        password_file = self.directory / "password"
        password_file.write_text(OWNER_PASSWORD)
        command = [*as_server_user(), str(programs() / "initdb"), "--pgdata", str(self._data)]
        command += ["--username", OWNER, "--auth", "scram-sha-256", "--pwfile", str(password_file)]
        command += ["--encoding", "UTF8", "--no-locale", "--no-sync"]
        result = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, check=False)
        if result.returncode != 0:
            raise StackError(f"initdb failed:\n{result.stderr.strip()}")
        self.start()
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE ROLE {READER} LOGIN PASSWORD '{READER_PASSWORD}'")

    def _signal_all(self, number: int) -> None:
        if self.process is None or not self.process.alive():
            return
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):  # a connection that ends meanwhile
                os.kill(pid, number)
