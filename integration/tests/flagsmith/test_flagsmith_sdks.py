"""The real Flagsmith SDKs get their flags from the filter and never notice.

They share a stack: a test that changes something puts it back.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from models.flagsmith.asked import ASKED, SEVERAL, answered, is_refused, raw, sees_a_change
from models.flagsmith.differences import RECORDED
from models.flagsmith.followed import CLIENT_KEY, SERVER_KEY, Followed, following
from models.flagsmith.recorded import same
from models.flagsmith.sdks import CLASSES, Refused, Sdk, alike, sdk

SDKS = pytest.mark.parametrize("name", CLASSES)
UNKNOWN = "ser.unknown"


# === Evaluated by the SDK ===


@SDKS
def test_a_document_is_evaluated_as_the_filter_evaluates_it_but_for_what_is_listed(
    shared: Followed, name: str
) -> None:
    with sdk(name, shared.stack.edge_url, SERVER_KEY, local=True) as client:
        theirs = [client.flags(), *client.identities(ASKED)]
    found = []
    for (identifier, traits), their in zip([(None, {}), *ASKED], theirs, strict=True):
        our, their = alike(name, raw(shared, SERVER_KEY, identifier, traits)), alike(name, their)
        assert our.keys() == their.keys()
        for flag in our:
            if not same(our[flag], their[flag]):
                found.append((flag, identifier, tuple(traits.items()), our[flag][1], their[flag][1]))
    listed = []
    for row in RECORDED:
        their = getattr(row, name)
        if not same(row.filter, their):
            states = alike(name, {"filter": (True, row.filter), "sdk": (True, their)})
            values = states["filter"][1], states["sdk"][1]
            listed.append((row.feature, row.identity, row.traits, *values))
    assert sorted(found, key=repr) == sorted(listed, key=repr)


@SDKS
def test_a_change_comes_with_the_next_poll(shared: Followed, name: str) -> None:
    with sdk(name, shared.stack.edge_url, SERVER_KEY, local=True) as client:
        sees_a_change(shared, client)


# === Evaluated by the filter ===


@SDKS
@pytest.mark.parametrize("key", [CLIENT_KEY, SERVER_KEY], ids=["client", "server"])
def test_remote_flags_are_those_of_the_answer(shared: Followed, name: str, key: str) -> None:
    with sdk(name, shared.stack.edge_url, key) as client:
        flags = client.flags()
        assert same(alike(name, flags), alike(name, raw(shared, key)))
        assert ("secret_limits" in flags) == (key == SERVER_KEY)
        for (identifier, traits), states in zip(ASKED, client.identities(ASKED), strict=True):
            expected = raw(shared, key, identifier, traits)
            assert same(alike(name, states), alike(name, expected)), (identifier, traits)


@SDKS
def test_transient_identities_and_traits_are_evaluated_like_others(shared: Followed, name: str) -> None:
    with sdk(name, shared.stack.edge_url, CLIENT_KEY) as client:
        expected = alike(name, raw(shared, CLIENT_KEY, "user-1", {"plan": "pro", "age": 30}))
        traits = {"plan": {"value": "pro", "transient": True}, "age": 30}
        assert same(alike(name, client.identity("user-1", traits)), expected)
        assert same(alike(name, client.identity("user-1", traits, transient=True)), expected)
        # Nothing is kept of what was sent before.
        plain = alike(name, raw(shared, CLIENT_KEY, "user-1"))
        assert same(alike(name, client.identity("user-1", {})), plain) and not same(plain, expected)


@SDKS
def test_a_change_comes_with_the_next_question(shared: Followed, name: str) -> None:
    with sdk(name, shared.stack.edge_url, CLIENT_KEY) as client:
        sees_a_change(shared, client)


# === Refusals and outages ===


@SDKS
@pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])
def test_an_unknown_key_gives_no_flags(shared: Followed, name: str, local: bool) -> None:
    """Evaluating locally, Python starts all the same, and asks for flags as long as it has no document."""
    with sdk(name, shared.stack.edge_url, UNKNOWN, local) as client:
        for ask in (client.flags, lambda: client.identity("u", {"plan": "pro"})):
            with pytest.raises(Refused) as refused:
                ask()
            assert refused.value.status == 401


def test_nobody_was_told_304(shared: Followed) -> None:
    """No SDK asks conditionally; an answer without a body would be an error to them."""
    assert answered(shared, 200) > 0
    assert answered(shared, 304) == 0


def test_flags_outlive_outages(shared: Followed) -> None:
    """Without Redis and without the publisher, whoever has flags keeps them, and nobody is told 401."""
    url = shared.stack.edge_url
    with (
        sdk("python", url, SERVER_KEY, local=True) as python,
        sdk("node", url, SERVER_KEY, local=True) as node,
        sdk("python", url, CLIENT_KEY) as remote_python,
        sdk("node", url, CLIENT_KEY) as remote_node,
    ):
        local, remote = (python, node), (remote_python, remote_node)
        before = [client.identity("u", SEVERAL) for client in local]

        shared.stack.stop_part("publisher")
        for _ in range(5):
            assert [client.identity("u", SEVERAL) for client in local] == before
            assert all(client.flags()["banner_text"] == (True, "Hello") for client in remote)
            time.sleep(0.2)

        shared.stack.stop_part("webdis")
        for client in remote:
            shared.stack.wait_until(lambda client=client: is_refused(client, 503), 20)
        shared.stack.wait_until(lambda: answered(shared, 503) > 0)
        time.sleep(1)
        assert [client.identity("u", SEVERAL) for client in local] == before
        with (
            sdk("python", url, SERVER_KEY, local=True) as late,
            sdk("node", url, SERVER_KEY, local=True) as later,
        ):
            assert is_refused(late, 503) and is_refused(later, 503)
            shared.stack.restart("webdis")
            shared.stack.restart("publisher")
            shared.change("banner_text", "Back")
            for client in (late, later, *local, *remote):
                shared.stack.wait_until(lambda client=client: has(client, "Back"), 30)
        shared.change("banner_text", "Hello")
        for client in (*local, *remote):
            shared.stack.wait_until(lambda client=client: has(client, "Hello"), 30)


def has(client: Sdk, value: str) -> bool:
    try:
        return client.flags()["banner_text"] == (True, value)
    except Refused as refused:
        assert refused.status == 503
        return False


def test_flags_outlive_a_rate_limit(tmp_path: Path) -> None:
    """Who polls keeps its flags when over the limit, and takes a change when it is let in again. Who asks
    for flags is told 429 at once: with a Retry-After Python's caller would wait for it (findings/)."""
    with following(tmp_path, rate_limit="1/second") as followed:
        url = followed.stack.edge_url

        for name, value in (("python", "Changed"), ("node", "Again")):
            with sdk(name, url, SERVER_KEY, local=True) as client:
                while any(is_refused(client, 429) for _ in range(5)):  # without a document it asks each time
                    time.sleep(2.5)  # until its poll, too, is let in
                flags, before = client.flags(), answered(followed, 429)
                followed.stack.wait_until(lambda before=before: answered(followed, 429) > before + 1)
                assert client.flags() == flags
                followed.change("banner_text", value)
                followed.stack.wait_until(lambda client=client, value=value: has(client, value))
        for name in ("python", "node"):
            with sdk(name, url, CLIENT_KEY) as client:
                followed.stack.wait_until(lambda client=client: is_refused(client, 429))
                began = time.monotonic()
                with pytest.raises(Refused) as refused:
                    for _ in range(5):
                        client.identity("u", {})
                assert refused.value.status == 429
                assert time.monotonic() - began < 1, "nobody is made to wait"
