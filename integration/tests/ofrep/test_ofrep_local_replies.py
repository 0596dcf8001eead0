"""What Envoy itself says on OFREP's paths: clients take anything but JSON for a fault of the protocol."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.recorded import FLAGS
from stack import render
from stack.asking import ask
from stack.edge import upstream
from stack.launcher import Stack
from stack.settings import Settings

LONGEST = 8 << 20
BUFFERED = 1_179_648  # request_body_buffer_limit of the route
ORIGIN = {"origin": "https://shop.example"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    """A filter that would take longer bodies than the route does."""
    with evaluating(tmp_path_factory.mktemp("ofrep"), max_body_bytes=LONGEST) as evaluated:
        yield evaluated


def padded(length: int) -> bytes:
    frame = b'{"context":{"filler":"%b"}}'
    return frame % (b"a" * (length - len(frame % b"")))


@pytest.mark.parametrize("key", ["", "/open"])
def test_a_body_that_envoy_finds_too_long_is_refused_in_flagd_s_words(evaluated: Evaluated, key: str) -> None:
    port = evaluated.stack.settings.edge_port
    taken = ask(port, "POST", FLAGS + key, ORIGIN, padded(BUFFERED - 4096))
    assert taken.status == 200
    refused = ask(port, "POST", FLAGS + key, ORIGIN, padded(BUFFERED * 2))
    assert (refused.status, refused.json) == (413, {"errorDetails": "request body too large"})
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["access-control-allow-origin"] == "*"


def test_a_body_that_does_not_come_is_an_outage_in_json(evaluated: Evaluated) -> None:
    """The route's idle_timeout of 4 s is shorter than the time that the filter waits."""
    began = time.monotonic()
    with socket.create_connection(
        ("127.0.0.1", evaluated.stack.settings.edge_port), timeout=20
    ) as connection:
        head = (
            f"POST {FLAGS} HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\norigin: https://shop.example\r\n\r\n"
        )
        connection.sendall(head.encode() + b"{")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())
    assert answer.status == 503 and 3 < time.monotonic() - began < 10
    assert answer.headers["content-type"] == "application/json"
    assert body["errorCode"] == "GENERAL" and body["errorDetails"]


def test_an_offer_of_http_2_is_answered_in_http_1(evaluated: Evaluated) -> None:
    """The provider for the JVM makes it with every request."""
    offer = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2_Settings": "AAEAAEAAAAIAAAAB"}
    for key in ("", "open"):
        answer = evaluated.ask(key, **offer)
        assert answer.status == 200 and "upgrade" not in answer.headers
        assert answer.json == evaluated.ask(key).json


def test_requests_go_on_untouched_where_the_surface_is_off(tmp_path: Path) -> None:
    with upstream() as behind:
        settings = {"ofrep_upstream": behind.address}
        with evaluating(tmp_path, settings=settings) as evaluated:
            assert evaluated.ask("open").json["value"] == "plain"
            assert behind.requests == []
            assert evaluated.stack.change_config({"ofrep": {"enabled": False}})
            behind.answer = (200, {"content-type": "application/json"}, b'{"theirs":true}')
            for path in (FLAGS, f"{FLAGS}/a/b"):
                theirs = ask(evaluated.stack.settings.edge_port, "POST", path, {}, b"{}")
                assert theirs.json == {"theirs": True}
            assert [request["path"] for request in behind.requests] == [FLAGS, f"{FLAGS}/a/b"]
            # Other paths are not OFREP's.
            other = ask(evaluated.stack.settings.edge_port, "POST", f"{FLAGS}x", {}, b"{}")
            assert other.status == 404 and len(behind.requests) == 2


# === An upstream that is away ===

OUTAGE = {"errorCode": "GENERAL", "errorDetails": "flag definitions are not available"}
FORWARDING = {
    "ofrep": {"enabled": True, "upstream": "forward"},
    "flagsmith": {"enabled": True, "upstream": "forward"},
}


class Impatient(Stack):
    """A route whose time is over before its stream is idle."""

    def write_listeners(self, config: render.PluginConfig) -> None:
        document = yaml.safe_load(render.listeners(self.settings, config))
        manager = document["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            if "typed_per_filter_config" in route:
                route["route"]["timeout"] = "1s"
        self._write("listeners.yaml", json.dumps(document))


class Unreliable:
    """What is behind the filter: it breaks off, says nothing, or what is no HTTP."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.says: bytes | None = None
        self.asked = 0

    def serve(self) -> None:
        held = []  # else they are closed
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.recv(65536)
            self.asked += 1
            if self.says is None:
                held.append(connection)
                continue
            connection.sendall(self.says)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    def leave(self) -> None:
        """Nobody is there from now on."""
        with suppress(OSError):  # it left before
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@contextmanager
def unreliable() -> Iterator[Unreliable]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        behind = Unreliable(listener)
        threading.Thread(target=behind.serve, daemon=True).start()
        try:
            yield behind
        finally:
            behind.leave()


def assert_away(port: int) -> None:
    """Clients of OFREP and of Flagsmith are told so in their own words."""
    ofrep = ask(port, "POST", f"{FLAGS}/open", ORIGIN, b"{}")
    flagsmith = ask(port, "GET", "/api/v1/flags/", ORIGIN | {"x-environment-key": "key"})
    assert (ofrep.status, ofrep.json) == (503, OUTAGE)
    assert ofrep.headers["access-control-allow-origin"] == "*"
    assert (flagsmith.status, flagsmith.json["status"]) == (503, "service_unavailable")
    assert flagsmith.headers["access-control-allow-origin"] == ORIGIN["origin"]
    for answer in (ofrep, flagsmith):
        assert answer.headers["content-type"] == "application/json"
        assert "origin" in answer.headers["vary"]


def test_an_upstream_that_fails_is_an_outage_in_json() -> None:
    with unreliable() as behind:
        settings = Settings.on_free_ports(
            upstream=behind.address,
            ofrep_upstream=behind.address,
            flagsmith_upstream=behind.address,
            config=FORWARDING,
        )
        with Impatient(settings) as stack:
            # It breaks off (UC), says what is no HTTP (UPE), and nothing (UT).
            for says, asked in ((b"", 2), (b"no answer\r\n\r\n", 4), (None, 6)):
                behind.says = says
                assert_away(stack.settings.edge_port)
                assert behind.asked == asked
            # It is not there (UF).
            behind.leave()
            assert_away(stack.settings.edge_port)
            # Of other paths Envoy says what it always says.
            other = ask(stack.settings.edge_port, "POST", f"{FLAGS}ets", ORIGIN, b"{}")
            assert (other.status, other.headers["content-type"]) == (503, "text/plain")
            # What the filter says itself stays as it is.
            port = stack.settings.edge_port
            for method, path, headers, status, code in (
                ("GET", FLAGS, {}, 405, "GENERAL"),
                ("POST", f"{FLAGS}/a/b", {}, 404, "FLAG_NOT_FOUND"),
                ("POST", FLAGS, {"flagd-selector": "team=x"}, 400, "GENERAL"),
                ("POST", FLAGS, {"x-flag-definitions-forward-reason": "loop"}, 503, "GENERAL"),
            ):
                own = ask(port, method, path, ORIGIN | headers, b"{}")
                assert (own.status, own.json["errorCode"]) == (status, code)
                assert "ETag" in own.headers["access-control-expose-headers"]


def test_an_upstream_that_has_no_address_is_an_outage_in_json() -> None:
    with Stack(Settings.on_free_ports(config=FORWARDING)) as stack:
        assert_away(stack.settings.edge_port)
