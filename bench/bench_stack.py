"""The local stack with a listener for each way to answer, all on the same Envoy and the same worker."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import cpu
from paths import FILTERS, SERVICE
from stack.clusters import Cluster
from stack.launcher import Stack
from stack.ports import accepts_connections, free_port
from stack.programs import require, tool
from stack.render import webdis

Document = dict[str, Any]


class PlainStack(Stack):
    """The stack without the relay that logs in to Redis for webdis: it is slow, and would be what is
    measured. A webdis that can log in needs none. Envoy has a core of its own."""

    def start_envoy(self, wait_ready: bool = True) -> None:
        super().start_envoy(wait_ready)
        cpu.give_a_core(self.processes["envoy"].pid)

    def start_webdis(self) -> None:
        self._prepare()
        self._run_webdis("webdis", self.settings.webdis_port)
        self._wait_for("webdis", lambda: self.http(f"{self.webdis_url}/PING.raw")[0] == 200)

    def _run_webdis(self, name: str, port: int) -> None:
        settings = dataclasses.replace(self.settings, webdis_port=port)
        configuration = webdis(settings, settings.redis_port).replace("webdis.log", f"{name}.log")
        self._write(f"{name}.json", configuration)
        self._start(name, [tool("webdis"), f"{name}.json"])


# What stands behind Envoy beside the filter's webdis, by the name of its cluster. The one service asks Redis
# who may read, as PostHog's does; the other knows. The filter has a webdis that nobody hangs up on: when the
# load ends, requests through a plain route, and callouts that end with their request, break off, and webdis
# 0.1.9 then delivers replies to others.
PLAIN_WEBDIS = "plain_webdis"
SERVICES = ("service", "service_in_memory")


@dataclass
class BenchStack(PlainStack):
    """`listeners` makes each further listener from the one called `edge`."""

    listeners: dict[str, Callable[[Document], None]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    behind: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in (PLAIN_WEBDIS, *SERVICES)}
    )

    def __post_init__(self) -> None:
        clusters = tuple(
            Cluster("bench/cluster.yaml", {"NAME": name, "PORT": port}) for name, port in self.behind.items()
        )
        self.settings = dataclasses.replace(self.settings, clusters=clusters)
        self.ports["edge"] = self.settings.edge_port

    def url(self, listener: str) -> str:
        return f"http://127.0.0.1:{self.ports[listener]}"

    def start_envoy(self, wait_ready: bool = True) -> None:
        for name, port in self.behind.items():
            if name not in self.processes:
                self._start_behind(name, port)
        super().start_envoy(wait_ready)

    def _start_behind(self, name: str, port: int) -> None:
        settings = self.settings
        if name == PLAIN_WEBDIS:
            self._run_webdis(name, port)
        else:
            command: list[object] = [require(SERVICE, "make bench"), "--listen", f"127.0.0.1:{port}"]
            if name == "service_in_memory":
                command += ["--teams", settings.snapshot]
            redis = f"redis://127.0.0.1:{settings.redis_port}/"
            self._start(name, command, environment={"REDIS_URL": redis})
        self._wait_for(name, lambda: accepts_connections(port))

    def stop(self) -> None:
        for name in self.behind:
            if process := self.processes.pop(name, None):
                process.stop()
        super().stop()

    def add_listeners(self, more: dict[str, Callable[[Document], None]]) -> None:
        """Returns when Envoy listens on them. It leaves those that it has alone."""
        self.listeners |= more
        self.write_listeners(self.settings.config)
        self.wait_until(lambda: all(accepts_connections(self.ports[name]) for name in more))

    def write_listeners(self, config: Any) -> None:
        super().write_listeners(config)
        document = yaml.safe_load((self.settings.run_dir / "listeners.yaml").read_text())
        edge = next(listener for listener in document["resources"] if listener["name"] == "edge")
        for name, change in self.listeners.items():
            self.ports.setdefault(name, free_port())
            listener = copy.deepcopy(edge) | {"name": name}
            listener["address"]["socket_address"]["port_value"] = self.ports[name]
            connection_manager(listener)["stat_prefix"] = name
            change(listener)
            document["resources"].append(listener)
        self._write("listeners.yaml", yaml.safe_dump(document))


# === Ways to answer ===


def this_filter(config: Document) -> Callable[[Document], None]:
    """This filter with another plugin configuration."""

    def change(listener: Document) -> None:
        wasm = connection_manager(listener)["http_filters"][0]["typed_config"]["config"]
        wasm["configuration"]["value"] = json.dumps(config)

    return change


def other_module(wasm: Path) -> Callable[[Document], None]:
    """Another build of this filter, with shared data of its own."""

    def change(listener: Document) -> None:
        machine = connection_manager(listener)["http_filters"][0]["typed_config"]["config"]["vm_config"]
        machine["vm_id"] = "other_module"
        machine["code"]["local"]["filename"] = str(wasm)

    return change


def untouched_path(listener: Document) -> None:
    """All paths go through this filter, to Envoy's own 304."""
    del connection_manager(listener)["http_filters"][0]["disabled"]
    _answer_with(listener, {"direct_response": {"status": 304}})


def direct_response(status: int, body: Path | None = None) -> Callable[[Document], None]:
    """Envoy's own answer, without any filter."""

    def change(listener: Document) -> None:
        del connection_manager(listener)["http_filters"][0]
        _answer_with(listener, _direct(status, body))

    return change


def cluster(name: str) -> Callable[[Document], None]:
    """A plain route, without any filter."""

    def change(listener: Document) -> None:
        del connection_manager(listener)["http_filters"][0]
        _answer_with(listener, {"route": {"cluster": name}})

    return change


def no_op(status: int, body: Path | None = None) -> Callable[[Document], None]:
    """A filter that does nothing, in front of Envoy's own answer."""

    def change(listener: Document) -> None:
        connection_manager(listener)["http_filters"][0] = _bench_filter("")
        _answer_with(listener, _direct(status, body))

    return change


def reply_only(
    status: int,
    headers: list[tuple[str, str]],
    body: bytes = b"",
    host_calls: str = "none",
    callout: str | None = None,
    shipped_routes: bool = False,
    awaits_body: bool = False,
) -> Callable[[Document], None]:
    """A filter that sends this answer, or what webdis says to `callout`, and decides nothing; see
    bench/filters. It is on a route for all paths, or where this filter is: on the shipped ones."""

    def change(listener: Document) -> None:
        answer: Document = {"status": status, "headers": headers, "body": base64.b64encode(body).decode()}
        answer |= {"host_calls": host_calls, "awaits_body": awaits_body}
        if callout:
            answer["callout"] = {"cluster": PLAIN_WEBDIS, "body": callout}
        stand_in = _bench_filter(json.dumps(answer))
        filters = connection_manager(listener)["http_filters"]
        if shipped_routes:
            filters[0]["typed_config"] = stand_in["typed_config"]
        else:
            filters[0] = stand_in
            _answer_with(listener, _direct(404, None))

    return change


def connection_manager(listener: Document) -> Document:
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def _answer_with(listener: Document, action: Document) -> None:
    routes = connection_manager(listener)["route_config"]
    routes["max_direct_response_body_size_bytes"] = 1 << 20
    routes["virtual_hosts"][0]["routes"] = [{"match": {"prefix": "/"}} | action]


def _direct(status: int, body: Path | None) -> Document:
    return {"direct_response": {"status": status} | ({"body": {"filename": str(body)}} if body else {})}


def _bench_filter(configuration: str) -> Document:
    wasm = {
        "name": "bench",
        "root_id": "bench",
        # As of the shipped filter.
        "allow_on_headers_stop_iteration": True,
        "vm_config": {
            "vm_id": "bench",
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": str(require(FILTERS, "make bench"))}},
        },
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": configuration,
        },
    }
    kind = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
    return {"name": "bench", "typed_config": {"@type": kind, "config": wasm}}
