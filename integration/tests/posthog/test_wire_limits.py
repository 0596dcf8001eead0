"""Sections 5 and 6 of the endpoint's specification: rate limits, quota, usage, names of SDKs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import requests

from models.posthog import bodies, writers
from models.posthog.endpoint import State, Team, etag_of, stored_text
from stack.edge import get, wait_until_all
from stack.launcher import Stack

TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
ETAG = f'W/"{etag_of(TEXT)}"'


def team(team_id: int) -> Team:
    return Team(team_id, f"phc_limits_{team_id}", None, f"phs_limits_{team_id}")


def teams(first: int, count: int) -> State:
    state = State(teams=[team(first + n) for n in range(count)])
    state.texts = {team.id: TEXT for team in state.teams}
    return state


def ask(stack: Stack, team_id: int, etag: str | None = None, **more: object) -> requests.Response:
    return get(stack, team(team_id).token, team(team_id).secret, etag, **more)


def statuses(stack: Stack, team_id: int, count: int, etag: str | None = None) -> list[int]:
    return [ask(stack, team_id, etag).status_code for _ in range(count)]


# === Section 5: rate limits ===

# What an override says, and how many requests it lets through at once; none: the default of 600.
RATES = {
    "3/minute": 3,
    "3/min": 3,
    "3/m": 3,
    "3/hour": 3,
    "3/h": 3,
    "3/day": 3,
    "3/D": 3,
    "3/HOURS": 3,
    " 3 / hour ": 3,
    "1/d": 1,
    "12/hour": 12,
    "0/hour": None,
    "-1/hour": None,
    "3": None,
    "3/": None,
    "/hour": None,
    "3/fortnight": None,
    "three/hour": None,
    "": None,
}
PLAIN, ALLOWED, CONDITIONAL, STALE, REFUSED, QUOTA, HEAD, WITNESS = range(8101, 8109)
SMALL = {str(team_id): "3/day" for team_id in (PLAIN, ALLOWED, STALE, REFUSED, QUOTA, HEAD)}


@pytest.fixture(scope="module")
def limited() -> Iterator[Stack]:
    state = teams(8001, 120)
    overrides = {str(8001 + n): rate for n, rate in enumerate(RATES)} | SMALL
    limits = {"conditional": "5/day", "overrides": overrides, "allow_teams": [ALLOWED]}
    with writers.stack_with(state, rate_limit=limits, quota={"interval": "1s"}) as stack:
        yield stack


@pytest.mark.parametrize("rate", RATES, ids=repr)
def test_rates(limited: Stack, rate: str) -> None:
    team_id, burst = 8001 + list(RATES).index(rate), RATES[rate]
    if burst is None:
        assert set(statuses(limited, team_id, 20)) == {200}
    else:
        assert statuses(limited, team_id, burst + 2) == [200] * burst + [429] * 2


def test_what_is_spent_comes_back_evenly() -> None:
    with writers.stack_with(teams(8001, 1), rate_limit={"full": "2/second"}) as stack:
        burst = statuses(stack, 8001, 12)
        assert burst[:2] == [200, 200] and 429 in burst
        time.sleep(1.1)
        assert ask(stack, 8001).status_code == 200


def test_what_a_limited_client_is_told(limited: Stack) -> None:
    statuses(limited, PLAIN, 3)
    answer = ask(limited, PLAIN)
    assert (answer.status_code, answer.text) == (429, bodies.RATE_LIMITED)
    assert answer.headers["content-type"] == bodies.JSON
    assert "etag" not in answer.headers


def test_allowed_teams_pass(limited: Stack) -> None:
    assert statuses(limited, ALLOWED, 10) == [200] * 10
    limited.wait_until(lambda: limited.metric("flag_definitions_rate_limited_total", mode="bypassed") >= 7)


def test_a_304_costs_the_conditional_budget_alone(limited: Stack) -> None:
    assert statuses(limited, CONDITIONAL, 7, ETAG) == [304] * 5 + [429] * 2
    assert ask(limited, CONDITIONAL).status_code == 200, "the other budget is untouched"


def test_a_stale_etag_costs_both_budgets(limited: Stack) -> None:
    assert statuses(limited, STALE, 4, 'W/"0000000000000000"') == [200] * 3 + [429]
    assert ask(limited, STALE).status_code == 429, "three stale ones have spent the full budget"
    assert statuses(limited, STALE, 2, ETAG) == [304, 429], "and four of five conditional requests"


def test_what_is_refused_costs_nothing(limited: Stack) -> None:
    own = team(REFUSED)
    for _ in range(5):
        assert get(limited, own.token, "phs_wrong").status_code == 401
        assert get(limited, own.token, None).status_code == 401
        assert get(limited, own.token, own.secret, method="POST").status_code == 405
    assert statuses(limited, REFUSED, 4) == [200] * 3 + [429]


def test_head_and_options_cost_nothing(limited: Stack) -> None:
    for method in ("HEAD", "OPTIONS") * 5:
        assert ask(limited, HEAD, method=method).status_code == 200
    assert statuses(limited, HEAD, 4) == [200] * 3 + [429]


def test_the_rate_is_checked_before_the_quota(limited: Stack) -> None:
    writers.limit_quota(limited, [team(QUOTA).token, team(WITNESS).token])
    # Asking the team itself would spend its budget; the set is read as a whole.
    wait_until_all(limited, lambda: ask(limited, WITNESS).status_code == 402)
    assert statuses(limited, QUOTA, 5) == [402] * 3 + [429] * 2


def test_a_limit_that_only_logs_lets_all_pass() -> None:
    with writers.stack_with(teams(8001, 1), rate_limit={"full": "3/day", "log_only": True}) as stack:
        assert statuses(stack, 8001, 10) == [200] * 10
        stack.wait_until(lambda: stack.metric("flag_definitions_rate_limited_total") >= 7)


# === Section 6: quota ===


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    state = teams(8201, 60)
    state.texts |= {NO_FLAGS: EMPTY, TARGETING: TARGETED, MIXED: MIXTURE, MISSING: TEXT}
    del state.texts[MISSING]
    fast = {"quota": {"interval": "1s"}, "usage": {"flush_interval": "1s"}}
    with writers.stack_with(state, rate_limit={"enabled": False}, **fast) as stack:
        yield stack


@pytest.mark.parametrize("etag", [None, ETAG, "*", 'W/"0000000000000000"'])
def test_402_even_when_the_etag_matches(stack: Stack, etag: str | None) -> None:
    writers.limit_quota(stack, [team(8201).token])
    wait_until_all(stack, lambda: ask(stack, 8201).status_code == 402)
    answer = ask(stack, 8201, etag)
    assert (answer.status_code, answer.text) == (402, bodies.QUOTA_LIMITED)
    assert answer.headers["content-type"] == bodies.JSON
    assert ask(stack, 8202).status_code == 200, "the others go on"


def test_credentials_are_checked_before_the_quota(stack: Stack) -> None:
    writers.limit_quota(stack, [team(8201).token])
    wait_until_all(stack, lambda: ask(stack, 8201).status_code == 402)
    assert get(stack, team(8201).token, "phs_wrong").status_code == 401


def test_the_quota_period_ends_with_its_score(stack: Stack) -> None:
    writers.limit_quota(stack, [team(8203).token], seconds=-5)
    writers.limit_quota(stack, [team(8204).token], seconds=12)
    # A 200 after one 402 could be of a worker that has not heard of the limit yet.
    wait_until_all(stack, lambda: ask(stack, 8204).status_code == 402)
    assert ask(stack, 8203).status_code == 200, "a score in the past limits nobody"
    stack.wait_until(lambda: ask(stack, 8204).status_code == 200)


def test_the_last_quota_set_stays_when_redis_is_away(stack: Stack) -> None:
    writers.limit_quota(stack, [team(8205).token])
    wait_until_all(stack, lambda: ask(stack, 8205).status_code == 402)
    stack.pause("webdis")
    try:
        time.sleep(2.5)
        assert ask(stack, 8205).status_code == 402
        assert ask(stack, 8206).status_code == 503, "and nobody else becomes limited"
    finally:
        stack.resume("webdis")
    wait_until_all(stack, lambda: ask(stack, 8206).status_code == 200)


# === Section 6: usage ===

NO_FLAGS, TARGETING, MIXED, MISSING = 8211, 8212, 8213, 8214
EMPTY = stored_text({"flags": [], "cohorts": {}, "group_type_mapping": {}})
TARGETED = stored_text({"flags": [{"key": "survey-targeting-a"}, {"key": "product-tour-targeting-b"}]})
MIXTURE = stored_text({"flags": [{"key": "survey-targeting-a"}, {"key": "b-survey-targeting-"}]})

MOZILLA = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
NAMED = ["python", "ruby", "php", "java", "go", "node", "dotnet", "elixir", "js", "android", "ios"]
NAMED += ["react-native", "flutter"]
SDKS: list[tuple[str | None, dict[str, str], str]] = [
    *[(f"posthog-{name}/1.2.3", {}, f"posthog-{name}") for name in NAMED],
    ("posthog-dotnet/2.13.3 (.NET 8.0; Linux; x64)", {}, "posthog-dotnet"),
    ("posthog-python/", {}, "other"),  # an empty version
    ("posthog-python", {}, "other"),  # no version
    ("posthog-rs/0.30.0", {}, "other"),
    ("posthog-python2/1", {}, "other"),
    ("Posthog-Python/1", {}, "other"),
    ("my posthog-python/1", {}, "other"),
    (MOZILLA, {}, "posthog-js"),
    ("Opera Chrome/1", {}, "posthog-js"),
    ("x Safari/1", {}, "posthog-js"),
    ("x Firefox/1", {}, "posthog-js"),
    ("x Edge/1", {}, "posthog-js"),
    ("mozilla/5.0", {}, "other"),
    ("curl/8.0", {"Sec-Fetch-Mode": "cors"}, "posthog-js"),
    (None, {"Sec-Fetch-Site": "cross-site"}, "posthog-js"),
    ("posthog-node/5.70.0", {"Sec-Fetch-Mode": "cors"}, "posthog-node"),
    ("curl/8.0", {}, "other"),
    ("", {}, "other"),
    (None, {}, "other"),
]
FIRST_SDK = 8221


@pytest.fixture(scope="module")
def counted(stack: Stack) -> Stack:
    """One request of each SDK, each to a team of its own."""
    for n, (user_agent, headers, _) in enumerate(SDKS):
        sent: dict = {"User-Agent": user_agent} | headers  # None: requests sends none of its own
        assert ask(stack, FIRST_SDK + n, headers=sent).status_code == 200
    of_all = range(FIRST_SDK, FIRST_SDK + len(SDKS))
    stack.wait_until(lambda: all(writers.usage(stack, team_id) for team_id in of_all))
    return stack


@pytest.mark.parametrize("row", SDKS, ids=lambda row: f"{row[0]}-{row[2]}")
def test_the_sdk_is_read_from_the_headers(counted: Stack, row: tuple[str | None, dict, str]) -> None:
    team_id = FIRST_SDK + SDKS.index(row)
    by_sdk = writers.usage_by_sdk(counted, team_id)
    assert list(by_sdk) == [row[2]]
    assert by_sdk[row[2]] == writers.usage(counted, team_id)
    ((bucket, count),) = writers.usage(counted, team_id).items()
    assert count == 1
    assert 0 <= time.time() // 120 - bucket <= 3
    assert counted.redis.ttl(f"posthog:local_evaluation_requests:{team_id}") == -1


def test_only_a_200_with_flags_of_its_own_is_billed(stack: Stack) -> None:
    billed, free = 8207, 8208
    for _ in range(3):
        assert ask(stack, billed).status_code == 200
        assert ask(stack, free, ETAG).status_code == 304
        assert ask(stack, free, method="HEAD").status_code == 200
        assert get(stack, team(free).token, "phs_wrong").status_code == 401
        assert ask(stack, MISSING).status_code == 503
        assert ask(stack, NO_FLAGS).status_code == 200
        assert ask(stack, TARGETING).status_code == 200
        assert ask(stack, MIXED).status_code == 200
    assert ask(stack, billed, 'W/"0000000000000000"').status_code == 200
    stack.wait_until(lambda: sum(writers.usage(stack, billed).values()) == 4)
    stack.wait_until(lambda: sum(writers.usage(stack, MIXED).values()) == 3)
    time.sleep(2.5)  # what comes later must not come
    for team_id in (free, MISSING, NO_FLAGS, TARGETING):
        assert writers.usage(stack, team_id) == {}, team_id
    assert sum(writers.usage(stack, billed).values()) == 4


def test_usage_survives_a_redis_that_is_away(stack: Stack) -> None:
    """Counted once all the same: what was not acknowledged is sent again, what was is not."""
    team_id = 8209
    assert ask(stack, team_id).status_code == 200
    stack.wait_until(lambda: sum(writers.usage(stack, team_id).values()) == 1)
    for _ in range(3):
        # What webdis still had to say may have met the first request after a pause: 503, and nothing to pay.
        stack.wait_until(lambda: ask(stack, team_id).status_code == 200)
        stack.pause("webdis")
        time.sleep(1.5)
        stack.resume("webdis")
    stack.wait_until(lambda: sum(writers.usage(stack, team_id).values()) == 4)
    time.sleep(2.5)
    assert sum(writers.usage(stack, team_id).values()) == 4


# === HEAD that validates ===


@pytest.mark.parametrize(
    ("secret", "etag", "status"),
    [(None, None, 200), (None, ETAG, 304), ("phs_wrong", None, 401), ("phx_wrong", None, 401)],
)
def test_head_validates_when_it_is_told_to(
    validating: Stack, secret: str | None, etag: str | None, status: int
) -> None:
    own = team(8301)
    answer = get(validating, own.token, secret or own.secret, etag, method="HEAD")
    assert (answer.status_code, answer.content) == (status, b"")
    assert answer.headers.get("etag") == (ETAG if status in (200, 304) else None)
    if status == 200:
        assert answer.headers["content-type"] == bodies.JSON
        assert answer.headers["cache-control"] == "private, must-revalidate"


def test_a_head_is_never_billed(validating: Stack) -> None:
    assert ask(validating, 8302, method="HEAD").status_code == 200
    assert ask(validating, 8303).status_code == 200
    validating.wait_until(lambda: bool(writers.usage(validating, 8303)))
    assert writers.usage(validating, 8302) == {}


@pytest.fixture(scope="module")
def validating() -> Iterator[Stack]:
    config = {"head_requests": "validate", "usage": {"flush_interval": "1s"}}
    with writers.stack_with(teams(8301, 3), **config) as stack:
        yield stack
