"""OpenFeature's own providers get their flags from the filter: browsers all at once, servers one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.ofrep.asked import (
    DEFAULTS,
    LET_IN,
    PERSON,
    SHUT_OUT,
    STRANGER,
    documents,
    expected,
    has_each_flag,
    locked,
    sees_a_change,
    wait_for_title,
    waits_when_it_is_told,
)
from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.sdks import server, web

SERVERS = pytest.mark.parametrize("name", ["node", "python"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    """A stack that tests share; one that changes something puts it back."""
    with evaluating(tmp_path_factory.mktemp("ofrep"), documents()) as evaluated:
        yield evaluated


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
        has_each_flag(shared, client)


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


@SERVERS
def test_a_server_has_a_change_with_its_next_question(shared: Evaluated, name: str) -> None:
    with server(name, shared.stack.edge_url) as client:
        sees_a_change(shared, client)


# === Refusals and outages ===


def test_who_has_no_key_gets_no_flags(tmp_path: Path) -> None:
    with locked(tmp_path) as evaluated:
        url = evaluated.stack.edge_url
        for headers in LET_IN:
            with web(url, headers) as client:
                client.context(**PERSON)
                assert client.flag("title", "").value == "Hello"
            for name in ("node", "python"):
                with server(name, url, headers) as one:
                    assert one.flag("title", "", PERSON).value == "Hello"
        # It is bound to another selection than all flags.
        assert evaluated.ask(X_API_Key="shop-1").status == 403
        for headers in SHUT_OUT:
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
                waits_when_it_is_told(evaluated, one)


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
