"""A stack that is up: what is in its Redis, and what its Envoy does."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from stack import processes, render
from stack.paths import SAMPLES
from stack.processes import Process, StackError
from stack.programs import require
from stack.settings import PUBLISHER_PASSWORD, Settings


@dataclass
class Running:
    """What can be asked of a stack and changed in it, whoever started its processes."""

    settings: Settings = field(default_factory=Settings)
    processes: dict[str, Process] = field(default_factory=dict)

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

    def _log(self, name: str) -> Path:
        return self.settings.run_dir / f"{name}.log"

    def _write(self, name: str, text: str) -> None:
        processes.replace(self.settings.run_dir / name, text)

    def _admin(self, page: str) -> bytes:
        status, body = self.http(f"{self.admin_url}/{page}", timeout=15)
        if status != 200:
            raise StackError(f"Envoy's admin interface does not answer. {self._last_words('envoy')}")
        return body

    def _last_words(self, name: str) -> str:
        path = self._log(name)
        return f"Its log is {path}, the last lines are:\n{processes.tail(path, 15)}"


def definitions_key(team_id: int) -> str:
    return f"posthog:1:cache/teams/{team_id}/feature_flags/flags_with_cohorts.json"
