"""How the environments are, where the filter and the publisher tell of it; and documents that are long."""

from __future__ import annotations

import copy
import gzip
import json
import random
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from models.flagsmith.followed import CLIENT_KEY, IDENTITIES, SERVER_KEY, WHOLE, Followed, following
from stack.asking import ask
from stack.edge import trap_count
from stack.render import built_in_config

PATHS = ["/ready", "/health", "/proxy/health", "/proxy/health/readiness", "/proxy/health/liveness"]


def surface(followed: Followed) -> dict[str, Any]:
    return json.loads(followed.stack.http(f"{followed.stack.health_url}/health")[1])["surfaces"]["flagsmith"]


def published(followed: Followed, name: str) -> float:
    """A metric of the publisher: the sum of its series."""
    page = followed.stack.http(f"http://127.0.0.1:{followed.stack.settings.publisher_port}/metrics")[
        1
    ].decode()
    found = re.findall(rf"^flag_definitions_publisher_{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
    return sum(float(value) for value in found)


def test_an_environment_that_fails_shows_in_health_and_metrics(followed: Followed) -> None:
    stack = followed.stack
    stack.wait_until(lambda: surface(followed)["environment_count"] == 1)
    (well,) = surface(followed)["environments"]
    assert set(well) == {"environment", "version", "state", "since", "poll_age_ms"}
    assert well["state"] == "polled" and well["poll_age_ms"] < 10_000
    assert followed.ask(WHOLE, SERVER_KEY).headers["etag"] == f'W/"{well["version"]}"'
    # Each worker keeps it, once somebody asked that worker.
    kept = "flag_definitions_documents"

    def all_keep_it() -> bool:
        assert followed.ask().status == 200
        return stack.metric(kept, surface="flagsmith") == stack.settings.concurrency

    stack.wait_until(all_keep_it)
    age = "flag_definitions_document_age_seconds"
    stack.wait_until(lambda: stack.metric(age, surface="flagsmith") < 5)
    assert published(followed, "last_complete_round_age_seconds") < 5
    assert published(followed, "failed_polls_total") == 0
    followed.upstream.failing.add(SERVER_KEY)
    stack.wait_until(lambda: surface(followed)["environments"][0]["state"] == "failing")
    stack.wait_until(lambda: stack.metric(age, surface="flagsmith") >= 5)
    (failing,) = surface(followed)["environments"]
    assert failing["version"] == well["version"] and failing["poll_age_ms"] >= 4_000
    assert published(followed, "failed_polls_total") >= 2
    assert published(followed, "last_complete_round_age_seconds") >= 4
    assert CLIENT_KEY not in json.dumps(surface(followed))


def test_the_filter_answers_the_health_paths_that_it_is_told_to(tmp_path: Path) -> None:
    with following(tmp_path) as followed:
        stack, port = followed.stack, followed.stack.settings.edge_port
        assert {ask(port, "GET", path, {}).status for path in PATHS} == {404}
        config = built_in_config(stack.settings)
        assert stack.change_config(config | {"health": {"paths": PATHS}})
        stack.wait_until(lambda: ask(port, "GET", "/proxy/health", {}).status == 200)
        for path in PATHS:
            here = ask(port, "GET", path, {})
            there = ask(stack.settings.health_port, "GET", path, {})
            assert here.status == there.status == 200, path
            assert here.headers.get("content-type") == there.headers.get("content-type")
            assert ask(port, "HEAD", f"{path}?x", {}).status == 200
            assert ask(port, "POST", path, {}, b"").status == 404, "somebody else's"
            assert ask(port, "GET", f"{path}/", {}).status == 404
            assert ask(port, "GET", path, {"content-type": "application/grpc"}).status == 415
        assert json.loads(ask(port, "GET", "/health", {}).body)["surfaces"]["flagsmith"]["source"] is True
        # Some of them, and none that is no path of health.
        assert stack.change_config(config | {"health": {"paths": ["/ready"]}})
        stack.wait_until(lambda: ask(port, "GET", "/health", {}).status == 404)
        assert ask(port, "GET", "/ready", {}).status == 200
        assert followed.ask().status == 200
        assert stack.change_config(config | {"health": {"paths": ["/api/v1/flags"]}}) is False
        assert "health.paths[0]: unknown variant `/api/v1/flags`" in stack.log("envoy")
        assert trap_count(stack) == 0


def test_a_client_that_stops_sending_is_answered_as_the_edge_proxy_answers(tmp_path: Path) -> None:
    with following(tmp_path) as followed:
        settings = followed.stack.settings
        request = (
            f"POST {IDENTITIES} HTTP/1.1\r\nHost: x\r\nX-Environment-Key: {CLIENT_KEY}\r\nOrigin: https://page\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        with socket.create_connection(("127.0.0.1", settings.edge_port), timeout=20) as connection:
            connection.sendall(request.encode())
            answer = connection.recv(65_536).decode()
            while '"status"' not in answer and (more := connection.recv(65_536)):
                answer += more.decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503 "), head
    assert json.loads(body) == {"message": "Environment not loaded", "status": "service_unavailable"}
    head = head.lower()
    assert "content-type: application/json" in head
    assert "access-control-allow-origin: https://page" in head
    assert "access-control-allow-credentials: true" in head


def long_document(followed: Followed, size: int) -> dict[str, Any]:
    document = copy.deepcopy(followed.upstream.documents[SERVER_KEY])
    one = document["identity_overrides"][0]
    count = size // len(json.dumps(one))
    document["identity_overrides"] = [one | {"identifier": f"user-{number}"} for number in range(count)]
    return document


@pytest.mark.parametrize("documents_bytes", [64 << 20, 500_000])
def test_a_long_document_comes_without_gzip_too(tmp_path: Path, documents_bytes: int) -> None:
    with following(tmp_path, documents_bytes=documents_bytes) as followed:
        before = followed.ask(WHOLE, SERVER_KEY)
        document = long_document(followed, 3_000_000)
        followed.upstream.documents[SERVER_KEY] = document
        tag = before.headers["etag"]
        zipped = {"Accept_Encoding": "gzip"}

        def is_new() -> bool:
            answer = followed.ask(WHOLE, SERVER_KEY, **zipped)
            return answer.status == 200 and answer.headers["etag"] != tag

        followed.stack.wait_until(is_new)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        for _ in range(6):
            plain = followed.ask(WHOLE, SERVER_KEY)
            assert plain.status == 200 and "content-encoding" not in plain.headers
            assert json.loads(plain.body) == document and len(plain.body) == len(canonical.encode())
            assert followed.ask(WHOLE, SERVER_KEY, **zipped).body == plain.body
            head = followed.ask(WHOLE, SERVER_KEY, "HEAD")
            assert (head.status, head.body) == (200, b"")
        assert len(gzip.compress(plain.body)) < len(plain.body)
        assert followed.ask().status == 200
        assert trap_count(followed.stack) == 0


@pytest.mark.parametrize("zips_well", [True, False])
def test_a_document_that_is_too_long_is_read_once_in_a_while(tmp_path: Path, zips_well: bool) -> None:
    with following(tmp_path, max_document_bytes=20_000) as followed:
        stack = followed.stack
        before = followed.ask().headers["etag"]
        document = long_document(followed, 100_000)
        if not zips_well:
            chance = random.Random(7)
            for identity in document["identity_overrides"]:
                identity["identifier"] = chance.randbytes(200).hex()
        assert (len(gzip.compress(json.dumps(document).encode())) < 20_000) is zips_well
        followed.upstream.documents[SERVER_KEY] = document
        stack.wait_until(lambda: followed.ask(If_None_Match=before).status == 503)
        time.sleep(1)
        for _ in range(20):
            followed.ask()
        time.sleep(1.5)  # until that is told
        callouts = stack.metric("flag_definitions_callouts_total", store="documents")
        for _ in range(100):
            assert followed.ask().status == 503
        time.sleep(1.5)
        more = stack.metric("flag_definitions_callouts_total", store="documents") - callouts
        assert more <= 2 * stack.settings.concurrency, more
