"""What may differ between two local stacks, and how the variables of the Makefile become that."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stack.clusters import Cluster
from stack.paths import PUBLISHER, ROOT, SAMPLE_SNAPSHOT, WASM
from stack.ports import free_port
from stack.processes import StackError

# With these the publisher hears of a new ETag at once: strings that were set, removed, expired or evicted.
KEYSPACE_EVENTS = "K$gxe"

# Development passwords; envoy/redis/users.acl holds their hashes. Redis listens on loopback only.
PUBLISHER_PASSWORD = "publisher-development"
FILTER_PASSWORD = "filter-development"
UPSTASH_TOKEN = "upstash-development"


@dataclass(frozen=True)
class Settings:
    """What may differ between two stacks. Every port is on 127.0.0.1."""

    edge_port: int = 10000
    admin_port: int = 9901
    health_port: int = 10001
    redis_port: int = 16379
    webdis_port: int = 17379  # of the gateway, whichever it is
    redis_name: int | None = None  # the port under which webdis and the publisher find Redis; None: its own
    snapshot: Path | None = SAMPLE_SNAPSHOT  # None: publish nothing
    gateway: Literal["webdis", "upstash"] = "webdis"  # what speaks HTTP in front of Redis
    clusters: tuple[Cluster, ...] = ()  # further ones of Envoy
    environment: dict[str, str] = field(default_factory=dict)  # what Envoy has besides the launcher's
    config: dict[str, Any] | str | None = None  # a string is used as it is; None: LOCAL_CONFIG
    upstream: str | None = None  # host:port
    flagsmith_config: Path | None = (
        None  # a Flagsmith Edge Proxy configuration file, which the publisher follows
    )
    flagsmith_upstream: str | None = None  # host:port behind the filter on Flagsmith's paths
    flagd_uri: str | None = None  # flagd's definitions, separated by spaces, which the publisher follows
    ofrep_upstream: str | None = None  # host:port behind the filter on OFREP's paths
    concurrency: int = 2
    wasm: Path = WASM
    publisher: Path = PUBLISHER
    envoy: Path = ROOT / ".venv/bin/envoy"
    callout_timeout: str | None = None  # where the plugin configuration has none; None: the filter's default
    idle_timeout: str | None = None  # of a request that waits, instead of the listener's own
    log_level: str = "info"  # of the filter; Envoy itself logs warnings
    durable: bool = False  # Redis keeps what it acknowledged when it is restarted or killed
    drain_seconds: int = 600  # how long Envoy lets go on what a new listener or a drain replaces
    watch: bool = False  # the publisher watches the database; `snapshot` is not published then
    database_url: str = ""  # holds a password: never shown
    watch_options: tuple[str, ...] = ()  # further ones of `flag-definitions-publisher watch`
    notify_keyspace_events: str = ""  # of Redis: what it tells of changed keys, in its own letters
    clocks: dict[str, int] = field(default_factory=dict)  # process → seconds that its wall clock is ahead

    publisher_port: int = 9105  # /metrics and /healthz of a publisher that watches

    PORTS = ("edge_port", "admin_port", "health_port", "redis_port", "webdis_port")

    @property
    def follows(self) -> bool:
        """Whether the publisher watches anything."""
        return self.watch or bool(self.flagsmith_config or self.flagd_uri)

    @property
    def run_dir(self) -> Path:
        return ROOT / ".run" / str(self.edge_port)

    @classmethod
    def on_free_ports(cls, **settings: Any) -> Settings:
        """Settings with ports that nobody listened on a moment ago, and callouts with time enough on a busy
        machine: what is answered must not depend on how soon Redis gets its turn."""
        ports = {name: free_port() for name in (*cls.PORTS, "publisher_port")}
        return cls(**({"callout_timeout": "1s"} | ports | settings))

    @classmethod
    def from_environment(cls, env: dict[str, str]) -> Settings:
        """Reads the variables that `make help` lists. An empty variable counts as not set."""
        settings: dict[str, Any] = {}
        for name in (*cls.PORTS, "publisher_port", "concurrency"):
            if text := env.get(name.upper()):
                settings[name] = whole_number(name.upper(), text)
        if read_switch("WATCH", env.get("WATCH")):
            settings |= watched(env)
        elif snapshot := env.get("SNAPSHOT"):
            settings["snapshot"] = SAMPLE_SNAPSHOT if snapshot == "samples" else Path(snapshot).resolve()
        if config := env.get("CONFIG"):
            settings["config"] = config if config.lstrip().startswith("{") else read_config(config)
        if flagsmith := env.get("FLAGSMITH_CONFIG"):
            settings["flagsmith_config"] = Path(flagsmith).resolve()
        if flagd := (env.get("FLAGD_URI") or "").strip():
            settings["flagd_uri"] = from_here(flagd)
        for name in ("UPSTREAM", "FLAGSMITH_UPSTREAM", "OFREP_UPSTREAM"):
            if upstream := env.get(name):
                split_host_port(name, upstream)  # complain now, not after Redis was started
                settings[name.lower()] = upstream
        return cls(**settings)


def read_switch(name: str, text: str | None) -> bool:
    if text not in (None, "", "0", "1"):
        raise StackError(f"{name}={text}: expected 1, or 0")
    return text == "1"


def from_here(uris: str) -> str:
    """The same URIs, with files that another process finds in its own folder."""
    relative = re.compile(r"(?<!\S)file:(?!/)(?=\S)")
    return relative.sub(lambda _: f"file:{Path.cwd()}/", uris)


def watched(env: dict[str, str]) -> dict[str, Any]:
    """The settings of a stack whose publisher watches a database."""
    url = env.get("DATABASE_URL")
    if not url:
        raise StackError(
            "WATCH=1 watches PostHog's database: set DATABASE_URL=postgresql://user:password@host:port/database"
        )
    if env.get("SNAPSHOT"):
        raise StackError("WATCH=1 publishes what is in DATABASE_URL: leave SNAPSHOT out")
    return {
        "watch": True,
        "database_url": url,
        "snapshot": None,
        "notify_keyspace_events": KEYSPACE_EVENTS,
    }


def split_host_port(name: str, upstream: str) -> tuple[str, int]:
    """Host and port of the variable's value."""
    host, _, port = upstream.rpartition(":")
    if not host:
        raise StackError(f"{name}={upstream}: expected host:port")
    return host.strip("[]"), whole_number(name, port)


def whole_number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise StackError(f"{name}={text}: expected a number from 1 to 65535")
    return int(text)


def read_config(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise StackError(f"CONFIG={path}: {error.strerror}") from None
