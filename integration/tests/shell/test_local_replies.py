"""Each answer of the filter is a local reply, of which Envoy makes something else for some requests: those
that say they are gRPC, of HTTP/1.0, with HEAD, or that want to change the protocol."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml

from stack import render
from stack.edge import PATH, PATHS, SECRET, TOKEN, Tally, get, raw, raw_get, upstream
from stack.launcher import Stack, kept_for_a_look
from stack.settings import Settings

AUTH = b"authorization: Bearer " + SECRET.encode()
TARGET = f"{PATH}?token={TOKEN}".encode()
# The first three are gRPC to Envoy itself, the others to filters that Envoy may have or to nobody.
GRPC = [
    "application/grpc",
    "application/grpc+proto",
    "application/grpc+",
    "application/grpc-web",
    "application/grpc-web-text+proto",
    "application/grpc; charset=utf-8",
    "Application/gRPC",
]


# === gRPC ===


def filters(*names: str) -> list[Any]:
    package = "type.googleapis.com/envoy.extensions.filters.http"
    types = {"grpc_web": "GrpcWeb", "connect_grpc_bridge": "FilterConfig", "grpc_http1_bridge": "Config"}
    return [
        {
            "name": f"envoy.filters.http.{name}",
            "typed_config": {"@type": f"{package}.{name}.v3.{types[name]}"},
        }
        for name in names
    ]


class OthersListener(Stack):
    """Somebody else's edge listener: with filters for gRPC before ours, or after it."""

    before: list[Any]
    after: list[Any]

    def write_listeners(self, config: render.PluginConfig) -> None:
        document = yaml.safe_load(render.listeners(self.settings, config))
        edge = document["resources"][0]
        own = edge["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        own[:] = [*self.before, own[0], *self.after, own[1]]
        self._write("listeners.yaml", json.dumps(document))


@pytest.fixture(scope="module", params=["as shipped", "gRPC filters before it", "gRPC filters after it"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    bridges = filters("grpc_web", "connect_grpc_bridge", "grpc_http1_bridge")
    stack = OthersListener(Settings.on_free_ports())
    stack.before = bridges if "before" in request.param else []
    stack.after = bridges if "after" in request.param else []
    with kept_for_a_look(stack):
        stack.start()
        yield stack


@pytest.mark.parametrize("content_type", GRPC)
def test_what_says_that_it_is_grpc_is_refused_and_costs_nothing(stack: Stack, content_type: str) -> None:
    tally = Tally(stack)
    asked = 0
    for method in ("GET", "HEAD", "OPTIONS", "POST"):
        for secret, etag in ((SECRET, None), (SECRET, "*"), ("phs_wrong", None), (None, None)):
            for path in PATHS:
                answer = get(
                    stack,
                    secret=secret,
                    etag=etag,
                    method=method,
                    path=path,
                    headers={"Content-Type": content_type},
                )
                assert (answer.status_code, answer.content) == (415, b"")
                assert not {"grpc-status", "grpc-message", "etag"} & {name.lower() for name in answer.headers}
                asked += 1
    assert tally.after(asked).count("answers", status="415", reason="unsupported_media_type") == asked
    assert tally.count("usage", state="counted") == 0
    assert get(stack).status_code == 200


@pytest.mark.parametrize("page", ["/ready", "/health"])
def test_a_probe_that_says_it_is_grpc_is_refused(stack: Stack, page: str) -> None:
    for content_type in GRPC:
        answer = requests.get(stack.health_url + page, headers={"content-type": content_type}, timeout=10)
        assert (answer.status_code, answer.content) == (415, b"")
    assert requests.get(stack.health_url + page, timeout=10).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/connect+proto"},
        {"content-type": "application/proto", "connect-protocol-version": "1"},
        {"content-type": "application/json", "connect-protocol-version": "1"},
        {"content-type": "application/proto"},
        {"content-type": "application/json"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
def test_the_connect_protocol_is_nothing_special_unless_envoy_makes_grpc_of_it(
    stack: OthersListener, headers: dict[str, str]
) -> None:
    answer = get(stack, headers=headers)
    assert "grpc-message" not in answer.headers
    if stack.before and ("connect" in str(headers)):
        assert answer.status_code == 415
    else:
        assert (answer.status_code, answer.content) == (200, get(stack).content)


def test_real_grpc_beside_our_paths_passes_untouched() -> None:
    with upstream() as behind, Stack(Settings.on_free_ports(upstream=behind.address)) as stack:
        behind.answer = (200, {"content-type": "application/grpc", "grpc-status": "0"}, b"\0\0\0\0\0")
        headers = {"content-type": "application/grpc+proto", "te": "trailers"}
        answer = requests.post(stack.edge_url + "/shop.Cart/Get", b"\0\0\0\0\0", headers=headers, timeout=10)
        assert (answer.status_code, answer.headers["grpc-status"], answer.content) == (
            200,
            "0",
            b"\0\0\0\0\0",
        )
        (asked,) = behind.requests
        assert dict(asked["headers"])["content-type"] == "application/grpc+proto"


# === HTTP/1.0 ===


def over_http_10(port: int, target: bytes, *headers: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, fields and body of one answer, read until the connection ends."""
    lines = [b"GET " + target + b" HTTP/1.0", *headers, b"", b""]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"\r\n".join(lines))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize("host", [(), (b"host: edge",)], ids=["no host", "host"])
@pytest.mark.parametrize("path", PATHS)
def test_http_10_is_answered_like_http_11(samples: Stack, path: str, host: tuple[bytes, ...]) -> None:
    port, target = samples.settings.edge_port, f"{path}?token={TOKEN}".encode()
    whole = get(samples, path=path)
    status, fields, body = over_http_10(port, target, AUTH, *host)
    assert (status, body, fields["etag"]) == (200, whole.content, whole.headers["etag"])
    assert fields["content-length"] == str(len(body))
    status, fields, body = over_http_10(
        port, target, AUTH, b"if-none-match: " + fields["etag"].encode(), *host
    )
    assert (status, body, fields["etag"]) == (304, b"", whole.headers["etag"])
    status, _, body = over_http_10(port, target, *host)
    assert (status, body) == (401, get(samples, secret=None, path=path).content)


@pytest.mark.parametrize("page", [b"/ready", b"/health"])
def test_probes_may_be_of_http_10(samples: Stack, page: bytes) -> None:
    status, _, body = over_http_10(samples.settings.health_port, page)
    assert (status, bool(body)) == (200, True)


def test_a_forwarded_answer_without_a_length_reaches_http_10_unframed() -> None:
    """HTTP/1.0 knows no chunks: the end of the connection ends the body."""
    parts = [b"a" * 70_000, b"b" * 70_000]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        settings = Settings.on_free_ports(upstream=address, config={"upstream": "forward"})
        with Stack(settings):
            with socket.create_connection(("127.0.0.1", settings.edge_port), timeout=10) as client:
                client.sendall(b"GET " + TARGET + b" HTTP/1.0\r\nauthorization: Bearer phs_nobody\r\n\r\n")
                behind, _ = listener.accept()
                with behind:
                    asked = behind.recv(65536)
                    behind.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed)
                    answer = http.client.HTTPResponse(client)
                    answer.begin()
                    assert (answer.status, answer.read()) == (200, b"".join(parts))
                    assert answer.headers["transfer-encoding"] is None
            assert asked.startswith(b"GET " + TARGET + b" HTTP/1.1\r\n")
            assert b"host: flag-definitions\r\n" in asked, "the listener's default, as the client named none"


# === HEAD and changes of the protocol ===


@pytest.mark.parametrize("status, secret", [(200, SECRET), (401, "phs_wrong")])
def test_head_where_it_is_validated_is_a_get_without_the_body(status: int, secret: str) -> None:
    with Stack(Settings.on_free_ports(config={"head_requests": "validate"})) as stack:
        full, head = (get(stack, secret=secret, method=method) for method in ("GET", "HEAD"))
        assert (full.status_code, head.status_code, head.content) == (status, status, b"")
        for name in ("content-type", "etag", "cache-control", "vary"):
            assert head.headers.get(name) == full.headers.get(name), name


def test_a_change_of_the_protocol_is_refused_unless_it_may_be_ignored(samples: Stack) -> None:
    upgrade = b"connection: upgrade"
    assert raw(samples, raw_get(TARGET, AUTH, upgrade, b"upgrade: websocket")) == 403, (
        "by Envoy, as no route has it"
    )
    # What Java's HttpClient offers with each request.
    h2c = (
        b"connection: upgrade, http2-settings",
        b"upgrade: h2c",
        b"http2-settings: AAMAAABkAAQCAAAAAAIAAAAA",
    )
    assert raw(samples, raw_get(TARGET, AUTH, *h2c)) == 200
