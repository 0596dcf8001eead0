"""What Envoy itself says on OFREP's paths: clients take anything but JSON for a fault of the protocol."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.recorded import FLAGS
from stack.asking import ask
from stack.edge import upstream

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
