"""What SDKs are asked about the recorded environment, and what the filter answers to the same."""

from __future__ import annotations

import json
from typing import Any

from models.flagsmith.followed import Followed
from models.flagsmith.sdks import Refused, Sdk, States, states_of

# The recorded environment has conditions on each of these traits.
VALUES: dict[str, list[Any]] = {
    "plan": ["pro", "free", "Pro", None],
    "age": [17, 18, 18.5, "18", "2", True, 0],
    "country": ["US", "DE", None],
    "city": ["Paris", "Oslo", " Oslo", "Lima", 5],
    "email": ["a@acme.test", "x@acme.test\n", "b@other.test", "spam@acme.test"],
    "app": ["2.10.1", "2.9.0", "2.10.0", "2", "2.11.0-rc.1"],
    "seq": [3, 4, -3, 1.5, "9", 3.0, True],
    "onboarded": [True, None, ""],
    "verified": [True, False, "true", "True", 1, "1"],
    "score": [2, 1, 1.5, 1.75, "1.75", "abc", "2"],
    "role": ["staff", "Staff"],
}
SEVERAL = {"plan": "pro", "age": 30, "email": "a@acme.test", "verified": True, "role": "staff", "seq": 6}
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("u", {}),
    *(("u", {key: value}) for key, values in VALUES.items() for value in values),
    *((name, SEVERAL) for name in ("vip-1", "vip-2", "blocked")),
    *((f"id-{number}", SEVERAL if number % 2 else {"plan": "pro"}) for number in range(60)),
    *((name, {}) for name in ("zażółć", "a b+c%20&=", "{}", "x" * 2_000)),
]


def raw(
    followed: Followed, key: str, identifier: str | None = None, traits: dict[str, Any] | None = None
) -> States:
    """What the filter answers."""
    if identifier is None:
        return states_of(followed.ask(key=key).json)
    listed = [{"trait_key": name, "trait_value": value} for name, value in (traits or {}).items()]
    body = json.dumps({"identifier": identifier, "traits": listed}).encode()
    answer = followed.ask("/api/v1/identities/", key, "POST", body, Content_Type="application/json")
    return states_of(answer.json["flags"])


def answered(followed: Followed, status: int) -> float:
    """So many answers had this status, a second ago."""
    answers = "flag_definitions_surface_answers_total"
    return followed.stack.metric(answers, surface="flagsmith", status=str(status))


def sees_a_change(followed: Followed, client: Sdk) -> None:
    """A client has a change at the upstream soon, with and without an identity. It is put back."""

    def shows(value: str) -> bool:
        found = client.flags()["banner_text"], client.identity("u", {})["banner_text"]
        return found == ((True, value), (True, value))

    followed.stack.wait_until(lambda: shows("Hello"), 20)
    followed.change("banner_text", "Changed")
    try:
        followed.stack.wait_until(lambda: shows("Changed"), 20)
    finally:
        followed.change("banner_text", "Hello")
    followed.stack.wait_until(lambda: shows("Hello"), 20)


def is_refused(client: Sdk, status: int) -> bool:
    try:
        client.flags()
    except Refused as refused:
        return refused.status == status
    return False
