"""The tables of the endpoint's specification, row by row, through real Envoy: routes, identities, validators,
misses. The expectations are written out here; none comes from the model or the filter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
import requests

from models.posthog import bodies, writers
from models.posthog.endpoint import (
    VARY,
    VARY_BY_ENCODING,
    PersonalKey,
    ProjectKey,
    State,
    Team,
    etag_of,
    stored_text,
)
from stack.edge import PATHS, get, wait_until_all
from stack.launcher import Stack
from stack.running import definitions_key

ORG, OTHER_ORG = "0190d6f1-0000-7000-8000-00000000000a", "0190d6f1-0000-7000-8000-00000000000b"
ONE = Team(1001, "phc_table_one", ORG, "phs_table_one", "phs_table_one_backup")
TWO = Team(1002, "phc_table_two", None, "phs_table_two")
EMPTY = Team(1003, "phc_table_empty", None, "phs_table_empty")  # without definitions
TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
ETAG = etag_of(TEXT)


# === Section 2.2: credentials that start with phs_ ===


class Secret(NamedTuple):
    """A project secret key of team ONE with these scopes."""

    what: str
    scopes: tuple[str, ...] | None
    accepted: bool


PROJECT_KEYS = [
    Secret("null scopes", None, True),
    Secret("star", ("*",), True),
    Secret("read", ("feature_flag:read",), True),
    Secret("write", ("feature_flag:write",), True),
    Secret("read among others", ("insight:write", "feature_flag:read"), True),
    Secret("another scope", ("insight:read",), False),
    Secret("an empty list", (), False),
    Secret("a scope that only begins like it", ("feature_flag:readonly",), False),
]


def project_secret(row: Secret) -> str:
    return "phs_project_" + row.what.replace(" ", "_")


# === Section 2.3: personal keys ===


class Personal(NamedTuple):
    what: str
    key: PersonalKey
    status: int
    team: Team = ONE


MEMBER = PersonalKey("", organizations=(ORG,))
PERSONAL_KEYS = [
    Personal("a member's key without restrictions", MEMBER, 200),
    # 1
    Personal("its user is not active", replace(MEMBER, user_active=False), 401),
    # 2
    Personal("scoped to no team", replace(MEMBER, scoped_teams=()), 200),
    Personal("scoped to this team", replace(MEMBER, scoped_teams=(ONE.id,)), 200),
    Personal("scoped to this team and another", replace(MEMBER, scoped_teams=(TWO.id, ONE.id)), 200),
    Personal("scoped to another team", replace(MEMBER, scoped_teams=(TWO.id,)), 401),
    # 3
    Personal("scope star", replace(MEMBER, scopes=("*",)), 200),
    Personal("scope read", replace(MEMBER, scopes=("feature_flag:read",)), 200),
    Personal("scope write", replace(MEMBER, scopes=("query:read", "feature_flag:write")), 200),
    Personal("another scope", replace(MEMBER, scopes=("insight:read",)), 403),
    Personal("an empty list of scopes", replace(MEMBER, scopes=()), 403),
    # 4
    Personal("scoped to no organization", replace(MEMBER, scoped_organizations=()), 200),
    Personal("scoped to this organization", replace(MEMBER, scoped_organizations=(ORG,)), 200),
    Personal(
        "scoped to another organization of the user",
        PersonalKey("", organizations=(ORG, OTHER_ORG), scoped_organizations=(OTHER_ORG,)),
        401,
    ),
    # 5
    Personal("its user is nowhere a member", PersonalKey(""), 401),
    Personal("its user is a member elsewhere", PersonalKey("", organizations=(OTHER_ORG,)), 401),
    Personal(
        "scoped to the organization, which the user has left",
        PersonalKey("", scoped_organizations=(ORG,)),
        401,
    ),
    # The order: what fails two checks gets the answer of the first.
    Personal("1 and 3", replace(MEMBER, user_active=False, scopes=()), 401),
    Personal("2 and 3", replace(MEMBER, scoped_teams=(TWO.id,), scopes=()), 401),
    Personal("3 and 4", replace(MEMBER, scopes=(), scoped_organizations=(OTHER_ORG,)), 403),
    Personal("3 and 5", PersonalKey("", scopes=()), 403),
    # Teams without an organization skip 4 and 5.
    Personal("no organization: nowhere a member", PersonalKey(""), 200, TWO),
    Personal("no organization: scoped to some", PersonalKey("", scoped_organizations=(ORG,)), 200, TWO),
    Personal("no organization: scoped to another team", PersonalKey("", scoped_teams=(ONE.id,)), 401, TWO),
    Personal("no organization: no scope", PersonalKey("", scopes=()), 403, TWO),
]


def personal_key(row: Personal) -> str:
    return f"phx_row_{PERSONAL_KEYS.index(row)}"


STATE = State(
    teams=[ONE, TWO, EMPTY],
    project_keys=[ProjectKey(project_secret(row), ONE.id, row.scopes) for row in PROJECT_KEYS],
    personal_keys=[replace(row.key, key=personal_key(row)) for row in PERSONAL_KEYS],
    texts={ONE.id: TEXT, TWO.id: TEXT},
)


@pytest.fixture(scope="module")
def snapshot() -> Iterator[Stack]:
    # Other tests meet the miss, too, and a team is not signalled twice within this time.
    with writers.stack_with(STATE, rebuild={"repeat_after": "1s"}) as stack:
        yield stack


@pytest.fixture(scope="module")
def read_through() -> Iterator[Stack]:
    with writers.stack_with(STATE, "read_through", rebuild={"repeat_after": "1s"}) as stack:
        yield stack


@pytest.fixture(params=["snapshot", "read_through"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """The tables hold wherever identities come from."""
    return request.getfixturevalue(request.param)


def outcome(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


BODIES = {200: TEXT, 401: bodies.PERSONAL_INVALID, 403: bodies.SCOPE_MISSING}


# === Section 1 ===


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("GET", 200, {"content-type": bodies.JSON}),
        ("HEAD", 200, {"content-type": bodies.JSON}),
        ("OPTIONS", 200, {"content-type": None}),
        ("POST", 405, {"allow": "GET, OPTIONS, HEAD"}),
        ("PUT", 405, {"allow": "GET, OPTIONS, HEAD"}),
        ("DELETE", 405, {"allow": "GET, OPTIONS, HEAD"}),
        ("PATCH", 405, {"allow": "GET, OPTIONS, HEAD"}),
    ],
)
def test_methods(snapshot: Stack, path: str, method: str, status: int, headers: dict) -> None:
    answer = get(snapshot, ONE.token, ONE.secret, method=method, path=path)
    assert outcome(answer) == (status, TEXT if method == "GET" else "")
    for name, value in headers.items():
        assert answer.headers.get(name) == value, name


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST"])
def test_the_method_is_checked_first(snapshot: Stack, method: str) -> None:
    """No team, credential or rate matters to them."""
    answer = get(snapshot, "phc_wrong", "phs_wrong", method=method, etag="*")
    assert outcome(answer) == (405 if method == "POST" else 200, "")


@pytest.mark.parametrize(
    ("method", "token", "secret", "etag", "status"),
    [
        ("GET", ONE.token, ONE.secret, None, 200),
        ("GET", ONE.token, ONE.secret, "*", 304),
        ("GET", None, "phx_any", None, 400),
        ("GET", ONE.token, None, None, 401),
        ("GET", ONE.token, "phx_row_9", None, 403),
        ("GET", EMPTY.token, EMPTY.secret, None, 503),
        ("HEAD", None, None, None, 200),
        ("OPTIONS", None, None, None, 200),
        ("POST", None, None, None, 405),
    ],
)
def test_cors_is_on_every_answer(
    snapshot: Stack, method: str, token: str | None, secret: str | None, etag: str | None, status: int
) -> None:
    sent = {"Origin": "https://app.example", "Access-Control-Request-Headers": "authorization,x-own"}
    answer = get(snapshot, token, secret, etag, method=method, headers=sent)
    assert answer.status_code == status
    vary = VARY_BY_ENCODING if method == "GET" and status in (200, 304) else VARY
    expected = {
        "access-control-allow-origin": "https://app.example",
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET,POST,OPTIONS,HEAD",
        "access-control-allow-headers": "authorization,x-own",
        "vary": vary,
    }
    assert {name: answer.headers.get(name) for name in expected} == expected
    plain = get(snapshot, token, secret, etag, method=method)
    assert "access-control-allow-origin" not in plain.headers
    assert plain.headers["access-control-allow-credentials"] == "true"
    assert plain.headers["access-control-allow-methods"] == "GET,POST,OPTIONS,HEAD"
    assert plain.headers["vary"] == vary


@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        (f"?token={ONE.token}&send_cohorts", 200, TEXT),
        (f"?send_cohorts=true&token={ONE.token}", 200, TEXT),
        (f"?token={ONE.token}&send_cohorts=&other=%zz&&", 200, TEXT),
        ("?token=phc%5ftable_one", 200, TEXT),
        ("?token=", 401, bodies.TOKEN_INVALID),
        ("?token", 401, bodies.TOKEN_INVALID),
        ("?TOKEN=x", 200, TEXT),  # another name: the credential brings the team
        (f"?token={ONE.token}&token={ONE.token}", 400, bodies.TOKEN_REPEATED),
    ],
)
def test_queries(stack: Stack, query: str, status: int, body: str) -> None:
    assert outcome(get(stack, None, ONE.secret, path=PATHS[0] + query)) == (status, body)


# === Section 2 ===


@pytest.mark.parametrize(
    ("authorization", "status", "body"),
    [
        ("Bearer phs_table_one", 200, TEXT),
        ("Bearer    phs_table_one", 200, TEXT),
        ("bearer phs_table_one", 401, bodies.NOT_AUTHENTICATED),
        ("BEARER phs_table_one", 401, bodies.NOT_AUTHENTICATED),
        ("Bearer\tphs_table_one", 401, bodies.NOT_AUTHENTICATED),
        ("Bearer", 401, bodies.NOT_AUTHENTICATED),
        ("Bearer  ", 401, bodies.NOT_AUTHENTICATED),
        ("Basic phs_table_one", 401, bodies.NOT_AUTHENTICATED),
        ("phs_table_one", 401, bodies.NOT_AUTHENTICATED),
        ("", 401, bodies.NOT_AUTHENTICATED),
        ("Bearer phc_table_one", 401, bodies.PERSONAL_INVALID),
        ("Bearer an-old-key-without-prefix", 401, bodies.PERSONAL_INVALID),
        ("Bearer PHS_table_one", 401, bodies.PERSONAL_INVALID),
    ],
)
def test_authorization_fields(stack: Stack, authorization: str, status: int, body: str) -> None:
    answer = get(stack, ONE.token, None, headers={"Authorization": authorization})
    assert outcome(answer) == (status, body)


@pytest.mark.parametrize("with_token", [True, False], ids=["token", "no token"])
@pytest.mark.parametrize("row", PROJECT_KEYS, ids=lambda row: row.what)
def test_project_secret_keys(stack: Stack, row: Secret, with_token: bool) -> None:
    expected = (200, TEXT) if row.accepted else (401, bodies.SECRET_INVALID)
    assert outcome(get(stack, ONE.token if with_token else None, project_secret(row))) == expected


@pytest.mark.parametrize(
    ("secret", "team", "accepted"),
    [
        ("phs_table_one", ONE, True),
        ("phs_table_one_backup", ONE, True),
        ("phs_table_two", TWO, True),
        ("phs_table_two", ONE, False),  # another team's, never 403
        (project_secret(PROJECT_KEYS[0]), TWO, False),
        ("phs_nobody", ONE, False),
        ("phs_", ONE, False),
        ("phs_table_on", ONE, False),
    ],
)
def test_secret_tokens(stack: Stack, secret: str, team: Team, accepted: bool) -> None:
    expected = (200, TEXT) if accepted else (401, bodies.SECRET_INVALID)
    assert outcome(get(stack, team.token, secret)) == expected


@pytest.mark.parametrize("row", PERSONAL_KEYS, ids=lambda row: row.what)
def test_personal_keys(stack: Stack, row: Personal) -> None:
    assert outcome(get(stack, row.team.token, personal_key(row))) == (row.status, BODIES[row.status])


@pytest.mark.parametrize(
    ("token", "secret", "status", "body"),
    [
        (None, ONE.secret, 200, TEXT),
        (None, ONE.backup, 200, TEXT),
        (None, "phs_nobody", 401, bodies.SECRET_INVALID),
        (None, "phx_row_0", 400, bodies.TOKEN_REQUIRED),
        (None, "phx_nobody", 400, bodies.TOKEN_REQUIRED),  # not examined
        (None, ONE.token, 400, bodies.TOKEN_REQUIRED),
        (None, None, 401, bodies.NOT_AUTHENTICATED),
        # With a token the team comes first.
        ("phc_nobody", ONE.secret, 401, bodies.TOKEN_INVALID),
        ("phc_nobody", None, 401, bodies.TOKEN_INVALID),
        ("phc_nobody", "phx_row_9", 401, bodies.TOKEN_INVALID),
        (ONE.token, None, 401, bodies.NOT_AUTHENTICATED),
    ],
)
def test_with_and_without_a_token(
    stack: Stack, token: str | None, secret: str | None, status: int, body: str
) -> None:
    assert outcome(get(stack, token, secret)) == (status, body)


@pytest.mark.parametrize(
    ("token", "secret", "status", "body"),
    [
        (ONE.token, None, 401, bodies.NOT_AUTHENTICATED),
        (ONE.token, "phs_wrong", 401, bodies.SECRET_INVALID),
        (ONE.token, "phx_wrong", 401, bodies.PERSONAL_INVALID),
        (ONE.token, "phx_row_9", 403, bodies.SCOPE_MISSING),
        ("phc_wrong", ONE.secret, 401, bodies.TOKEN_INVALID),
    ],
)
def test_error_bodies(stack: Stack, token: str, secret: str | None, status: int, body: str) -> None:
    answer = get(stack, token, secret)
    assert outcome(answer) == (status, body)
    assert answer.headers["content-type"] == bodies.JSON
    assert "www-authenticate" not in answer.headers


# === Section 7 ===


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (f'W/"{ETAG}"', 304),
        (f'"{ETAG}"', 304),  # .NET
        (ETAG, 304),
        (f'W/"{ETAG}" \t ', 304),
        ("*", 304),
        (f'"x", W/"{ETAG}", "y"', 304),
        (f'"x",,"{ETAG}"', 304),
        (f"x, {ETAG}", 304),
        (f'"x,{ETAG}"', 200),
        (f'w/"{ETAG}"', 200),
        (f'"{ETAG.upper()}"', 200),
        (f'"{ETAG}0"', 200),
        ('W/"0000000000000000"', 200),
        ('""', 200),
        (",", 200),
        ("", 200),
    ],
)
def test_validators(snapshot: Stack, field: str, status: int) -> None:
    no_cache = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
    answer = get(snapshot, ONE.token, ONE.secret, field, headers=no_cache)
    expected = {
        "etag": f'W/"{ETAG}"',
        "cache-control": "private, must-revalidate",
        "content-type": bodies.JSON if status == 200 else None,
        "content-length": str(len(TEXT)) if status == 200 else None,
    }
    assert outcome(answer) == (status, TEXT if status == 200 else "")
    assert {name: answer.headers.get(name) for name in expected} == expected


def test_a_payload_whose_etag_is_gone(snapshot: Stack) -> None:
    """Two answers are right: no validators at all, or those computed from the text."""
    snapshot.redis.delete(definitions_key(TWO.id) + ":etag")
    try:
        answer = get(snapshot, TWO.token, TWO.secret)
    finally:
        writers.put_definitions_django(snapshot, TWO.id, TEXT)
    assert outcome(answer) == (200, TEXT)
    validators = (answer.headers.get("etag"), answer.headers.get("cache-control"))
    assert validators in [(None, None), (f'W/"{ETAG}"', "private, must-revalidate")]


# === Section 8 ===


@pytest.fixture
def no_definitions(snapshot: Stack) -> Iterator[Stack]:
    writers.forget_definitions(snapshot, EMPTY.id)
    time.sleep(1.1)  # a miss is remembered for negative_ttl, and the last one is still being signalled
    snapshot.redis.delete(writers.REBUILD_KEY)
    yield snapshot
    writers.forget_definitions(snapshot, EMPTY.id)


def test_a_miss_is_503_and_asks_for_a_rebuild_once(no_definitions: Stack) -> None:
    stack = no_definitions
    began = time.time() * 1000
    for etag in (None, "*", 'W/"0000000000000000"', None):
        answer = get(stack, EMPTY.token, EMPTY.secret, etag)
        assert outcome(answer) == (503, bodies.MISS)
        assert answer.headers["content-type"] == bodies.TEXT
    stack.wait_until(lambda: EMPTY.id in writers.rebuild_requests(stack))
    first = writers.rebuild_requests(stack)
    assert set(first) == {EMPTY.id}
    assert began - 1000 <= first[EMPTY.id] <= time.time() * 1000 + 1000, "epoch milliseconds"
    time.sleep(1.1)
    assert outcome(get(stack, EMPTY.token, EMPTY.secret)) == (503, bodies.MISS)
    assert writers.rebuild_requests(stack) == first


def test_the_sentinel_is_a_miss(no_definitions: Stack) -> None:
    stack = no_definitions
    writers.put_missing(stack, EMPTY.id)
    # What was confirmed before is answered until that is too old.
    wait_until_all(stack, lambda: outcome(get(stack, EMPTY.token, EMPTY.secret)) == (503, bodies.MISS))


def test_a_redis_that_is_away_is_503_and_no_miss(no_definitions: Stack) -> None:
    stack = no_definitions
    stack.pause("webdis")
    try:
        assert outcome(get(stack, EMPTY.token, EMPTY.secret)) == (503, bodies.TIMEOUT)
    finally:
        stack.resume("webdis")
    stack.stop_part("webdis")
    time.sleep(1.1)  # a failure is remembered for negative_ttl, too
    try:
        assert outcome(get(stack, EMPTY.token, EMPTY.secret)) == (503, bodies.MISS)
    finally:
        stack.restart("webdis")
    assert writers.rebuild_requests(stack) == {}


def test_rebuilt_definitions_are_answered(no_definitions: Stack) -> None:
    stack = no_definitions
    assert get(stack, EMPTY.token, EMPTY.secret).status_code == 503
    writers.put_definitions_django(stack, EMPTY.id, TEXT)
    stack.wait_until(lambda: outcome(get(stack, EMPTY.token, EMPTY.secret)) == (200, TEXT))
