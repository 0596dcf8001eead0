"""OpenFeature's own providers get their flags from the filter: browsers all at once, servers one by one."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.sdks import NodeSdk, PythonSdk, server, web

SERVERS = pytest.mark.parametrize("name", ["node", "python"])
STAFF = {"in": ["@example.com", {"var": "email"}]}
DOCUMENT: dict[str, Any] = {
    "metadata": {"flagSetId": "shop"},
    "flags": {
        "checkout": {
            "state": "ENABLED",
            "variants": {"on": True, "off": False},
            "defaultVariant": "off",
            "targeting": {"if": [STAFF, "on", "off"]},
        },
        "title": {"state": "ENABLED", "variants": {"a": "Hello", "b": "Ciao"}, "defaultVariant": "a"},
        "size": {"state": "ENABLED", "variants": {"small": 20, "large": 50}, "defaultVariant": "large"},
        # A whole number of a flag that has others: written with a fraction, or typed clients refuse it.
        "ratio": {"state": "ENABLED", "variants": {"one": 1, "half": 0.5}, "defaultVariant": "one"},
        "layout": {"state": "ENABLED", "variants": {"wide": {"cols": 3}}, "defaultVariant": "wide"},
        "split": {
            "state": "ENABLED",
            "variants": {"left": "l", "right": "r"},
            "defaultVariant": "left",
            "targeting": {"fractional": [["left", 50], ["right", 50]]},
        },
        "with space": {"state": "ENABLED", "variants": {"on": True}, "defaultVariant": "on"},
    },
}
DEFAULTS: dict[str, Any] = {
    "checkout": False,
    "title": "",
    "size": 0,
    "ratio": 0.0,
    "layout": {},
    "split": "",
}
PERSON = {"targetingKey": "ann", "email": "ann@example.com"}
STRANGER = {"targetingKey": "bob", "email": "bob@nowhere.test"}


def documents(title: str = "Hello") -> list[dict[str, Any]]:
    document = copy.deepcopy(DOCUMENT)
    document["flags"]["title"]["variants"]["a"] = title
    return [{"source": "shop.json", "document": document}]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    """A stack that tests share; one that changes something puts it back."""
    with evaluating(tmp_path_factory.mktemp("ofrep"), documents()) as evaluated:
        yield evaluated


def expected(evaluated: Evaluated, context: dict[str, Any]) -> dict[str, tuple[Any, str, str | None]]:
    """What the filter answers, by key."""
    entries = evaluated.ask(context=context).json["flags"]
    return {entry["key"]: (entry["value"], entry["reason"], entry["variant"]) for entry in entries}


# === Values ===


def test_a_browser_has_the_flags_of_the_answer_and_new_ones_for_a_new_context(shared: Evaluated) -> None:
    """The web provider sends the tag that it has with a new context, too, unless the targeting key is
    another one: a 304 would keep the old values."""
    with web(shared.stack.edge_url) as client:
        for context in (PERSON, PERSON | {"email": "ann@nowhere.test"}, PERSON, STRANGER):
            client.context(**context)
            flags = client.flags(DEFAULTS | {"with space": False})
            wanted = expected(shared, context)
            assert {key: flag[:3] for key, flag in flags.items()} == wanted
            assert all(flag.error is None for flag in flags.values())
        assert client.flag("with space", False).value is True
        assert client.flag("nobody", "mine")[:2] == ("mine", "ERROR")


@SERVERS
def test_a_server_has_each_flag_as_it_is_in_the_answer(shared: Evaluated, name: str) -> None:
    with server(name, shared.stack.edge_url) as client:
        for context in (PERSON, STRANGER):
            flags = client.flags(DEFAULTS, context)
            wanted = expected(shared, context)
            assert {key: flag[:3] for key, flag in flags.items()} == {key: wanted[key] for key in DEFAULTS}
        missing = client.flag("nobody", "mine", PERSON)
        assert (missing.value, missing.error) == ("mine", "FLAG_NOT_FOUND")
        mismatch = client.flag("title", 5, PERSON)
        assert (mismatch.value, mismatch.error) == (5, "TYPE_MISMATCH")


# === Polling ===


def test_polls_are_answered_304_until_something_changes(shared: Evaluated) -> None:
    with web(shared.stack.edge_url) as client:
        client.context(**PERSON)
        assert client.wait(1500).count("POST 304") >= 3
        shared.replace(documents("Changed"))
        try:
            wait_for_title(client, "Changed")
            seen = client.wait(600)
            assert "POST 200" in seen and "PROVIDER_CONFIGURATION_CHANGED" in seen
            # What it has now is what it is asked about.
            assert set(client.wait(600)) == {"POST 304"}
        finally:
            shared.replace(documents())
        wait_for_title(client, "Hello")


def wait_for_title(client: NodeSdk | PythonSdk, title: str) -> None:
    deadline = time.monotonic() + 20
    while client.flag("title", "", PERSON).value != title:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@SERVERS
def test_a_server_has_a_change_with_its_next_question(shared: Evaluated, name: str) -> None:
    with server(name, shared.stack.edge_url) as client:
        shared.replace(documents("Changed"))
        try:
            wait_for_title(client, "Changed")
        finally:
            shared.replace(documents())
        wait_for_title(client, "Hello")


# === Refusals and outages ===


def keys_of(*keys: tuple[str, str | None]) -> dict[str, Any]:
    listed = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest(), "selector": selector} for key, selector in keys
    ]
    return {"format": 1, "ofrep_keys": listed}


def test_who_has_no_key_gets_no_flags(tmp_path: Path) -> None:
    snapshot = tmp_path / "keys.json"
    snapshot.write_text(json.dumps(keys_of(("all-1", None), ("shop-1", "flagSetId=shop"))))
    with evaluating(tmp_path, documents(), settings={"snapshot": snapshot}, keys="required") as evaluated:
        url = evaluated.stack.edge_url
        evaluated.stack.wait_until(lambda: evaluated.ask(X_API_Key="nobody").status == 401)
        for headers, selector in (
            ({"X-API-Key": "all-1"}, {}),
            ({"Authorization": "Bearer shop-1"}, {"Flagd-Selector": "flagSetId=shop"}),
        ):
            with web(url, headers | selector) as client:
                client.context(**PERSON)
                assert client.flag("title", "").value == "Hello"
            for name in ("node", "python"):
                with server(name, url, headers | selector) as one:
                    assert one.flag("title", "", PERSON).value == "Hello"
        # It is bound to another selection than all flags.
        assert evaluated.ask(X_API_Key="shop-1").status == 403
        for headers in ({}, {"X-API-Key": "nobody"}, {"X-API-Key": "shop-1"}):
            with web(url, headers) as client:
                client.context(**PERSON)
                seen = client.wait(600)
                status = 403 if "shop-1" in headers.values() else 401
                assert [one for one in seen if one.startswith("POST")] == [f"POST {status}"], "never again"
                assert "PROVIDER_ERROR" in seen
                assert client.flag("title", "mine").value == "mine"
            for name in ("node", "python"):
                with server(name, url, headers) as one:
                    assert one.flag("title", "mine", PERSON)[::3] == ("mine", "GENERAL")


def test_who_asks_too_often_pauses_and_keeps_its_flags(tmp_path: Path) -> None:
    with evaluating(tmp_path, documents(), settings={"concurrency": 1}, rate_limit="30/minute") as evaluated:
        url = evaluated.stack.edge_url
        with web(url) as client:
            client.context(**PERSON)
            assert client.flag("title", "").value == "Hello"
            while evaluated.ask().status == 200:
                pass
            limited = evaluated.ask()
            assert limited.status == 429 and int(limited.headers["retry-after"]) >= 1
            assert limited.json.keys() >= {"errorCode", "errorDetails"}
            seen = client.wait(1500)
            assert "POST 429" in seen and "PROVIDER_STALE" in seen
            assert seen.count("POST 429") <= 2, "it waits as it is told"
            assert client.flag("title", "").value == "Hello"
        for name in ("node", "python"):
            with server(name, url) as one:
                asked = [one.flag("title", "mine", PERSON) for _ in range(40)]
                assert asked[-1][::3] == ("mine", "GENERAL")
                before = evaluated.stack.metric(
                    "flag_definitions_surface_answers_total", surface="ofrep", status="429"
                )
                for _ in range(5):
                    assert one.flag("title", "mine", PERSON).value == "mine"
                after = evaluated.stack.metric(
                    "flag_definitions_surface_answers_total", surface="ofrep", status="429"
                )
                assert after == before, "the whole provider waits"


def test_flags_outlive_outages(tmp_path: Path) -> None:
    """Without the publisher nothing changes. Without Redis, who has flags keeps them, and nobody is told that
    a flag is not there or that a key is wrong."""
    with evaluating(tmp_path, documents()) as evaluated:
        stack = evaluated.stack
        with (
            web(stack.edge_url) as client,
            server("node", stack.edge_url) as node,
            server("python", stack.edge_url) as python,
        ):
            client.context(**PERSON)
            before = client.flags(DEFAULTS)
            stack.stop_part("publisher")
            time.sleep(1)
            assert "POST 304" in client.wait(600)
            assert all(one.flag("title", "", PERSON).value == "Hello" for one in (node, python))
            stack.stop_part("webdis")
            answers = [evaluated.ask()]

            def is_away() -> bool:
                answers.append(evaluated.ask())
                return answers[-1].status == 503

            stack.wait_until(is_away)
            assert {answer.status for answer in answers} <= {200, 503}
            assert answers[-1].json.keys() >= {"errorCode", "errorDetails"}
            client.wait(1000)
            assert client.flags(DEFAULTS) == before
            for one in (node, python):
                assert one.flag("title", "mine", PERSON)[::3] == ("mine", "GENERAL")
            stack.restart("webdis")
            stack.restart("publisher")
            evaluated.write("shop.json", documents("Back")[0]["document"])
            for one in (client, node, python):
                stack.wait_until(lambda one=one: one.flag("title", "", PERSON).value == "Back", 40)
