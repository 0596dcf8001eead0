"""What OpenFeature's providers are asked, and what must come of it, whichever of them it is."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.sdks import Client

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


def expected(evaluated: Evaluated, context: dict[str, Any]) -> dict[str, tuple[Any, str, str | None]]:
    """What the filter answers, by key."""
    entries = evaluated.ask(context=context).json["flags"]
    return {entry["key"]: (entry["value"], entry["reason"], entry["variant"]) for entry in entries}


def has_each_flag(evaluated: Evaluated, client: Client) -> None:
    """A provider of servers has each flag as it is in the answer."""
    for context in (PERSON, STRANGER):
        flags = client.flags(DEFAULTS, context)
        wanted = expected(evaluated, context)
        assert {key: flag[:3] for key, flag in flags.items()} == {key: wanted[key] for key in DEFAULTS}
    missing = client.flag("nobody", "mine", PERSON)
    assert (missing.value, missing.error) == ("mine", "FLAG_NOT_FOUND")
    mismatch = client.flag("title", 5, PERSON)
    assert (mismatch.value, mismatch.error) == (5, "TYPE_MISMATCH")


def wait_for_title(client: Client, title: str) -> None:
    deadline = time.monotonic() + 20
    while client.flag("title", "", PERSON).value != title:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def sees_a_change(evaluated: Evaluated, client: Client) -> None:
    """A provider has a change of the definitions soon. It is put back."""
    evaluated.replace(documents("Changed"))
    try:
        wait_for_title(client, "Changed")
    finally:
        evaluated.replace(documents())
    wait_for_title(client, "Hello")


# === Keys and rates ===

# Headers with keys that get flags, and some that get none.
LET_IN = [
    {"X-API-Key": "all-1"},
    {"Authorization": "Bearer shop-1", "Flagd-Selector": "flagSetId=shop"},
]
SHUT_OUT = [{}, {"X-API-Key": "nobody"}, {"X-API-Key": "shop-1"}]


def keys_of(*keys: tuple[str, str | None]) -> dict[str, Any]:
    listed = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest(), "selector": selector} for key, selector in keys
    ]
    return {"format": 1, "ofrep_keys": listed}


@contextmanager
def locked(folder: Path) -> Iterator[Evaluated]:
    """A stack that asks for keys."""
    snapshot = folder / "keys.json"
    snapshot.write_text(json.dumps(keys_of(("all-1", None), ("shop-1", "flagSetId=shop"))))
    with evaluating(folder, documents(), settings={"snapshot": snapshot}, keys="required") as evaluated:
        evaluated.stack.wait_until(lambda: evaluated.ask(X_API_Key="nobody").status == 401)
        yield evaluated


def answered(evaluated: Evaluated, status: int) -> float:
    """So many answers had this status, a second ago."""
    answers = "flag_definitions_surface_answers_total"
    return evaluated.stack.metric(answers, surface="ofrep", status=str(status))


def waits_when_it_is_told(evaluated: Evaluated, client: Client) -> None:
    """Whoever has asked too often gives defaults, and asks for no flag for some time."""
    asked = [client.flag("title", "mine", PERSON) for _ in range(40)]
    assert asked[-1][::3] == ("mine", "GENERAL")
    before = answered(evaluated, 429)
    for _ in range(5):
        assert client.flag("title", "mine", PERSON).value == "mine"
    assert answered(evaluated, 429) == before, "the whole provider waits"
