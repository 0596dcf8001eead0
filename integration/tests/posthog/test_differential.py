"""Random requests: the filter and the model of PostHog's rules (models/posthog/endpoint.py) answer the same.

The seed is fixed, so that a failure can be repeated; FLAG_DEFINITIONS_SEED tries another one. What a failure
prints has no credential in it.
"""

from __future__ import annotations

import http.client
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from models.posthog import endpoint, writers
from models.posthog.endpoint import (
    Answer,
    Limits,
    PersonalKey,
    ProjectKey,
    Request,
    State,
    Team,
    etag_of,
    stored_text,
)
from stack.edge import wait_until_all
from stack.launcher import Stack

SEED = int(os.environ.get("FLAG_DEFINITIONS_SEED", "20260701"))
REQUESTS = 500

# What the specification says about an answer; everything else is Envoy's.
COMPARED = (
    "content-type",
    "etag",
    "cache-control",
    "allow",
    "vary",
    "www-authenticate",
    "content-encoding",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
)

ORG, OTHER_ORG = "0190d6f1-0000-7000-8000-00000000000c", "0190d6f1-0000-7000-8000-00000000000d"


def some_state(rng: random.Random) -> State:
    """Twelve teams of every kind, and the credentials of a few people."""
    state = State()
    for team_id in range(3001, 3013):
        team = Team(
            team_id,
            f"phc_diff_{team_id}",
            rng.choice([None, ORG, OTHER_ORG]),
            f"phs_diff_{team_id}" if team_id % 6 else None,
            f"phs_diff_{team_id}_backup" if team_id % 3 == 0 else None,
        )
        state.teams.append(team)
        flags = [{"key": f"flag-{n}", "name": 'é "quoted" 🚩'} for n in range(rng.choice([0, 1, 40, 2000]))]
        state.texts[team_id] = stored_text({"flags": flags, "cohorts": {}, "group_type_mapping": {}})
        for scopes in (None, ("feature_flag:read",), ("insight:read",), ()):
            secret = f"phs_diff_project_{len(state.project_keys)}"
            state.project_keys.append(ProjectKey(secret, team_id, scopes))
    for number in range(24):
        state.personal_keys.append(
            PersonalKey(
                f"phx_diff_{number}" if number % 5 else f"old-key-{number}",
                organizations=rng.choice([(), (ORG,), (ORG, OTHER_ORG)]),
                scoped_teams=rng.choice([None, None, (), (3001, 3002, 3003, 3004, 3005)]),
                scoped_organizations=rng.choice([None, None, (), (ORG,)]),
                scopes=rng.choice([None, ("*",), ("feature_flag:write",), ("insight:read",), ()]),
                user_active=rng.random() < 0.9,
            )
        )
    del state.texts[3010]  # a cache miss
    for broken in (3009, 3011):
        del state.texts[broken]
        state.unreadable.add(broken)
    state.quota_limited.add("phc_diff_3012")
    return state


def some_request(rng: random.Random, state: State) -> Request:
    """Most requests are about one team with a credential of its own: the others end early."""
    team = rng.choice(state.teams)
    method = rng.choices(["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"], [90, 3, 3, 2, 1, 1])[0]
    headers = list(
        filter(
            None,
            [
                some_authorization(rng, state, team),
                some_validators(rng, state, team),
                rng.choice([None, ("User-Agent", "posthog-python/7.91.1"), ("User-Agent", "Mozilla/5.0")]),
                rng.choice([None, None, ("Origin", "https://app.example")]),
                rng.choice([None, None, ("Access-Control-Request-Headers", "authorization, x-own")]),
                rng.choice([None, None, None, ("Cache-Control", "no-cache")]),
                rng.choice([None, None, None, ("X-PostHog-Project-Api-Key", rng.choice(state.teams).token)]),
            ],
        )
    )
    rng.shuffle(headers)
    return Request(method, rng.choice(endpoint.PATHS), some_query(rng, state, team), tuple(headers))


def some_query(rng: random.Random, state: State, team: Team) -> tuple[tuple[str, str | None], ...]:
    other = rng.choice(state.teams)
    query: list[tuple[str, str | None]] = rng.choices(
        [
            [("token", team.token)],
            [],
            [("token", other.token)],
            [("token", "")],
            [("token", None)],
            [("token", "phc_diff_unknown")],
            [("token", team.secret or "phs_x")],
            [("token", team.token), ("token", team.token)],
            [("Token", team.token)],
        ],
        [70, 12, 3, 2, 1, 3, 1, 2, 1],
    )[0]
    extras: list[tuple[str, str | None]] = [("send_cohorts", None), ("send_cohorts", "true"), ("é", "a b&=")]
    query = query + rng.sample(extras, rng.randint(0, 2))
    rng.shuffle(query)
    return tuple(query)


def some_authorization(rng: random.Random, state: State, team: Team) -> tuple[str, str] | None:
    own = [secret for secret in (team.secret, team.backup) if secret]
    own += [key.secret for key in state.project_keys if key.team_id == team.id]
    secret = rng.choices(
        [
            rng.choice(own),
            rng.choice(state.personal_keys).key,
            rng.choice([t.secret for t in state.teams if t.secret]),
            team.token,
            rng.choice(["phs_diff_unknown", "phx_diff_unknown", "unknown", "phs_", "phs_diff_3001x"]),
        ],
        [60, 25, 4, 3, 8],
    )[0]
    form = rng.choices(
        ["Bearer {}", "Bearer   {}", "bearer {}", "Basic {}", "Bearer", "{}", None], [85, 3, 2, 2, 2, 2, 4]
    )[0]
    return None if form is None else ("Authorization", form.format(secret))


def some_validators(rng: random.Random, state: State, team: Team) -> tuple[str, str] | None:
    etag = etag_of(state.texts.get(team.id, ""))
    stale = f"{rng.getrandbits(64):016x}"
    weak, old = f'W/"{etag}"', f'W/"{stale}"'
    forms = [weak, f'"{etag}"', etag, old, stale, "*", f"{old}, {weak}", f'"{stale}", {etag}']
    forms += [f"{old}, *", f"{old},{old}", f'"{stale}, {etag}"', f'W/"{etag[:-1]}"', f'w/"{etag}"', '""']
    return ("If-None-Match", rng.choice(forms)) if rng.random() < 0.5 else None


class Edge:
    """One connection that sends exactly what a request says."""

    def __init__(self, stack: Stack) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", stack.settings.edge_port, timeout=30)

    def send(self, request: Request) -> Answer:
        self.connection.putrequest(request.method, request.target, skip_accept_encoding=True)
        for name, value in request.headers:
            self.connection.putheader(name, value)
        self.connection.endheaders()
        response = self.connection.getresponse()
        headers = [(name.lower(), value) for name, value in response.getheaders()]
        for name, count in Counter(name for name, _ in headers).items():
            assert count == 1, f"{name} comes {count} times"
        return Answer(response.status, dict(headers), response.read())


def differences(expected: Answer, got: Answer) -> list[str]:
    found = []
    if expected.status != got.status:
        found.append(f"status: expected {expected.status}, got {got.status}")
    for name in COMPARED:
        if expected.headers.get(name) != got.headers.get(name):
            found.append(f"{name}: expected {expected.headers.get(name)!r}, got {got.headers.get(name)!r}")
    if expected.body != got.body:
        found.append(f"body: expected {expected.body[:200]!r}, got {got.body[:200]!r}")
    length = got.headers.get("content-length")
    if got.status == 304 and length is not None:
        found.append(f"content-length: {length} on a 304")
    if got.status == 200 and got.body and length not in (None, str(len(got.body))):
        found.append(f"content-length: {length} for {len(got.body)} bytes")
    return found


def without_secrets(text: str) -> str:
    return re.sub(r"(ph[csx]_|old-key-)[\w-]*", r"\1***", text)


@contextmanager
def reported(seed: int, number: int, request: Request) -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    if found:
        lines = [f"seed {seed}, request {number}: {request.method} {request.target}"]
        lines += [f"  {name}: {value}" for name, value in request.headers]
        pytest.fail(without_secrets("\n".join(lines + ["differs from the model:"] + found)), pytrace=False)


def compare(stack: Stack, state: State, requests: list[Request], seed: int = SEED) -> Counter[int]:
    """Sends them one after the other. Returns how often each status was right."""
    seen: Counter[int] = Counter()
    edge = Edge(stack)
    for number, request in enumerate(requests):
        with reported(seed, number, request) as found:
            expected, got = endpoint.answer(state, request), edge.send(request)
            found += differences(expected, got)
        seen[got.status] += 1
    return seen


# Long enough for the first read of the quota set: the filter reads it on a timer.
QUOTA = {"quota": {"interval": "1s"}}


def quota_is_known(stack: Stack, state: State) -> None:
    limited = next(team for team in state.teams if team.token in state.quota_limited)
    request = Request(
        query=(("token", limited.token),),
        headers=(("Authorization", f"Bearer {own_secret(state, limited)}"),),
    )
    wait_until_all(stack, lambda: Edge(stack).send(request).status == 402)


def own_secret(state: State, team: Team) -> str:
    return team.secret or next(key.secret for key in state.project_keys if key.team_id == team.id)


@pytest.mark.parametrize("identities", ["snapshot", "read_through"])
def test_random_requests(identities: str) -> None:
    rng = random.Random(SEED)
    state = some_state(rng)
    requests = [some_request(rng, state) for _ in range(REQUESTS)]
    config = QUOTA | {"rate_limit": {"enabled": False}}
    with writers.stack_with(state, identities, **config) as stack:
        quota_is_known(stack, state)
        seen = compare(stack, state, requests)
    assert set(seen) == {200, 304, 400, 401, 402, 403, 405, 500, 503}, "the generator reaches every answer"


def test_random_requests_under_rate_limits() -> None:
    """With rates that are not refilled meanwhile, what is spent on what shows in which request gets 429."""
    rng = random.Random(SEED + 1)
    state = some_state(rng)
    # Whether an ETag of nothing was stale is not told: teams without definitions are left out.
    for team in [team for team in state.teams if team.id not in state.texts]:
        state.teams.remove(team)
    state.quota_limited.clear()
    state.unreadable.clear()
    state.project_keys = [key for key in state.project_keys if key.team_id in state.texts]
    state.limits = Limits(full=8, conditional=12)
    requests = [some_request(rng, state) for _ in range(REQUESTS)]
    config = {"rate_limit": {"full": "8/day", "conditional": "12/day"}}
    with writers.stack_with(state, **config) as stack:
        seen = compare(stack, state, requests, SEED + 1)
    assert seen[429] > 30 and seen[200] > 20 and seen[304] > 20


def test_the_model_would_be_caught(samples: Stack) -> None:
    """The comparison sees each kind of difference, and says nothing secret about it."""
    right = Answer(200, {"content-type": "application/json", "etag": 'W/"a"'}, b"{}")
    for wrong in (
        Answer(304, right.headers, right.body),
        Answer(200, {"content-type": "application/json"}, right.body),
        Answer(200, right.headers | {"www-authenticate": "Bearer"}, right.body),
        Answer(200, right.headers, b"{ }"),
    ):
        assert differences(right, wrong) and not differences(right, right)
    request = Request(query=(("token", "phc_secret"),), headers=(("Authorization", "Bearer phs_secret"),))
    with pytest.raises(pytest.fail.Exception) as failure, reported(1, 2, request) as found:
        found.append("status: expected 200, got phs_secret")
    assert "secret" not in str(failure.value)
