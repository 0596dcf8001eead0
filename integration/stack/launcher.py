"""Starts and stops the local stack: Redis, webdis (or a stand-in for Upstash) and Envoy with the filter.

The tests start one per need (`with Stack(Settings.on_free_ports()) as stack: ...`). All state and logs are in
.run/<EDGE_PORT>/.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from stack import certificate, clusters, processes, render
from stack.paths import INTEGRATION, SAMPLE_SNAPSHOT
from stack.ports import accepts_connections, check_port_free
from stack.processes import StackError
from stack.programs import clock_ahead, require, tool
from stack.running import Running
from stack.settings import FILTER_PASSWORD, UPSTASH_TOKEN, Settings

RELAY = INTEGRATION / "stack/redis_login.py"

READY_TIMEOUT = 60.0  # seconds
# Stopped in this order: those that ask before those that answer.
STOP_ORDER = ["envoy", "publisher", "publisher-2", "webdis", "upstash", "redis-login", "redis"]


@dataclass
class Stack(Running):
    """Starts, changes and stops one stack. Also a context manager: start on enter, stop on exit."""

    login_port: int = 0  # where the relay listens

    # === The whole ===

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is None:  # after a failure the logs are wanted
            shutil.rmtree(self.settings.run_dir, ignore_errors=True)

    def start(self) -> None:
        """Starts everything, or nothing: what was started before a failure is stopped again."""
        with self.all_or_nothing():
            self.start_redis()
            self.start_gateway()
            if self.settings.follows:
                self.start_publisher()
            elif self.settings.snapshot:
                self.publish(self.settings.snapshot)
            if self.settings.snapshot == SAMPLE_SNAPSHOT:
                self.seed_samples()
            self.start_envoy()

    def stop(self) -> None:
        for name in STOP_ORDER:
            if process := self.processes.pop(name, None):
                process.stop()
        self._pids.unlink(missing_ok=True)

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        self._prepare()  # outside: when another stack is in the way, there is nothing to stop
        try:
            yield
        except BaseException:
            self.stop()
            raise

    @classmethod
    def running(cls, settings: Settings) -> Stack:
        """The stack that an earlier `up` left running. Processes that have ended are not in it."""
        stack = cls(settings)
        recorded = processes.load(stack._pids)
        stack.processes = {process.name: process for process in recorded if process.alive()}
        return stack

    # === The parts ===

    def start_redis(self) -> None:
        self._prepare()
        self._write("users.acl", render.redis_users())
        self._start(
            "redis",
            [tool("redis-server"), "--port", self.settings.redis_port, "--bind", "127.0.0.1"]
            + ["--save", "", "--appendonly", "yes" if self.settings.durable else "no"]
            + ["--appendfsync", "always", "--aclfile", "users.acl"]
            + ["--notify-keyspace-events", self.settings.notify_keyspace_events],
        )
        self._wait_for("redis", lambda: bool(self.redis.ping()))

    def start_gateway(self) -> None:
        """Starts what speaks HTTP in front of Redis: webdis or the stand-in for Upstash."""
        {"webdis": self.start_webdis, "upstash": self.start_upstash}[self.settings.gateway]()

    def start_webdis(self) -> None:
        self._prepare()
        if "redis-login" not in self.processes:
            password = self._write_secret("redis-login.password", FILTER_PASSWORD)
            # The relay inherits the listening socket, so nobody can take its port in between.
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.login_port = listener.getsockname()[1]
                self._start(
                    "redis-login",
                    [sys.executable, RELAY, "--listen-fd", listener.fileno()]
                    + ["--redis-port", self.redis_name]
                    + ["--user", "flag_definitions_filter", "--password-file", password],
                    pass_fds=[listener.fileno()],
                )
        self._write("webdis.json", render.webdis(self.settings, self.login_port))
        self._start("webdis", [tool("webdis"), "webdis.json"])
        self._wait_for("webdis", self._webdis_answers)

    def start_upstash(self) -> None:
        self._prepare()
        run_dir = self.settings.run_dir
        if not (run_dir / "stand-in.pem").exists():
            certificate.create(run_dir)
            self.write_upstash_token(UPSTASH_TOKEN)
        self._start(
            "upstash",
            [sys.executable, "-m", "stack.upstash"]
            + ["--port", self.settings.webdis_port, "--certificate", "stand-in.pem"]
            + ["--redis-port", self.settings.redis_port, "--user", "flag_definitions_filter"]
            + ["--password-file", self._write_secret("upstash.password", FILTER_PASSWORD)]
            + ["--token-file", self._write_secret("upstash.expected", UPSTASH_TOKEN)],
            environment={"PYTHONPATH": str(INTEGRATION)},
        )
        self._wait_for("upstash", lambda: accepts_connections(self.settings.webdis_port))

    def write_upstash_token(self, token: str) -> None:
        """Gives Envoy the token that it sends to the gateway. A running Envoy picks it up."""
        token_file = self._write_secret("upstash.token", token)
        self._write("upstash-secret.yaml", render.upstash_secret(self.settings, token_file))

    def start_publisher(self, name: str = "publisher", wait: bool = True) -> None:
        """Starts a publisher that watches the database; with `wait` returns when there is a snapshot. One of
        another name is a second one beside it."""
        self._prepare()
        settings = self.settings
        monitor = f"127.0.0.1:{settings.publisher_port}" if name == "publisher" else "off"
        sources: list[object] = []
        if settings.flagsmith_config:
            sources += ["--flagsmith-config", settings.flagsmith_config]
        if not settings.watch and settings.snapshot:
            sources += ["--file", settings.snapshot]
        # Not among the arguments, which every local user can read: each may hold a password.
        environment = {"REDIS_URL": self.publisher_url}
        if settings.flagd_uri:
            environment["FLAGD_URI"] = settings.flagd_uri
        if settings.watch:
            environment["DATABASE_URL"] = settings.database_url
        self._start(
            name,
            [require(settings.publisher), "watch", "--listen", monitor, *sources, *settings.watch_options],
            environment=environment,
        )
        if wait:
            self._wait_for(name, lambda: bool(self.redis.exists("flag_definitions:snapshot")))

    def start_envoy(self, wait_ready: bool = True) -> None:
        """Starts Envoy; with `wait_ready` returns when the filter has its first snapshot."""
        self._prepare()
        settings = self.settings
        require(settings.wasm)
        more = list(settings.clusters)
        if settings.gateway == "upstash":
            trusted_ca, secret = settings.run_dir / "stand-in.pem", settings.run_dir / "upstash-secret.yaml"
            more.append(clusters.upstash(settings.webdis_port, trusted_ca, secret))
        self._write("bootstrap.yaml", render.bootstrap(settings, *more))
        self.write_listeners(settings.config)
        self._start(
            "envoy",
            [require(settings.envoy, "make setup"), "--config-path", "bootstrap.yaml"]
            # Hot restart would tie Envoy to the shell that launched it, and two stacks to each other.
            + ["--disable-hot-restart", "--concurrency", settings.concurrency]
            + ["--drain-time-s", settings.drain_seconds]
            + ["--log-level", "warning", "--component-log-level", f"wasm:{settings.log_level}"],
            environment=settings.environment,
        )
        if wait_ready:
            self._wait_for("envoy", self.ready)
        else:
            self._wait_for("envoy", lambda: self.http(f"{self.admin_url}/ready")[0] == 200)

    def restart(self, name: str) -> None:
        """Starts a part that was stopped or killed. Redis comes back empty unless it is durable."""
        if name in self.processes:
            self.processes.pop(name).stop()
        starts = {"redis": self.start_redis, "envoy": self.start_envoy}
        starts |= {"webdis": self.start_webdis, "upstash": self.start_upstash}
        starts |= {"publisher": self.start_publisher}
        starts[name]()

    def stop_part(self, name: str) -> None:
        """Stops one of `redis`, `webdis`, `upstash`, `publisher`, `envoy`; `restart` brings it back."""
        self.processes.pop(name).stop()

    def pause(self, name: str) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self.processes[name].signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT. Returns when webdis has said what it owed to those who gave up: 0.1.9 may say that to
        whoever asks next."""
        self.processes[name].signal(signal.SIGCONT)
        if name in ("webdis", "redis") and "webdis" in self.processes:
            deadline = time.monotonic() + 10
            while not self._webdis_answers() and time.monotonic() < deadline:
                time.sleep(0.05)

    # === Inside ===

    @property
    def _pids(self) -> Path:
        return self.settings.run_dir / "pids.json"

    def _prepare(self) -> None:
        """Before the first process: nobody is there yet, and the run directory is new."""
        if self.processes:
            return
        settings = self.settings
        if Stack.running(settings).processes:
            port = settings.edge_port
            raise StackError(f"EDGE_PORT={port} is already up; stop it with: make down EDGE_PORT={port}")
        for name in settings.PORTS:
            check_port_free(name.upper(), getattr(settings, name))
        shutil.rmtree(settings.run_dir, ignore_errors=True)
        settings.run_dir.mkdir(parents=True)

    def _write_secret(self, name: str, text: str) -> Path:
        path = self.settings.run_dir / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def _start(
        self,
        name: str,
        command: list[object],
        pass_fds: tuple[int, ...] | list[int] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        run_dir = self.settings.run_dir
        if ahead := self.settings.clocks.get(name, 0):
            environment = (environment or {}) | clock_ahead(ahead, run_dir)
        self.processes[name] = processes.start(name, command, run_dir, pass_fds, environment)
        # At once: `down` must find it even when this launcher is killed in the next moment.
        processes.save(self._pids, list(self.processes.values()))

    def _wait_for(self, name: str, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < deadline:
            try:
                if answers():
                    return
            except (redis.ConnectionError, redis.TimeoutError):
                pass
            if not self.processes[name].alive():
                raise StackError(f"{name} ended at once. {self._last_words(name)}")
            if name == "envoy" and self._listeners_refused():
                raise StackError(f"Envoy refused the listeners. {self._last_words(name)}")
            time.sleep(0.05)
        raise StackError(f"{name} was not ready after {READY_TIMEOUT:.0f} s. {self._last_words(name)}")

    def _webdis_answers(self) -> bool:
        """Each of its threads has connections of its own to Redis; clients are given to them in turn."""
        ping = f"{self.webdis_url}/PING.raw"
        return all(self.http(ping, timeout=2) == (200, b"+PONG\r\n") for _ in range(8))

    def _listeners_refused(self) -> bool:
        status, body = self.http(f"{self.admin_url}/stats?format=json&filter=lds.update_rejected")
        return status == 200 and any(entry.get("value") for entry in json.loads(body)["stats"])


@contextmanager
def kept_for_a_look(stack: Stack) -> Iterator[Stack]:
    """Stops it in any case, and removes its logs when all went well."""
    passed = False
    try:
        yield stack
        passed = True
    finally:
        stack.stop()
        if passed:
            shutil.rmtree(stack.settings.run_dir, ignore_errors=True)
