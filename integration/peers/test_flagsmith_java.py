"""Flagsmith's client for the JVM gets its flags from the filter and never notices.

The tests share a stack: a test that changes something puts it back. `make compare-peers` builds the program
that has the client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from models.flagsmith.asked import ASKED, SEVERAL, is_refused, raw, sees_a_change
from models.flagsmith.followed import CLIENT_KEY, SERVER_KEY, WHOLE, Followed, following
from models.flagsmith.recorded import same
from models.flagsmith.sdks import ProgramSdk, Refused, States, started
from stack.paths import ROOT
from stack.processes import StackError

PROGRAM = ROOT / "target/peers/flagsmith-java"
UNKNOWN = "ser.unknown"

# What the client evaluates otherwise than the filter. It leaves disabled flags out where documents say so.
Difference = tuple[str, str | None, dict[str, Any], Any, Any]
DIFFERENT: list[Difference] = [  # feature, identity, traits, the filter's value, the client's
    # Segments are not evaluated without an identity.
    ("max_items", None, {}, 30, 25),
    ("dark_mode", None, {}, "forced", None),
    # Space after a comma counts.
    ("city_promo", "u", {"city": "Oslo"}, "city", None),
    ("city_promo", "u", {"city": " Oslo"}, None, "city"),
    # $ is before the last line's end, too.
    ("banner_text", "u", {"email": "x@acme.test\n"}, "Hello", "Hello colleague"),
    # Numbers are floats.
    ("score_gate", "u", {"score": 2}, None, "high"),
]
# Conditions on the environment hold for nobody.
NOBODY = ("beta_bool", False, True)
# Its evaluation ends in an exception.
FAILS = [repr(traits) for traits in ({"plan": None}, {"country": None}, {"age": True}, {"verified": 1})]


class JavaSdk(ProgramSdk):
    """flagsmith-java-client."""

    command = ["java", "-cp", f"{PROGRAM}/classes:{PROGRAM}/dependency/*", "Driver"]
    refresh = 1  # the shortest

    def answers(self) -> Counter[int]:
        """The statuses of all answers so far."""
        return Counter(self.line({"answers": True})["answers"])


def java(followed: Followed, key: str, local: bool = False) -> AbstractContextManager[JavaSdk]:
    return started(JavaSdk, followed.stack.edge_url, key, local)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    with following(tmp_path_factory.mktemp("flagsmith")) as followed:
        yield followed


def enabled(states: States) -> dict[str, Any]:
    return {name: value for name, (is_enabled, value) in states.items() if is_enabled}


# === Evaluated by the client ===


def test_a_document_is_evaluated_as_the_filter_evaluates_it_but_for_what_is_listed(shared: Followed) -> None:
    found: list[Difference] = []
    with java(shared, SERVER_KEY, local=True) as client:
        for identity, traits in [(None, {}), *ASKED]:
            if repr(traits) in FAILS:
                with pytest.raises(StackError):
                    client.identity("u", traits)
                continue
            theirs = enabled(client.flags() if identity is None else client.identity(identity, traits))
            ours = enabled(raw(shared, SERVER_KEY, identity, traits))
            assert (NOBODY[0], ours.pop(NOBODY[0]), theirs.pop(NOBODY[0])) == NOBODY
            for name in ours.keys() | theirs.keys():
                our, their = ours.get(name), theirs.get(name)
                if not same(our, their) or (name in ours) != (name in theirs):
                    found.append((name, identity, traits, our, their))
        assert set(client.answers()) == {200}
    assert sorted(found, key=repr) == sorted(DIFFERENT, key=repr)


def test_a_change_comes_with_the_next_poll(shared: Followed) -> None:
    with java(shared, SERVER_KEY, local=True) as client:
        sees_a_change(shared, client)
        assert set(client.answers()) == {200}


def test_the_overrides_of_all_pages_come_in_one(shared: Followed) -> None:
    """The client reads no second page: what Flagsmith gives in several, the filter gives in one."""
    shared.upstream.page = 1
    shared.change("banner_text", "Paged")  # a document that is read anew
    try:
        shared.stack.wait_until(lambda: shared.value("banner_text") == "Paged", 20)
        answer = shared.ask(WHOLE, SERVER_KEY)
        assert "link" not in answer.headers and len(answer.json["identity_overrides"]) == 3
        with java(shared, SERVER_KEY, local=True) as client:
            for identity in ("vip-1", "vip-2"):
                assert client.identity(identity, {})["banner_text"] == (True, "Hello VIP")
            assert client.identity("blocked", {})["button_colour"] == (True, "black")
            assert client.flags()["banner_text"] == (True, "Paged")
    finally:
        shared.upstream.page = 0
        shared.change("banner_text", "Hello")
    shared.stack.wait_until(lambda: shared.value("banner_text") == "Hello", 20)


# === Evaluated by the filter ===


@pytest.mark.parametrize("key", [CLIENT_KEY, SERVER_KEY], ids=["client", "server"])
def test_remote_flags_are_those_of_the_answer(shared: Followed, key: str) -> None:
    with java(shared, key) as client:
        flags = client.flags()
        assert same(flags, raw(shared, key))
        assert ("secret_limits" in flags) == (key == SERVER_KEY)
        for identity, traits in ASKED:
            if None in traits.values():  # it leaves the value out, which is no trait
                with pytest.raises(Refused) as refused:
                    client.identity(identity, traits)
                assert refused.value.status == 422
            else:
                assert same(client.identity(identity, traits), raw(shared, key, identity, traits)), traits


def test_transient_identities_and_traits_are_evaluated_like_others(shared: Followed) -> None:
    with java(shared, CLIENT_KEY) as client:
        expected = raw(shared, CLIENT_KEY, "user-1", {"plan": "pro", "age": 30})
        traits = {"plan": {"value": "pro", "transient": True}, "age": 30}
        assert same(client.identity("user-1", traits), expected)
        assert same(client.identity("user-1", traits, transient=True), expected)


def test_a_change_comes_with_the_next_question(shared: Followed) -> None:
    with java(shared, CLIENT_KEY) as client:
        sees_a_change(shared, client)


# === Refusals and outages ===


@pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])
def test_an_unknown_key_gives_no_flags_whoever_asks_three_times(shared: Followed, local: bool) -> None:
    with java(shared, UNKNOWN, local) as client:
        for ask in (client.flags, lambda: client.identity("u", SEVERAL)):
            with pytest.raises(Refused) as refused:
                ask()
            assert refused.value.status == 401
        answers = client.answers()
        assert set(answers) == {401} and answers[401] >= 3
        if local:  # its polls go on, and so do their repetitions
            shared.stack.wait_until(lambda: client.answers()[401] >= answers[401] + 6, 20)


def test_flags_outlive_outages(shared: Followed) -> None:
    """Without Redis and without the publisher, whoever has flags keeps them, and nobody is told 401."""
    with (
        java(shared, SERVER_KEY, local=True) as local,
        java(shared, CLIENT_KEY) as remote,
    ):
        before = local.identity("u", SEVERAL)
        shared.stack.stop_part("publisher")
        assert local.identity("u", SEVERAL) == before
        assert remote.flags()["banner_text"] == (True, "Hello")

        shared.stack.stop_part("webdis")
        try:
            shared.stack.wait_until(lambda: is_refused(remote, 503), 30)
            shared.stack.wait_until(lambda: local.answers()[503] >= 4, 30)
            assert local.identity("u", SEVERAL) == before
        finally:
            shared.stack.restart("webdis")
            shared.stack.restart("publisher")
        shared.change("banner_text", "Back")
        try:
            for client in (local, remote):
                shared.stack.wait_until(lambda client=client: has(client, "Back"), 30)
        finally:
            shared.change("banner_text", "Hello")
        assert 401 not in (local.answers() + remote.answers())
    shared.stack.wait_until(lambda: shared.value("banner_text") == "Hello", 20)


def has(client: JavaSdk, value: str) -> bool:
    try:
        return client.flags()["banner_text"] == (True, value)
    except Refused as refused:
        assert refused.status == 503
        return False
