"""The real PostHog SDK gets its flags from the filter and never notices."""

from __future__ import annotations

from collections.abc import Iterator

import posthog
import pytest

from edge import SECRET, TOKEN
from stack import Stack


@pytest.fixture(
    params=[{"secret_key": SECRET}, {"personal_api_key": "phx_sample_personal"}], ids=["phs", "phx"]
)
def client(samples: Stack, request: pytest.FixtureRequest) -> Iterator[posthog.Posthog]:
    client = posthog.Posthog(TOKEN, host=samples.edge_url, poll_interval=3600, **request.param)
    yield client
    client.shutdown()


def answers(stack: Stack, status: int) -> float:
    return stack.metric("flag_definitions_answers_total", status=str(status))


def test_it_loads_evaluates_locally_and_polls_again(samples: Stack, client: posthog.Posthog) -> None:
    before = answers(samples, 200), answers(samples, 304)
    client.load_feature_flags()
    flags = client.get_all_flags(
        "user-1", person_properties={"email": "a@example.com"}, only_evaluate_locally=True
    )
    other = client.get_all_flags(
        "user-1", person_properties={"email": "a@other.org"}, only_evaluate_locally=True
    )
    keys = {flag["key"] for flag in client.feature_flags}
    assert set(flags) == keys == set(other), "every flag was evaluated here, none at the server"
    assert flags["new-checkout"] is True
    assert (flags["staff-only"], other["staff-only"]) == (True, False)
    halves = {
        client.get_all_flags(f"user-{n}", person_properties={"email": "x"}, only_evaluate_locally=True)[
            "half-of-users"
        ]
        for n in range(50)
    }
    assert halves == {True, False}

    client.load_feature_flags()
    assert {flag["key"] for flag in client.feature_flags} == keys
    samples.wait_until(lambda: answers(samples, 304) == before[1] + 1)
    # Loading starts a poller that asks at once, too: at most that one more.
    assert 1 <= answers(samples, 200) - before[0] <= 2


def test_it_keeps_its_flags_when_redis_is_away(samples: Stack, client: posthog.Posthog) -> None:
    client.load_feature_flags()
    keys = {flag["key"] for flag in client.feature_flags}
    samples.pause("webdis")
    try:
        # Unconditional, so that it needs the payload.
        client._flags_etag = None
        client.load_feature_flags()
    finally:
        samples.resume("webdis")
    assert {flag["key"] for flag in client.feature_flags} == keys
