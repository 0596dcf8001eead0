"""Large answers to clients that read slowly: nothing is cut off, by the filter's Envoy or by one in front
of it that has the times of Contour's HTTPProxy."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import yaml

from stack import processes
from stack.edge import PATH, SECRET, TIMEOUT, TOKEN, UNLIMITED, in_background, upstream
from stack.launcher import Stack
from stack.paths import ROOT
from stack.ports import accepts_connections, free_port
from stack.settings import Settings

# Bytes per second: so few that the last leaves the upstream after more than 15 s, a route's default timeout.
SLOW = 180_000
# Contour's Envoy has buffers of a megabyte: it reads as much at a time, and then nothing for 2 s.
SLOW_FOR_CONTOUR = 500_000
SIZE = 8_000_000  # a little less than `definitions.max_bytes`
RECEIVE_BUFFER = 16_384
SEGMENT = 1_400  # bytes, as on a network: with loopback's 64 KB the kernel keeps megabytes of an answer
FORWARDED = "phs_nobody"


def large_definitions() -> dict[str, Any]:
    """Each part is unlike the others."""
    rng = random.Random(8)
    return {"flags": [{"key": rng.randbytes(2_000).hex()} for _ in range(SIZE // 4_013)]}


@contextmanager
def contours_envoy(stack: Stack) -> Iterator[int]:
    """An Envoy before the stack, with the times of the first route of our HTTPProxy. Gives its port."""
    proxy = yaml.safe_load((ROOT / "envoy/contour/httpproxy.yaml").read_text())
    times = proxy["spec"]["routes"][0]["timeoutPolicy"]
    port = free_port()
    action = {"cluster": "edge", "timeout": times["response"], "idle_timeout": times["idle"]}
    http = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{http}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "contour",
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{http}.http.router.v3.Router"}}],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}
            ]
        },
    }
    edge = {"endpoint": {"address": loopback(stack.settings.edge_port)}}
    segments = {"level": socket.IPPROTO_TCP, "name": socket.TCP_MAXSEG, "int_value": SEGMENT}
    bootstrap = {
        "static_resources": {
            "listeners": [
                {
                    "address": loopback(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "edge",
                    "upstream_bind_config": {"socket_options": [segments]},
                    "load_assignment": {"cluster_name": "edge", "endpoints": [{"lb_endpoints": [edge]}]},
                }
            ],
        }
    }
    (stack.settings.run_dir / f"contour-{port}.json").write_text(json.dumps(bootstrap))
    command = [stack.settings.envoy, "--config-path", f"contour-{port}.json", "--disable-hot-restart"]
    process = processes.start(f"contour-{port}", [*command, "--concurrency", 1], stack.settings.run_dir)
    try:
        stack.wait_until(lambda: accepts_connections(port))
        yield port
    finally:
        process.stop()


def loopback(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def read_slowly(port: int, secret: str, rate: int = SLOW) -> tuple[int, bytes, float]:
    """Status and body of an answer, and the seconds that it took."""
    with socket.socket() as connection:
        # Before it connects, so that no larger window is ever offered.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", port))
        request = f"GET {PATH}?token={TOKEN} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {secret}\r\n\r\n"
        connection.sendall(request.encode())
        began = time.monotonic()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = bytearray()
        while part := answer.read1(RECEIVE_BUFFER):
            body += part
            ahead = began + len(body) / rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        return answer.status, bytes(body), time.monotonic() - began


def test_a_slow_reader_gets_every_byte() -> None:
    config = UNLIMITED | {"upstream": "forward", "redis": {"default": {"timeout": "10s"}}}
    with upstream() as behind, ExitStack() as parts:
        stack = parts.enter_context(Stack(Settings.on_free_ports(upstream=behind.address, config=config)))
        definitions = large_definitions()
        stack.put_definitions(1, definitions)
        text = json.dumps(definitions, sort_keys=True).encode()
        expected = {SECRET: text, FORWARDED: text[::-1]}
        behind.answer = (200, {"content-type": "application/json"}, expected[FORWARDED])
        fronts = {
            "straight": (stack.settings.edge_port, SLOW),
            "behind Contour": (parts.enter_context(contours_envoy(stack)), SLOW_FOR_CONTOUR),
        }
        ways = [(front, secret) for front in fronts for secret in expected]
        reads = [lambda way=way: read_slowly(fronts[way[0]][0], way[1], fronts[way[0]][1]) for way in ways]
        for (front, secret), answer in zip(ways, in_background(*reads), strict=True):
            status, body, took = answer.result(timeout=120)
            print(f"{front}, {secret}: {status}, {len(body)} bytes in {took:.1f} s")
            assert (status, len(body)) == (200, len(text)), (front, secret)
            assert body == expected[secret]
            assert took > 0.95 * len(text) / fronts[front][1], "the reader was slow"
        assert len(behind.requests) == len(fronts)


def test_what_hangs_behind_the_filter_ends_before_contour_gives_up() -> None:
    with upstream() as behind:
        settings = Settings.on_free_ports(upstream=behind.address, config={"upstream": "forward"})
        with Stack(settings) as stack, contours_envoy(stack) as contour:
            behind.on_request = lambda: time.sleep(6)
            status, body, took = read_slowly(contour, FORWARDED)
            assert (status, body.decode()) == (503, TIMEOUT)
            assert 2.5 < took < 5
