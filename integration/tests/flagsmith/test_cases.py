"""All that was recorded from the real Edge Proxy, through real Envoy, with the real publisher."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.flagsmith.recorded import CASES, DOCUMENT, differences, document_of
from models.flagsmith.upstream import Upstream, running, write_configuration
from stack.asking import Answer, ask
from stack.launcher import Stack
from stack.settings import Settings

Setup = tuple[Stack, Upstream]


@pytest.fixture(scope="module", params=["main", "degraded"])
def setup(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Stack]]:
    upstream, pairs = Upstream(), {}
    for environment in CASES["setups"][request.param]["environments"]:
        server_key = environment["server_side_key"]
        pairs[server_key] = environment["client_side_key"]
        if document := document_of(environment):
            upstream.documents[server_key] = document
        else:
            upstream.failing.add(server_key)
    with running(upstream):
        folder: Path = tmp_path_factory.mktemp("flagsmith")
        config = write_configuration(folder / "edge.json", upstream.configuration(pairs))
        with Stack(Settings.on_free_ports(flagsmith_config=config)) as stack:
            wait_for_documents(stack)
            yield request.param, stack


def wait_for_documents(stack: Stack) -> None:
    headers = {"X-Environment-Key": "ser.pub.k9Rt"}
    path = "/api/v1/environment-document/"
    stack.wait_until(lambda: ask(stack.settings.edge_port, "GET", path, headers).status == 200)


def send(stack: Stack, asked: dict[str, Any]) -> Answer:
    body = None
    if "body_json" in asked:
        body = json.dumps(asked["body_json"]).encode()
    elif "body_text" in asked:
        body = asked["body_text"].encode()
    elif asked["method"] == "POST":
        body = b""
    is_health = asked["path"].startswith("/proxy/")
    port = stack.settings.health_port if is_health else stack.settings.edge_port
    return ask(port, asked["method"], asked["path"], asked["headers"], body)


def test_every_case(setup: tuple[str, Stack]) -> None:
    name, stack = setup
    cases = [case for case in CASES["cases"] if case["setup"] == name and "decided" not in case]
    assert len(cases) > 5
    wrong = {}
    for case in cases:
        if found := differences(send(stack, case["request"]), case["expect"]):
            wrong[case["id"]] = found
    assert wrong == {}


def decided(name: str) -> dict[str, Any]:
    return next(case for case in CASES["cases"] if case["id"] == name)["request"]


@pytest.mark.parametrize("setup", ["main"], indirect=True)
def test_decided_cases(setup: tuple[str, Stack]) -> None:
    _, stack = setup
    flags = send(stack, decided("flags-server-key"))
    names = {flag["feature"]["name"] for flag in flags.json}
    assert flags.status == 200 and "secret_limits" in names, "a server key sees everything"
    assert len(flags.json) == len(DOCUMENT["feature_states"])
    assert send(stack, decided("identity-post-server-key")).status == 200
    for name in (
        "flags-no-key",
        "flags-unknown-key",
        "flags-non-ascii-key",
        "flags-key-in-query",
        "flags-error-origin",
        "document-client-key",
        "document-no-key",
        "document-unknown-ser",
        "identity-post-bad-json-bad-key",
    ):
        answer = send(stack, decided(name))
        assert answer.status == 401, name
        assert answer.json == {"message": "unknown key", "status": "unauthorized"}, name
    assert send(stack, decided("unknown-path")).status == 404
