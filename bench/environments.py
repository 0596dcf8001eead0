"""Very many Flagsmith environments through two workers: whether all stay kept where they should, what
happens where there is no room for all, and how soon a changed document is served by every worker.

Turns of event loops above 5 ms are counted, with one request at a time for each worker. Writes "environments"
and "flagsmith_change_seconds" into bench/results.json.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import http.client
import json
import os
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import cpu
import flagsmith_subjects
import results
from command import measuring, positive
from models.flagsmith.followed import FLAGS
from models.flagsmith.upstream import Upstream, running, write_configuration
from models.posthog.watching import percentile
from stack.launcher import Stack
from stack.processes import StackError
from stack.render import built_in_config
from stack.settings import Settings
from turns import WORKERS, TimedStack, one_to_each_worker

SIZE = 50_000  # bytes of a document's text
MANY, TOO_MANY = 1_000, 3_000
DOCUMENTS_BYTES = 64 << 20  # for `MANY`; less in proportion with --quick
VARIETY = 20  # documents that differ in more than a value
PASSES = 3  # in which each worker is asked for each environment, after the first one
NEVER = 86_400  # seconds: no poll but the first one
PUBLISHED = 240.0  # seconds until all documents are in Redis
MEGABYTE = 1 << 20
CHANGED_AT_ONCE = 10  # environments
MARK = "mark"  # the feature that tells environments and versions apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--changes", type=positive, default=100, help="timed, in tens (100)")
    parser.add_argument(
        "--quick", action="store_true", help="whether it works, with a tenth of all; written to .run/bench"
    )
    options = parser.parse_args()
    share, changes = (10, 20) if options.quick else (1, options.changes)
    room = DOCUMENTS_BYTES // share
    figures: dict[str, Any] = {
        "environment": {
            "command": "make bench-environments",
            "cores": os.cpu_count(),
            "documents_bytes": room,
            "envoy_workers": WORKERS,
            "machine": platform.machine(),
        }
    }
    with measuring() as directory:
        for environments in (MANY // share, TOO_MANY // share):
            figures[f"{environments}_of_50_kb"] = capacity(environments, room, directory)
        delays = change_seconds(changes, directory)
    told = {"p50": percentile(delays, 50), "p99": percentile(delays, 99), "changes": len(delays)}
    print(f"a change is served by every worker after {told['p50']:.2f} s (p50), {told['p99']:.2f} s (p99)")
    written = {"environments": figures, "flagsmith_change_seconds": told}
    results.write(written, proves=not options.quick)


# === Documents ===


def text(document: dict[str, Any]) -> str:
    """As the publisher writes it."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def document_of_size(size: int, seed: int) -> dict[str, Any]:
    """The recorded environment's features, segments and overrides again and again, under other names, up to
    about so many bytes."""
    model, random = flagsmith_subjects.document(), Random(seed)
    made = copy.deepcopy(model)
    length = len(text(made))
    for turn in count(1):
        names = {
            state["feature"]["name"]: f"{state['feature']['name']}_{random.randbytes(4).hex()}"
            for state in model["feature_states"]
        }
        for member in ("feature_states", "segments", "identity_overrides"):
            target = made["project"] if member == "segments" else made
            for one in (model["project"] if member == "segments" else model)[member]:
                other = renamed(one, turn, names, random)
                if length + len(text(other)) > size:
                    return made
                target[member].append(other)
                length += len(text(other)) + 1
    raise AssertionError


def renamed(one: dict[str, Any], turn: int, names: dict[str, str], random: Random) -> dict[str, Any]:
    """The same with ids of its own, of a feature, a segment or an identity."""
    other: dict[str, Any] = copy.deepcopy(one)
    if "rules" in other:
        other |= {"id": other["id"] + 1_000 * turn, "name": f"{other['name']} {random.randbytes(6).hex()}"}
    if "identifier" in other:
        other["identifier"] += f"-{random.randbytes(8).hex()}"
    states = other.get("identity_features", other.get("feature_states", [other]))
    for state in states:
        feature = state["feature"]
        state["feature"] = feature | {"id": feature["id"] + 1_000 * turn, "name": names[feature["name"]]}
        state["featurestate_uuid"] = random.randbytes(16).hex()
        if state.get("django_id") is not None:
            state["django_id"] += 10_000 * turn
    return other


def marked(document: dict[str, Any], key: str, mark: str) -> dict[str, Any]:
    """The document of an environment with this client-side key, which says so."""
    first = document["feature_states"][0]
    state = first | {
        "feature": {"id": 999_999, "name": MARK, "type": "STANDARD"},
        "feature_state_value": mark,
    }
    return document | {"api_key": key, "feature_states": [*document["feature_states"], state]}


def client_key(number: int) -> str:
    return f"pub.environment.{number:05}"


def server_key(number: int) -> str:
    return f"ser.environment.{number:05}"


# === The stack ===


@contextlib.contextmanager
def stack_of(upstream: Upstream, environments: int, poll: int, room: int, directory: Path) -> Iterator[Stack]:
    """Returns when all documents are in Redis."""
    pairs = {server_key(number): client_key(number) for number in range(environments)}
    with running(upstream):
        followed = upstream.configuration(pairs, api_poll_frequency_seconds=poll, api_poll_timeout_seconds=60)
        config = write_configuration(directory / "edge.json", followed)
        settings = Settings.on_free_ports(
            concurrency=WORKERS, log_level="error", snapshot=None, flagsmith_config=config
        )
        plugin = built_in_config(settings) | {"posthog": {"enabled": False}}
        plugin["flagsmith"]["documents_bytes"] = room
        with TimedStack(replace(settings, config=plugin)) as stack:
            pattern = "flag_definitions:flagsmith:*"
            stack.wait_until(
                lambda: len(list(stack.redis.scan_iter(pattern, 1_000))) >= environments, PUBLISHED
            )
            yield stack


def mark_of(connection: http.client.HTTPConnection, number: int) -> tuple[int, str]:
    """Status, and how the environment is marked."""
    fields = {flagsmith_subjects.KEY_HEADER: client_key(number), "Accept-Encoding": "identity"}
    connection.request("GET", f"{FLAGS}?feature={MARK}", headers=fields)
    answer = connection.getresponse()
    body = answer.read()
    return answer.status, json.loads(body)["feature_state_value"] if answer.status == 200 else ""


# === Capacity ===


def callouts_of(stack: Stack) -> float:
    return stack.metric("flag_definitions_callouts_total", store="documents")


def capacity(environments: int, room: int, directory: Path) -> dict[str, float]:
    """What happens when each worker is asked for all environments in turn: for those that do not fit, the
    worst order there is. Fails when an answer is another environment's, or no answer at all."""
    models = [document_of_size(SIZE, seed) for seed in range(min(VARIETY, environments))]
    documents = {
        server_key(number): marked(models[number % len(models)], client_key(number), f"environment {number}")
        for number in range(environments)
    }
    with stack_of(Upstream(documents), environments, NEVER, room, directory) as stack:
        connections = one_to_each_worker(stack)
        envoy = stack.processes["envoy"].pid
        began, before = time.monotonic(), stack.turns()
        one_pass(connections, environments)
        warm, rss, callouts = stack.turns(), cpu.rss_bytes(envoy), callouts_of(stack)
        took = [milliseconds for _ in range(PASSES) for milliseconds in one_pass(connections, environments)]
        after = stack.turns()
        figures = {
            "bytes_of_a_document": len(text(documents[server_key(0)]).encode()),
            "callouts_when_warm": (callouts_of(stack) - callouts) / len(took),
            "rss_warm_mb": rss / MEGABYTE,
            "growth_mb": (cpu.rss_bytes(envoy) - rss) / MEGABYTE,
            "p99_ms": percentile(took, 99),
            "longest_ms": max(took),
            "warming": warm.since(before),
            "warm": after.since(warm),
        }
        for connection in connections:
            connection.close()
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    print(f"{environments} environments ({time.monotonic() - began:.0f} s): {shown}", flush=True)
    return shown


def one_pass(connections: list[http.client.HTTPConnection], environments: int) -> list[float]:
    """Milliseconds of all requests. All workers are asked at once."""

    def ask_all(connection: http.client.HTTPConnection) -> list[float]:
        took = []
        for number in range(environments):
            began = time.monotonic()
            status, mark = mark_of(connection, number)
            took.append((time.monotonic() - began) * 1_000)
            if (status, mark) != (200, f"environment {number}"):
                raise StackError(f"environment {number} was answered with {status} {mark!r}")
        return took

    with ThreadPoolExecutor(len(connections)) as pool:
        return [one for took in pool.map(ask_all, connections) for one in took]


# === Changes ===


class Documents(dict[str, dict[str, Any]]):
    """Knows when a mark was handed over first."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[str, float] = {}

    def get(self, key: str, default: Any = None) -> Any:
        document = super().get(key, default)
        if document:
            self.read.setdefault(document["feature_states"][-1]["feature_state_value"], time.monotonic())
        return document


def change_seconds(changes: int, directory: Path) -> list[float]:
    """From when the publisher is handed a changed document to when the last worker answers with it."""
    documents, random, delays = Documents(), Random(1), []
    model = document_of_size(SIZE, 1)

    def change(number: int, mark: str) -> None:
        documents[server_key(number)] = marked(model, client_key(number), mark)

    for number in range(CHANGED_AT_ONCE):
        change(number, f"{number} at first")
    room = DOCUMENTS_BYTES
    with stack_of(Upstream(documents), CHANGED_AT_ONCE, 1, room, directory) as stack:
        connections = one_to_each_worker(stack)
        while len(delays) < changes:
            expected = {number: f"{number} after {len(delays)}" for number in range(CHANGED_AT_ONCE)}
            for number, mark in expected.items():
                time.sleep(random.random() / CHANGED_AT_ONCE)
                change(number, mark)
            seen = served(connections, expected)
            delays += [seen[number] - documents.read[mark] for number, mark in expected.items()]
        for connection in connections:
            connection.close()
    return delays


def served(connections: list[http.client.HTTPConnection], expected: dict[int, str]) -> dict[int, float]:
    """When the last worker answered with what is expected."""
    waiting = {(connection, number) for connection in connections for number in expected}
    seen: dict[int, float] = {}
    deadline = time.monotonic() + 30
    while waiting:
        for connection, number in sorted(waiting, key=lambda one: one[1]):
            status, mark = mark_of(connection, number)
            if status != 200:
                raise StackError(f"environment {number} was answered with {status}")
            if mark == expected[number]:
                seen[number] = time.monotonic()
                waiting.discard((connection, number))
        if time.monotonic() > deadline:
            raise StackError(f"{len(waiting)} changes were not served")
        time.sleep(0.005)
    return seen


if __name__ == "__main__":
    main()
