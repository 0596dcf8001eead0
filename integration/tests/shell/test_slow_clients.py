"""Clients that take their answers slowly, or not at all."""

from __future__ import annotations

import json
import re
import socket
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.posthog import writers
from models.posthog.endpoint import State, Team, etag_of, stored_text
from stack.edge import UNLIMITED, Answer, Client, Crowd, authenticated_get, in_background
from stack.launcher import Stack
from stack.render import PluginConfig

LARGE = Team(7101, "phc_large", None, "phs_large")
LARGER = Team(7103, "phc_larger", None, "phs_larger")
SMALL = Team(7102, "phc_small", None, "phs_small")


def text_of(flags: int) -> str:
    return stored_text({"flags": [{"key": f"flag-{n}", "id": n} for n in range(flags)], "cohorts": {}})


TEXT = text_of(115_000)  # 4 MB, and longer than what is compressed
LONGER_TEXT = text_of(225_000)  # 8 MB
TEXTS = {LARGE.id: TEXT, LARGER.id: LONGER_TEXT, SMALL.id: text_of(1)}
STATE = State(teams=[LARGE, LARGER, SMALL], texts=TEXTS)
HEAP = 402_653_184  # bytes: max_heap_size_bytes of envoy/bootstrap.yaml
# Seconds after which a client that takes nothing is cut (TCP_USER_TIMEOUT), and more: the kernel looks when
# it probes the window, less and less often.
CUT_AFTER = 20.0
RATE = 500_000  # bytes a second of a client that is slow


@dataclass
class OrdinaryStack(Stack):
    """The same Envoy without what is against clients that do not read."""

    def _write(self, name: str, text: str) -> None:
        if name == "bootstrap.yaml":
            document = yaml.safe_load(text)
            del document["overload_manager"]
            text = yaml.safe_dump(document)
        super()._write(name, text)

    def write_listeners(self, config: PluginConfig) -> None:
        super().write_listeners(config)
        document = yaml.safe_load((self.settings.run_dir / "listeners.yaml").read_text())
        (edge,) = [listener for listener in document["resources"] if listener["name"] == "edge"]
        # A kernel that remembers fast connections to a place would take a whole answer off Envoy.
        edge["socket_options"] = [{"level": 1, "name": 7, "int_value": 65536, "state": "STATE_LISTENING"}]
        manager = edge["filter_chains"][0]["filters"][0]["typed_config"]
        for name in ("common_http_protocol_options", "drain_timeout", "delayed_close_timeout"):
            del manager[name]
        self._write("listeners.yaml", yaml.safe_dump(document))


@contextmanager
def stack_of(kind: type[Stack] = Stack, **config: Any) -> Iterator[Stack]:
    with writers.stack_with(STATE, kind=kind, **UNLIMITED, **config) as stack:
        # Each worker keeps the body, so that the filter never is what takes long.
        Crowd(stack, 16, ask(LARGE)).answers()
        yield stack


def ask(team: Team, *headers: bytes) -> bytes:
    request = authenticated_get(f"?token={team.token}".encode(), team.secret or "")
    return b"\r\n".join([request.removesuffix(b"\r\n\r\n"), *headers, b"", b""])


def allocated(stack: Stack) -> int:
    """Bytes of Envoy's heap that are in use; what was freed may stay resident."""
    return int(json.loads(stack.http(f"{stack.admin_url}/memory")[1])["allocated"])


def memory(stack: Stack) -> int:
    """Resident bytes of Envoy."""
    status = Path(f"/proc/{stack.processes['envoy'].pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@dataclass
class Watched:
    """What was seen while clients did not read."""

    peak: int = 0  # bytes of memory beyond what there was before
    end: int = 0  # of its heap
    statuses: Counter[int] = None  # type: ignore[assignment]


def watch(stack: Stack, clients: int, seconds: float, at_once: int = 1_000) -> Watched:
    """Memory and others' answers while so many clients ask for 4 MB and read nothing; with each look come
    `at_once` of them."""
    before, heap_before, began = memory(stack), allocated(stack), time.monotonic()
    seen = Watched(statuses=Counter())
    crowds: list[Crowd] = []
    came = 0
    etag = f'W/"{etag_of(TEXT)}"'
    try:
        while time.monotonic() - began < seconds:
            if came < clients:
                crowds.append(Crowd(stack, min(at_once, clients - came), ask(LARGE)))
                came += at_once
            seen.peak = max(seen.peak, memory(stack) - before)
            seen.end = allocated(stack) - heap_before
            # A connection each: those that are open are closed under pressure.
            with Client(stack) as client:
                seen.statuses[client.get(SMALL.token, SMALL.secret or "").status] += 1
            with Client(stack) as client:
                seen.statuses[client.get(LARGE.token, LARGE.secret or "", etag).status] += 1
            assert stack.http(f"{stack.health_url}/health")[0] == 200
            time.sleep(0.1)
    finally:
        for crowd in crowds:
            crowd.close()
    print(f"{clients} clients: {seen.peak >> 20} MiB at most, {seen.end >> 20} at the end; {seen.statuses}")
    return seen


def test_who_does_not_read_is_cut_and_nobody_else_notices() -> None:
    clients = 60  # 240 MB: below what makes Envoy refuse requests
    with stack_of(OrdinaryStack) as stack:
        ordinary = watch(stack, clients, CUT_AFTER)
    with stack_of() as stack:
        shipped = watch(stack, clients, CUT_AFTER)
        # The stream of an answer over HTTP/1 ends when Envoy has it, not when the client does.
        assert stack.stats()["http.edge.downstream_rq_active"] == 0
    assert ordinary.end > 0.6 * clients * len(TEXT), "else the test shows nothing"
    assert shipped.end < ordinary.end / 10
    assert set(shipped.statuses) == {200, 304}
    assert shipped.statuses[200] == shipped.statuses[304]


def test_a_crowd_that_comes_at_once_gets_what_the_workers_may_hand_over() -> None:
    clients = 300  # 1.2 GB
    # As in envoy/contour/configmap.yaml.
    with stack_of(definitions={"large_bytes_per_second": 67_108_864}) as stack:
        seen = watch(stack, clients, 8.0)
        assert seen.peak < HEAP < clients * len(TEXT) / 3
        # Small answers and confirmations go on, beside the 503s of the crowd.
        assert set(seen.statuses) == {200, 304}
        assert stack.metric("flag_definitions_answers_total", status="503", reason="overloaded") > 0


def test_envoy_s_heap_has_a_bound_and_afterwards_everybody_is_served() -> None:
    clients = 240  # 960 MB
    with stack_of(definitions={"large_bytes_per_second": 0}) as stack:
        seen = watch(stack, clients, CUT_AFTER, at_once=6)
        # Between two looks of the overload manager more is answered.
        assert seen.peak < 1.3 * HEAP < 0.6 * clients * len(TEXT)
        assert set(seen.statuses) == {200, 304, 503}

        def is_served() -> bool:
            with Client(stack) as client:
                return client.get(SMALL.token, SMALL.secret or "").status == 200

        stack.wait_until(is_served, timeout=CUT_AFTER)


def test_who_reads_slowly_gets_every_byte() -> None:
    """Also before the end of a connection, when Envoy waits for progress, and the kernel's buffer is full."""
    with stack_of() as stack:
        asks = {
            ask(LARGE): TEXT,
            ask(LARGE, b"connection: close"): TEXT,
            ask(LARGER, b"connection: close"): LONGER_TEXT,
        }
        answers = in_background(*[lambda a=a: slowly(stack, a) for a in asks])
        for answer, text in zip(answers, asks.values(), strict=True):
            assert answer.result(timeout=60) == (200, zlib.crc32(text.encode()))


def slowly(stack: Stack, request: bytes) -> tuple[int | None, int]:
    """Status and checksum of an answer that is read with `RATE`."""
    answer, began, taken = Answer(), time.monotonic(), 0
    with socket.create_connection(("127.0.0.1", stack.settings.edge_port), timeout=30) as connection:
        connection.sendall(request)
        while not answer.read(connection, RATE // 20):
            taken += RATE // 20
            time.sleep(max(0.0, began + taken / RATE - time.monotonic()))
    return answer.status, answer.checksum
