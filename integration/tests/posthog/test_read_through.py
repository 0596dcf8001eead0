"""Teams and credentials out of PostHog's own cache: nothing has to be published."""

from __future__ import annotations

import random
import statistics
import string
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests

from models.posthog import bodies, writers
from models.posthog.endpoint import PersonalKey, ProjectKey, State, Team, etag_of, stored_text
from models.posthog.front import unchanged_posthog
from stack.edge import (
    Client,
    Crowd,
    Tally,
    authenticated_get,
    get,
    health,
    soon_enough,
    upstream,
    wait_until_active,
)
from stack.launcher import Stack

ORG = "0190d6f1-0000-7000-8000-00000000000e"
TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
REASON = "x-flag-definitions-forward-reason"


def team(team_id: int) -> Team:
    token = f"through_{team_id}"
    return Team(team_id, f"phc_{token}", ORG, f"phs_{token}", f"phs_{token}_backup")


def some_state() -> State:
    """Forty teams, each with a project secret key and a personal key that have the scope."""
    state = State(teams=[team(n) for n in range(5001, 5041)])
    for each in state.teams:
        state.project_keys.append(ProjectKey(f"phs_project_{each.id}", each.id, ("feature_flag:read",)))
        state.personal_keys.append(PersonalKey(f"phx_{each.id}", organizations=(ORG,), scopes=("*",)))
        state.texts[each.id] = TEXT
    return state


STATE = some_state()


def ask(stack: Stack, team_id: int, secret: str | None = None, **more: object) -> requests.Response:
    own = team(team_id)
    return get(stack, own.token, secret or own.secret, **more)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Without a snapshot or an upstream. A test uses teams of its own: what was looked up stays."""
    # Time for all requests of a test to join one look-up, however slow the machine is.
    patient = {"redis": {"default": {"timeout": "20s"}}, "idle_timeout": "20s"}
    with unchanged_posthog(STATE, **patient) as stack:
        yield stack


# === Accepted ===


@dataclass
class Kind:
    """A credential of team `team_id`, and whether the request names the team."""

    what: str
    team_id: int
    secret: str
    with_token: bool = True


KINDS = [
    Kind("secret", 5001, "phs_through_5001"),
    Kind("backup", 5002, "phs_through_5002_backup"),
    Kind("project secret", 5003, "phs_project_5003"),
    Kind("personal", 5004, "phx_5004"),
    Kind("secret without token", 5005, "phs_through_5005", with_token=False),
    Kind("backup without token", 5006, "phs_through_5006_backup", with_token=False),
    Kind("project secret without token", 5007, "phs_project_5007", with_token=False),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_one_look_up_brings_team_and_credential_for_all_workers(stack: Stack, kind: Kind) -> None:
    tally = Tally(stack)
    token = team(kind.team_id).token if kind.with_token else None
    answers = [get(stack, token, kind.secret) for _ in range(20)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, TEXT)] * 20
    assert get(stack, token, kind.secret, f'W/"{etag_of(TEXT)}"').status_code == 304
    assert tally.after(21).lookups() == 1


def test_a_teams_metadata_brings_both_of_its_secrets(stack: Stack) -> None:
    tally = Tally(stack)
    assert ask(stack, 5008).status_code == 200
    assert ask(stack, 5008, "phs_through_5008_backup").status_code == 200
    assert get(stack, None, "phs_through_5008_backup").status_code == 200
    assert tally.after(3).lookups() == 1


def test_a_team_that_is_known_already_costs_one_look_up_for_each_new_credential(stack: Stack) -> None:
    assert ask(stack, 5009).status_code == 200
    tally = Tally(stack)
    for _ in range(5):
        assert ask(stack, 5009, "phs_project_5009").status_code == 200
        assert ask(stack, 5009, "phx_5009").status_code == 200
    assert tally.after(10).lookups() == 2


def test_without_a_publisher_an_envoy_is_ready_and_says_that_it_has_no_snapshot(stack: Stack) -> None:
    assert stack.ready()
    assert health(stack)["generation"] is None


def test_what_was_looked_up_is_looked_up_again_after_its_time() -> None:
    with unchanged_posthog(STATE, read_through={"enabled": True, "ttl": "2s"}) as stack:
        tally = Tally(stack)
        began, asked = time.monotonic(), 0
        while time.monotonic() - began < 7:
            assert ask(stack, 5001).status_code == 200
            asked += 1
            time.sleep(0.02)
        lasted = time.monotonic() - began
        # Two workers may look up at the same time.
        assert 3 <= tally.after(asked).lookups() <= 2 * (lasted / 2 + 1)


# === Unknown ===


@pytest.mark.parametrize("token", ["phc_through_5011", "phc_nobody", None])
def test_concurrent_requests_for_an_unknown_credential_share_one_look_up(
    stack: Stack, token: str | None
) -> None:
    ask(stack, 5011)
    stack.pause("webdis")
    tally = Tally(stack)
    query = "" if token is None else f"?token={token}"
    try:
        crowd = Crowd(stack, 200, authenticated_get(query.encode(), f"phs_nobody_{token}"))
        wait_until_active(stack, 200)
    finally:
        stack.resume("webdis")
    assert crowd.statuses() == {503: 200}, "without a snapshot nobody is refused"
    assert tally.after(200).lookups() <= stack.settings.concurrency


@pytest.mark.parametrize(
    ("token", "secret"),
    [
        ("phc_nobody/5012", "phs_nobody"),
        ("phc_nobody:*", "phs_nobody"),
        ("phc_nobody\r\nDEL x", "phs_nobody"),
        ("phc_größe", "phs_nobody"),
        ("", "phs_nobody"),
        ("x" * 201, "phs_nobody"),
        ("x" * 5_000, "phs_nobody"),
        ("phc_through_5012", "phs_nobody$"),
        ("phc_through_5012", "phs_no body"),
        ("phc_through_5012", "phx_" + "x" * 200),
        (None, "phs_nobody/../x"),
    ],
    ids=range(11),
)
def test_what_nobody_can_have_is_not_looked_up(stack: Stack, token: str | None, secret: str) -> None:
    ask(stack, 5012)
    tally = Tally(stack)
    assert {get(stack, token, secret).status_code for _ in range(3)} == {503}
    assert tally.after(3).lookups() == 0


def test_a_published_snapshot_comes_first_and_what_it_knows_is_not_looked_up() -> None:
    published = State(teams=[replace(team(5001), secret="phs_published")], texts={})
    with unchanged_posthog(STATE, published=published) as stack:
        tally = Tally(stack)
        assert ask(stack, 5001, "phs_published").status_code == 200
        assert tally.after(1).lookups() == 0
        assert ask(stack, 5001, "phs_project_5001").status_code == 200
        assert ask(stack, 5002).status_code == 200
        # Found nowhere, and there is a fresh snapshot and no upstream.
        for token, secret, body in (
            (team(5001).token, "phs_nobody", bodies.SECRET_INVALID),
            (team(5001).token, "phx_nobody", bodies.PERSONAL_INVALID),
            ("phc_nobody", "phs_nobody", bodies.TOKEN_INVALID),
            (None, "phs_nobody", bodies.SECRET_INVALID),
        ):
            answer = get(stack, token, secret)
            assert (answer.status_code, answer.text) == (401, body)
        # Known, and another team's.
        assert ask(stack, 5002, "phs_published").status_code == 401
        # With an old snapshot nobody is refused, and PostHog's cache goes on.
        stack.redis.delete("flag_definitions:snapshot")
        stack.wait_until(lambda: ask(stack, 5002, "phs_nobody").status_code == 503)
        assert ask(stack, 5002, "phs_published").status_code in (401, 503)
        assert ask(stack, 5003).status_code == 200


# === Budgets ===


def test_look_ups_have_budgets_and_beyond_them_it_is_429_and_never_401() -> None:
    rates = {"lookups_per_team": "3/day", "lookups_per_worker": "10/day"}
    with unchanged_posthog(STATE, concurrency=1, read_through={"enabled": True} | rates) as stack:
        tally = Tally(stack)
        assert ask(stack, 5001).status_code == 200
        assert ask(stack, 5002).status_code == 200
        answers = [ask(stack, 5001, f"phs_nobody_{n}") for n in range(6)]
        assert [answer.status_code for answer in answers] == [503] * 3 + [429] * 3
        refused = answers[-1]
        assert refused.text == bodies.RATE_LIMITED
        assert refused.headers["content-type"] == bodies.JSON
        assert int(refused.headers["retry-after"]) > 0
        assert ask(stack, 5001, "phs_project_5001").status_code == 429, "good, and not known yet"
        assert ask(stack, 5001).status_code == 200, "known"
        assert ask(stack, 5002, "phs_nobody").status_code == 503, "another team has its own budget"
        # Four are left for this worker.
        unknown = [get(stack, f"phc_nobody_{n}", "phs_nobody").status_code for n in range(6)]
        assert unknown == [503] * 4 + [429] * 2
        assert ask(stack, 5003).status_code == 429
        assert ask(stack, 5002).status_code == 200
        assert tally.after(19).lookups() == 10
        assert tally.count("answers", reason="lookup_limited") == 7
        assert tally.count("answers", status="401") == 0


# === Redis away ===


@pytest.mark.parametrize("outage", ["hangs", "stopped"])
@pytest.mark.parametrize("forward", [False, True], ids=["none", "forward"])
def test_without_redis_it_is_503_or_the_upstream_and_never_401(outage: str, forward: bool) -> None:
    config = {"upstream": "forward"} if forward else {}
    with (
        upstream() as behind,
        unchanged_posthog(STATE, behind=behind.address, **config) as stack,
    ):
        away = 299 if forward else 503
        if outage == "hangs":
            stack.pause("webdis")
        else:
            stack.stop_part("webdis")
        for token, secret in (
            (team(5001).token, team(5001).secret),
            (team(5001).token, "phs_nobody"),
            ("phc_nobody", "phs_nobody"),
            (None, "phs_nobody"),
        ):
            seen = {get(stack, token, secret).status_code for _ in range(3)}
            assert seen == {away}, (token, secret)
        if forward:
            reasons = {
                value for asked in behind.requests for name, value in asked["headers"] if name == REASON
            }
            assert reasons == ({"timeout"} if outage == "hangs" else {"redis"})
        if outage == "hangs":
            stack.resume("webdis")
        else:
            stack.restart("webdis")
        stack.wait_until(lambda: ask(stack, 5001).status_code == 200)


# === What PostHog changes ===


def test_a_credential_that_posthog_drops_is_accepted_for_its_ttl_at_most() -> None:
    with unchanged_posthog(STATE, read_through={"enabled": True, "ttl": "2s"}) as stack:
        drops: dict[str, Callable[[], None]] = {
            "phx_5001": lambda: writers.forget_credential(stack, "phx_5001"),
            "phs_project_5001": lambda: writers.forget_credential(stack, "phs_project_5001"),
            # A team's secret is in its metadata as well.
            "phs_through_5001": lambda: (
                writers.forget_credential(stack, "phs_through_5001"),
                writers.put_team(stack, replace(team(5001), secret="phs_rotated")),
            ),
        }
        for secret, drop in drops.items():
            assert ask(stack, 5001, secret).status_code == 200
            drop()
        dropped = time.monotonic()
        last = dict.fromkeys(drops, dropped)
        while time.monotonic() - dropped < 4:
            for secret in drops:
                began, status = time.monotonic(), ask(stack, 5001, secret).status_code
                assert status in (200, 503), "what is found nowhere is not refused without a snapshot"
                if status == 200:
                    last[secret] = began
        assert max(last.values()) - dropped < 2.3
        assert ask(stack, 5001, "phs_rotated").status_code == 200


def without_scope(secret: str) -> tuple[dict, int, str]:
    """The entry of a key without the scope, and what it gets."""
    if secret.startswith("phs_"):
        entry = writers.project_key_entry(ProjectKey(secret, 5001, ()), team(5001).token)
        return entry, 401, bodies.SECRET_INVALID
    entry = writers.personal_key_entry(PersonalKey(secret, organizations=(ORG,), scopes=()))
    return entry, 403, bodies.SCOPE_MISSING


@pytest.mark.parametrize("secret", ["phx_no_scope", "phs_no_scope"])
def test_a_refusal_rests_on_a_fresh_look_up(secret: str) -> None:
    entry, status, body = without_scope(secret)
    with unchanged_posthog(STATE, snapshot={"refuse_max_age": "6s"}) as stack:
        writers.put_credential(stack, secret, entry)
        tally = Tally(stack)
        began = time.monotonic()
        asked = 0
        while time.monotonic() - began < 1.5:
            answer = ask(stack, 5001, secret)
            assert (answer.status_code, answer.text) == (status, body)
            asked += 1
        assert tally.after(asked).lookups() == 1
        # The key got its scope: PostHog dropped the entry, checked the key again, and wrote a new one.
        writers.put_credential(stack, secret, entry | {"scopes": ["feature_flag:read"]})
        stack.wait_until(lambda: ask(stack, 5001, secret).status_code == 200)


def test_a_refusal_is_not_repeated_when_it_cannot_be_looked_up_again() -> None:
    entry, _, _ = without_scope("phx_no_scope")
    with unchanged_posthog(STATE, snapshot={"refuse_max_age": "2s"}) as stack:
        writers.put_credential(stack, "phx_no_scope", entry)
        assert ask(stack, 5001, "phx_no_scope").status_code == 403
        stack.pause("webdis")
        time.sleep(2.2)
        assert {ask(stack, 5001, "phx_no_scope").status_code for _ in range(3)} == {503}
        stack.resume("webdis")
        stack.wait_until(lambda: ask(stack, 5001, "phx_no_scope").status_code == 403)
        writers.forget_credential(stack, "phx_no_scope")
        time.sleep(2.2)
        tally = Tally(stack)
        began, asked = time.monotonic(), 0
        while time.monotonic() - began < 2:
            assert ask(stack, 5001, "phx_no_scope").status_code == 503
            asked += 1
        lasted = time.monotonic() - began
        # That it is gone is remembered for a second, by each worker.
        assert tally.after(asked).lookups() <= (lasted + 1) * stack.settings.concurrency


# === Floods ===


def test_a_flood_of_unknown_tokens_leaves_nothing_behind() -> None:
    """5 000 tokens, each a new one: bounded look-ups, memory that does not grow, and no slow answers."""
    rng = random.Random(5)
    with unchanged_posthog(STATE) as stack:
        assert ask(stack, 5001).status_code == 200

        def flood(requests: int) -> tuple[Counter[int], list[float]]:
            client, seen, times = Client(stack, 4), Counter(), []
            for _ in range(requests):
                token = "phc_" + "".join(rng.choices(string.ascii_letters, k=40))
                began = time.monotonic()
                seen[client.get(token, "phs_" + token[4:]).status] += 1
                times.append(time.monotonic() - began)
            client.close()
            return seen, times

        def floods(requests: int, clients: int = 4) -> tuple[Counter[int], list[float]]:
            with ThreadPoolExecutor(clients) as pool:
                results = list(pool.map(flood, [requests // clients] * clients))
            return sum((seen for seen, _ in results), Counter()), sum((times for _, times in results), [])

        floods(1_500)  # the memory of misses is allocated

        def measure() -> float:
            before, tally, began = resident_bytes(stack), Tally(stack), time.monotonic()
            seen, times = floods(5_000)
            lasted = time.monotonic() - began
            growth = resident_bytes(stack) - before
            assert set(seen) <= {503, 429}
            # 200 a second for each worker, and as many at once.
            assert tally.after(5_000).lookups() <= 2 * 200 * (lasted + 2)
            p99 = statistics.quantiles(times, n=100)[98]
            print(f"{seen}, p99 {p99 * 1000:.1f} ms in {lasted:.1f} s, {growth / 1e6:.1f} MB")
            assert growth < 8e6
            return p99

        soon_enough(measure, 0.5)
        assert ask(stack, 5001).status_code == 200, "what is known is served"


def resident_bytes(stack: Stack) -> int:
    status = Path(f"/proc/{stack.processes['envoy'].pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
