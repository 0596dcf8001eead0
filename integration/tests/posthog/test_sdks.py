"""The real PostHog SDKs get their flags from the filter and never notice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import posthog
import pytest

from models.posthog import writers
from models.posthog.endpoint import PersonalKey, State, Team, etag_of, stored_text
from models.posthog.sdks import ALIAS, DEFINITIONS, SDKS, Poll, Sdk, asleep, node_sdk, proxy
from stack.edge import NEGATIVE_TTL, SECRET, TOKEN, get, wait_until_all
from stack.launcher import Stack
from stack.second_envoy import another_envoy

TEAM = Team(9101, "phc_sdk", None, "phs_sdk")
PERSONAL = PersonalKey("phx_sdk")


def definitions(*keys: str) -> dict[str, Any]:
    """Flags that are on for everybody."""
    groups = [{"properties": [], "rollout_percentage": 100, "variant": None}]
    flags = [
        {
            "id": number,
            "team_id": TEAM.id,
            "name": "",
            "key": key,
            "filters": {"groups": groups, "multivariate": None, "payloads": {}},
            "deleted": False,
            "active": True,
            "ensure_experience_continuity": False,
            "version": 1,
        }
        for number, key in enumerate(keys, 1)
    ]
    return {"flags": flags, "group_type_mapping": {}, "cohorts": {}}


OLD, NEW = definitions("a", "b"), definitions("b", "c")
OLD_FLAGS, NEW_FLAGS = {"a": True, "b": True}, {"b": True, "c": True}
STATE = State(teams=[TEAM], personal_keys=[PERSONAL], texts={TEAM.id: stored_text(OLD)})


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    # Time enough on a busy machine: an SDK that is told 503 for that goes another way than these tests.
    with writers.stack_with(STATE, redis={"default": {"timeout": "2s"}}) as stack:
        yield stack


@pytest.fixture
def fresh(stack: Stack) -> Stack:
    writers.put_definitions_django(stack, TEAM.id, OLD)
    stack.wait_until(
        lambda: get(stack, TEAM.token, TEAM.secret, etag_of(stored_text(OLD))).status_code == 304
    )
    return stack


def status(*wanted: int) -> Any:
    return lambda poll: poll.status in wanted


@pytest.mark.parametrize("path", [DEFINITIONS, ALIAS])
@pytest.mark.parametrize("secret", [TEAM.secret, PERSONAL.key])
@pytest.mark.parametrize("name", SDKS)
def test_200_then_304_until_the_definitions_change(fresh: Stack, name: str, secret: str, path: str) -> None:
    with SDKS[name](fresh, TEAM.token, secret, path) as sdk:
        first: Poll = sdk.poll()
        assert first == Poll(200, None, OLD_FLAGS)
        again: Poll = sdk.poll()
        assert again == Poll(304, f'W/"{etag_of(stored_text(OLD))}"', OLD_FLAGS)
        writers.put_definitions_django(fresh, TEAM.id, NEW)
        changed = sdk.poll(status(200))
        assert changed == Poll(200, again.sent, NEW_FLAGS)
        assert sdk.poll() == Poll(304, f'W/"{etag_of(stored_text(NEW))}"', NEW_FLAGS)


def loaded(sdk: Sdk) -> None:
    assert sdk.poll().flags == OLD_FLAGS
    assert sdk.poll(status(304)).flags == OLD_FLAGS


@pytest.mark.parametrize("name", SDKS)
def test_flags_outlive_a_cache_miss(fresh: Stack, name: str) -> None:
    with SDKS[name](fresh, TEAM.token, TEAM.secret) as sdk:
        loaded(sdk)
        writers.forget_definitions(fresh, TEAM.id)
        assert sdk.poll(status(503)).flags == OLD_FLAGS
        writers.put_definitions_django(fresh, TEAM.id, NEW)
        assert sdk.poll(status(200)).flags == NEW_FLAGS
    time.sleep(NEGATIVE_TTL)  # each worker remembers the miss for a moment


@pytest.mark.parametrize("name", SDKS)
def test_flags_outlive_an_outage_of_redis(fresh: Stack, name: str) -> None:
    with SDKS[name](fresh, TEAM.token, TEAM.secret) as sdk:
        loaded(sdk)
        fresh.pause("webdis")
        try:
            assert sdk.poll(status(503)).flags == OLD_FLAGS
        finally:
            fresh.resume("webdis")
            time.sleep(NEGATIVE_TTL)  # each worker remembers the outage for a moment
        assert sdk.poll(status(200, 304)).flags == OLD_FLAGS


@pytest.mark.parametrize("name", SDKS)
def test_flags_outlive_a_rate_limit(name: str) -> None:
    with (
        writers.stack_with(STATE, rate_limit={"conditional": "4/day"}) as stack,
        SDKS[name](stack, TEAM.token, TEAM.secret) as sdk,
    ):
        loaded(sdk)
        assert sdk.poll(status(429)).flags == OLD_FLAGS


PLAIN = f'W/"{etag_of(stored_text(OLD))}"'


def told_of_the_limit(sdks: Iterable[Sdk], *stacks: Stack, seconds: float) -> None:
    """The project is limited, and each SDK was told 402: it has no flags, and Node has its ETag still.

    They sleep until all workers know of the limit. Before, one that does not answers 304, or by the latch a
    200 without ETag, after the 402 of another one as well: no sign of the limit's end."""
    with asleep(*sdks):
        writers.limit_quota(stacks[0], [TEAM.token], seconds)
        for stack in stacks:
            wait_until_all(stack, lambda stack=stack: get(stack, TEAM.token, TEAM.secret).status_code == 402)
        known = time.time()
    for sdk in sdks:
        assert sdk.poll(lambda poll: poll.asked > known) == Poll(402, PLAIN, {})


def first_but_402(sdk: Sdk) -> Poll:
    return sdk.poll(lambda poll: poll.status != 402)


@pytest.mark.parametrize("name", SDKS)
def test_flags_come_back_after_a_quota_period(name: str) -> None:
    """The latch: Node drops its flags on a 402 and keeps its ETag, so a 304 afterwards would leave it without
    flags until the definitions change. They do not change here."""
    with (
        writers.stack_with(STATE, quota={"interval": "1s"}) as stack,
        SDKS[name](stack, TEAM.token, TEAM.secret) as sdk,
    ):
        loaded(sdk)
        told_of_the_limit([sdk], stack, seconds=15)
        # It ends at its score.
        assert stack.redis.zscore(writers.QUOTA_KEY, TEAM.token)
        assert first_but_402(sdk) == Poll(200, None if name == "python" else PLAIN, OLD_FLAGS)
        # Freed once, it is told 304 again.
        assert sdk.poll(status(304)).flags == OLD_FLAGS


def test_flags_are_back_at_the_first_poll_that_is_no_402_on_every_envoy() -> None:
    """A limit is lifted, and its end is agreed on some seconds later. Until then Node, which kept its ETag,
    gets its flags back all the same: from whoever notices the lift, and from an Envoy that starts then."""
    with (
        writers.stack_with(STATE, quota={"interval": "5s"}) as one,
        another_envoy(one) as two,
        proxy(one, DEFINITIONS) as front,
        node_sdk(one, TEAM.token, TEAM.secret) as of_one,
        node_sdk(two, TEAM.token, TEAM.secret) as of_two,
        node_sdk(front, TEAM.token, TEAM.secret) as moved,
        ExitStack() as later,
    ):
        sdks = (of_one, of_two, moved)
        for sdk in sdks:
            loaded(sdk)
        told_of_the_limit(sdks, one, two, seconds=3_600)
        # It sleeps while its Envoy is exchanged for one that knows nothing of the limit.
        with asleep(moved):
            one.redis.zrem(writers.QUOTA_KEY, TEAM.token)
            front.stack = three = later.enter_context(another_envoy(one))
        for sdk in sdks:
            assert first_but_402(sdk) == Poll(200, PLAIN, OLD_FLAGS)
        for stack in (one, two, three):
            untold = answers_because(stack, "quota_end_pending")
            stack.wait_until(lambda untold=untold: untold() > 0)
        # Freed once, each is told 304 again, and still has its flags.
        for sdk in sdks:
            again = sdk.poll(status(304))
            assert again.flags == OLD_FLAGS and again.sent.startswith(PLAIN[:-1] + "-")


def answers_because(stack: Stack, reason: str) -> Callable[[], float]:
    return lambda: stack.metric("flag_definitions_answers_total", reason=reason)


def test_without_help_node_stays_without_flags_after_a_quota_period() -> None:
    """What `free_latch` is for: PostHog's service answers like this."""
    config = {"quota": {"interval": "1s", "free_latch": False}}
    with (
        writers.stack_with(STATE, **config) as stack,
        node_sdk(stack, TEAM.token, TEAM.secret) as sdk,
    ):
        loaded(sdk)
        told_of_the_limit([sdk], stack, seconds=15)
        assert first_but_402(sdk) == Poll(304, PLAIN, {})


# === What other SDKs send ===

# SDK, target, headers, and the form in which it sends an ETag back. The older SDKs, and those that are not
# installed here, are these requests.
STRONG, WEAK = '"{}"', 'W/"{}"'
OTHERS = [
    ("posthog-rs/0.30.0", "/flags/definitions/?send_cohorts", {"X-PostHog-Project-Api-Key": "{token}"}, WEAK),
    ("posthog-go/1.23.0", "/flags/definitions?send_cohorts=true&token={token}", {}, WEAK),
    ("posthog-ruby/3.23.0", "/flags/definitions?token={token}&send_cohorts=true", {}, WEAK),
    ("posthog-php/4.13.0", "/flags/definitions?send_cohorts&token={token}", {}, WEAK),
    (
        "posthog-dotnet/2.13.3 (.NET 8.0; Linux; x64)",
        "/flags/definitions?token={token}&send_cohorts",
        {},
        STRONG,
    ),
    ("posthog-java/2.14.0", ALIAS + "/?token={token}&send_cohorts", {}, WEAK),
    ("posthog-python/5.4.0", ALIAS + "/?token={token}&send_cohorts", {}, WEAK),
    (
        "posthog-node/4.17.0",
        ALIAS + "?token={token}&send_cohorts",
        {"Content-Type": "application/json"},
        WEAK,
    ),
]


@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row[0].split(" ")[0])
def test_the_requests_of_other_sdks(fresh: Stack, row: tuple[str, str, dict[str, str], str]) -> None:
    user_agent, target, headers, form = row
    text = stored_text(OLD)
    sent = {name: value.format(token=TEAM.token) for name, value in headers.items()}
    sent |= {"User-Agent": user_agent, "Accept-Encoding": "gzip"}
    target = target.format(token=TEAM.token)
    answer = get(fresh, None, TEAM.secret, path=target, headers=sent)
    assert (answer.status_code, answer.text) == (200, text)
    sent |= {"Cache-Control": "no-cache", "Pragma": "no-cache"}
    again = get(fresh, None, TEAM.secret, form.format(etag_of(text)), path=target, headers=sent)
    assert (again.status_code, again.text) == (304, "")


# === Python, without anything between ===


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
        time.sleep(NEGATIVE_TTL)  # each worker remembers the outage for a moment
    assert {flag["key"] for flag in client.feature_flags} == keys
