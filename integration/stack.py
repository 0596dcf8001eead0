"""The local stack: Redis, webdis (or a stand-in for Upstash) and Envoy with the filter, on loopback.

As a program it is behind `make run`, `make up` and `make down`; as a module, the tests start one per
need (`with Stack(Settings.on_free_ports()) as stack: ...`). All state and logs are in .run/<EDGE_PORT>/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certificate
import clusters
import processes
import redis
import render
from processes import Process, StackError
from settings import ROOT, SAMPLE_SNAPSHOT, SAMPLES, Settings, check_port_free

RELAY = ROOT / "integration/redis_login.py"
UPSTASH = ROOT / "integration/upstash.py"

# Development passwords; envoy/redis/users.acl holds their hashes. Redis listens on loopback only.
PUBLISHER_PASSWORD = "publisher-development"
FILTER_PASSWORD = "filter-development"
UPSTASH_TOKEN = "upstash-development"

READY_TIMEOUT = 60.0  # seconds
# Stopped in this order: those that ask before those that answer.
STOP_ORDER = ["envoy", "publisher", "publisher-2", "webdis", "upstash", "redis-login", "redis"]


@dataclass
class Stack:
    """Starts, changes and stops one stack. Also a context manager: start on enter, stop on exit."""

    settings: Settings = field(default_factory=Settings)
    processes: dict[str, Process] = field(default_factory=dict)
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
            if self.settings.watch:
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
            [sys.executable, UPSTASH, "--port", self.settings.webdis_port, "--certificate", "stand-in.pem"]
            + ["--redis-port", self.settings.redis_port, "--user", "flag_definitions_filter"]
            + ["--password-file", self._write_secret("upstash.password", FILTER_PASSWORD)]
            + ["--token-file", self._write_secret("upstash.expected", UPSTASH_TOKEN)],
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
        self._start(
            name,
            [require(settings.publisher), "watch", "--listen", monitor, *settings.watch_options],
            # Not among the arguments, which every local user can read: both hold a password.
            environment={"DATABASE_URL": settings.database_url, "REDIS_URL": self.publisher_url},
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

    # === What is in Redis ===

    @property
    def redis(self) -> redis.Redis:
        """A connection as Redis's default user, who may do everything in the local stack."""
        return redis.Redis(port=self.settings.redis_port, socket_timeout=20)

    @property
    def redis_name(self) -> int:
        return self.settings.redis_name or self.settings.redis_port

    @property
    def publisher_url(self) -> str:
        return f"redis://publisher:{PUBLISHER_PASSWORD}@127.0.0.1:{self.redis_name}/"

    def publish(self, document: Path | dict[str, Any], timeout: float = 60.0) -> None:
        """Publishes a source document: a file, or its content, which may be without teams."""
        options = []
        if isinstance(document, dict):
            options = [] if document.get("teams") else ["--allow-empty"]
            path = self.settings.run_dir / "published.json"
            path.write_text(json.dumps(document))
            document = path
        command = [require(self.settings.publisher), "publish", "--file", document, *options]
        result = subprocess.run(
            [*command, "--redis-url", self.publisher_url], capture_output=True, text=True, timeout=timeout
        )
        if result.returncode != 0:
            raise StackError(f"the publisher refused {document}:\n{result.stderr.strip()}")

    def seed_samples(self) -> None:
        for path in sorted((SAMPLES / "definitions").glob("*.json")):
            self.put_definitions(int(path.stem), json.loads(path.read_text()))

    def put_definitions(self, team_id: int, definitions: dict[str, Any]) -> str:
        """Stores a payload and its ETag the way PostHog's cache does. Returns the ETag."""
        text = json.dumps(definitions, sort_keys=True)
        etag = hashlib.sha256(text.encode()).hexdigest()[:16]
        key = definitions_key(team_id)
        self.redis.mset({key: text, f"{key}:etag": etag})
        return etag

    # === What Envoy does ===

    def write_listeners(self, config: render.PluginConfig) -> None:
        """Renders the listeners with this plugin configuration. A running Envoy picks them up."""
        self._write("listeners.yaml", render.listeners(self.settings, config))

    def change_config(self, config: render.PluginConfig, timeout: float = 30.0) -> bool:
        """Changes the plugin configuration over LDS; then it is in force for new connections to any worker.
        False when Envoy refused it (the old one stays)."""
        before = self.stats()

        def grown(name: str) -> int:
            return now["listener_manager." + name] - before["listener_manager." + name]

        self.write_listeners(config)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            now = self.stats()
            if grown("lds.update_rejected"):
                return False
            # Each worker is given each changed listener, and tells when it has it.
            given = grown("listener_modified") * self.settings.concurrency
            if grown("lds.update_success") and grown("listener_create_success") >= given:
                return True
            time.sleep(0.05)
        raise StackError(f"the new listeners were not in force within {timeout} s; see {self._log('envoy')}")

    def ready(self) -> bool:
        return self.http(f"{self.health_url}/ready")[0] == 200

    def stats(self) -> dict[str, int]:
        """Envoy's counters and gauges by their full names."""
        entries = json.loads(self._admin("stats?format=json"))["stats"]
        return {entry["name"]: entry["value"] for entry in entries if "name" in entry}

    def prometheus(self) -> str:
        return self._admin("stats/prometheus").decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels; 0 when there is none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in self.prometheus().splitlines():
            series, _, value = line.rpartition(" ")
            own, _, own_labels = series.partition("{")
            if own == name and all(label in own_labels.rstrip("}").split(",") for label in wanted):
                total += float(value)
        return total

    def log(self, name: str) -> str:
        path = self._log(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_until(self, true: Callable[[], bool], timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            if time.monotonic() > deadline:
                raise StackError(f"did not become true within {timeout} s; logs: {self.settings.run_dir}")
            time.sleep(0.05)

    def http(self, url: str, timeout: float = 5.0) -> tuple[int, bytes]:
        """GET for probes: the status and body, whatever the status; (0, b"") when nobody answers."""
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    @property
    def edge_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.edge_port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.admin_port}"

    @property
    def health_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.health_port}"

    @property
    def webdis_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.webdis_port}"

    # === Inside ===

    @property
    def _pids(self) -> Path:
        return self.settings.run_dir / "pids.json"

    def _log(self, name: str) -> Path:
        return self.settings.run_dir / f"{name}.log"

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

    def _write(self, name: str, text: str) -> None:
        processes.replace(self.settings.run_dir / name, text)

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

    def _admin(self, page: str) -> bytes:
        status, body = self.http(f"{self.admin_url}/{page}", timeout=15)
        if status != 200:
            raise StackError(f"Envoy's admin interface does not answer. {self._last_words('envoy')}")
        return body

    def _listeners_refused(self) -> bool:
        status, body = self.http(f"{self.admin_url}/stats?format=json&filter=lds.update_rejected")
        return status == 200 and any(entry.get("value") for entry in json.loads(body)["stats"])

    def _last_words(self, name: str) -> str:
        path = self._log(name)
        return f"Its log is {path}, the last lines are:\n{processes.tail(path, 15)}"


def definitions_key(team_id: int) -> str:
    return f"posthog:1:cache/teams/{team_id}/feature_flags/flags_with_cohorts.json"


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def clock_ahead(seconds: int, directory: Path) -> dict[str, str]:
    """The environment in which a program's wall clock is so many seconds ahead, or behind when negative."""
    library = directory / "clock.so"
    if not library.exists():
        command = [tool("cc"), "-shared", "-fPIC", "-O2", "-o", library, ROOT / "integration/clock.c"]
        subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(seconds)}


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise StackError(f"{name} is not installed; run: make setup")
    return path


def require(path: Path, remedy: str = "make build") -> Path:
    if not path.exists():
        raise StackError(f"{path} is missing; run: {remedy}")
    return path.resolve()


# === The program ===


def describe(stack: Stack) -> str:
    lines = [
        f"edge    {stack.edge_url}/flags/definitions",
        f"health  {stack.health_url}/ready  {stack.health_url}/health",
        f"admin   {stack.admin_url}/stats/prometheus",
        f"redis   127.0.0.1:{stack.settings.redis_port}",
        f"webdis  127.0.0.1:{stack.settings.webdis_port}",
        f"logs    {stack.settings.run_dir}",
    ]
    if stack.settings.snapshot == SAMPLE_SNAPSHOT:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        url = f"{stack.edge_url}/flags/definitions?token=phc_sample_team_one"
        curl = f"curl -i '{url}' -H 'Authorization: Bearer"
        lines += [
            "",
            "# 200: the definitions",
            f"{curl} phs_sample_team_one_secret'",
            "# 304: they have not changed",
            f"{curl} phs_sample_team_one_secret' -H 'If-None-Match: W/\"{etag}\"'",
            "# 401: a wrong secret",
            f"{curl} phs_wrong'",
        ]
    return "\n".join(lines)


def run(settings: Settings) -> None:
    """Foreground: until Ctrl-C, SIGTERM or the end of one of the processes."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    stack = Stack(settings)
    try:
        with stack:
            print(describe(stack), "", "Ctrl-C stops it all.", sep="\n", flush=True)
            while ended := [name for name, process in stack.processes.items() if process.alive()]:
                if len(ended) < len(stack.processes):
                    gone = ", ".join(stack.processes.keys() - set(ended))
                    raise StackError(f"{gone} ended; the logs are in {settings.run_dir}")
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)


def up(settings: Settings) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a half-started stack is stopped
    stack = Stack(settings)
    stack.start()
    print(describe(stack))


def down(settings: Settings) -> None:
    stack = Stack.running(settings)
    if not stack.processes:
        print(f"nothing is running for EDGE_PORT={settings.edge_port}")
    stack.stop()


def status(settings: Settings) -> None:
    stack = Stack.running(settings)
    for process in stack.processes.values():
        print(f"{process.name:12} pid {process.pid}")
    print("ready" if stack.ready() else "not ready")
    sys.exit(0 if stack.ready() else 1)


def main() -> None:
    commands = {"run": run, "up": up, "down": down, "status": status}
    parser = argparse.ArgumentParser(
        description="The local stack: Redis, webdis and Envoy with the filter, on loopback.",
        epilog="Settings come from the environment: EDGE_PORT ADMIN_PORT HEALTH_PORT REDIS_PORT "
        "WEBDIS_PORT SNAPSHOT CONFIG UPSTREAM CONCURRENCY WATCH DATABASE_URL.",
    )
    parser.add_argument("command", choices=commands)
    command = parser.parse_args().command
    try:
        commands[command](Settings.from_environment(dict(os.environ)))
    except StackError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
