"""Each answer of the endpoint, through real Envoy, Redis and webdis."""

from __future__ import annotations

import json
import time

import pytest
import requests

from stack.edge import MISS, NEGATIVE_TTL, PATH, PATHS, SECRET, TOKEN, callouts, get, upstream, wait_until_all
from stack.launcher import Stack
from stack.running import definitions_key
from stack.settings import Settings

VARY = "origin, access-control-request-method, access-control-request-headers, accept-encoding"


def error(kind: str, code: str, detail: str) -> str:
    return json.dumps({"type": kind, "code": code, "detail": detail, "attr": None}, separators=(",", ":"))


def authentication_failed(detail: str) -> str:
    return error("authentication_error", "authentication_failed", detail)


NOT_AUTHENTICATED = error(
    "authentication_error", "not_authenticated", "Authentication credentials were not provided."
)
SECRET_INVALID = authentication_failed("Secret API token is invalid.")
PERSONAL_INVALID = authentication_failed("Personal API key is invalid.")
TOKEN_INVALID = authentication_failed(
    "The provided API key is invalid or has expired. Please check your API key and try again."
)
SCOPE_MISSING = error(
    "authentication_error",
    "permission_denied",
    "Personal API key lacks required scopes (feature_flag:read or feature_flag:write).",
)


def stored(stack: Stack, team_id: int) -> tuple[bytes, str]:
    key = definitions_key(team_id)
    return stack.redis.get(key), stack.redis.get(f"{key}:etag").decode()


@pytest.mark.parametrize("path", PATHS)
def test_200_is_the_stored_text_with_its_etag(samples: Stack, path: str) -> None:
    body, etag = stored(samples, 1)
    answer = get(samples, path=path)
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["etag"] == f'W/"{etag}"'
    assert answer.headers["cache-control"] == "private, must-revalidate"
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["vary"] == VARY


@pytest.mark.parametrize("form", ['W/"{}"', '"{}"', "{}", '"x", W/"{}"', "*"])
def test_304_has_validators_and_nothing_else(samples: Stack, form: str) -> None:
    _, etag = stored(samples, 1)
    answer = get(samples, etag=form.format(etag), headers={"Cache-Control": "no-cache", "Pragma": "no-cache"})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'W/"{etag}"'
    assert answer.headers["cache-control"] == "private, must-revalidate"
    assert not {"content-type", "content-length"} & set(map(str.lower, answer.headers))


@pytest.mark.parametrize("etag", ['W/"0000000000000000"', "", '""', ",", '"é"', 'W/"'])
def test_another_etag_gets_the_definitions(samples: Stack, etag: str) -> None:
    assert get(samples, etag=etag.encode()).status_code == 200


@pytest.mark.parametrize(
    ("token", "secret", "team_id"),
    [
        (TOKEN, "phs_sample_team_one_backup", 1),
        (TOKEN, "phs_sample_project_key", 1),
        (TOKEN, "phx_sample_personal", 1),
        ("phc_sample_team_two", "phx_sample_personal", 2),
        (None, SECRET, 1),
        (None, "phs_sample_team_two_secret", 2),
        (None, "phs_sample_project_key", 1),
    ],
)
def test_accepted(samples: Stack, token: str | None, secret: str, team_id: int) -> None:
    answer = get(samples, token, secret)
    assert (answer.status_code, answer.content) == (200, stored(samples, team_id)[0])


@pytest.mark.parametrize(
    ("token", "secret", "status", "body"),
    [
        (TOKEN, None, 401, NOT_AUTHENTICATED),
        (None, None, 401, NOT_AUTHENTICATED),
        (TOKEN, "", 401, NOT_AUTHENTICATED),
        (TOKEN, "phs_wrong", 401, SECRET_INVALID),
        (TOKEN, "phs_sample_team_two_secret", 401, SECRET_INVALID),
        (TOKEN, "phs_sample_project_key_no_scope", 401, SECRET_INVALID),
        (None, "phs_wrong", 401, SECRET_INVALID),
        (TOKEN, "phx_wrong", 401, PERSONAL_INVALID),
        (TOKEN, "phx_sample_inactive", 401, PERSONAL_INVALID),
        (TOKEN, TOKEN, 401, PERSONAL_INVALID),
        (TOKEN, "phx_sample_no_scope", 403, SCOPE_MISSING),
        ("phc_wrong", SECRET, 401, TOKEN_INVALID),
        ("phc_wrong", None, 401, TOKEN_INVALID),
        ("", SECRET, 401, TOKEN_INVALID),
        (SECRET, SECRET, 401, TOKEN_INVALID),
    ],
)
def test_refused(samples: Stack, token: str | None, secret: str | None, status: int, body: str) -> None:
    before, began = callouts(samples), time.monotonic()
    answer = get(samples, token, secret, etag="*")
    assert (answer.status_code, answer.text) == (status, body)
    assert answer.headers["content-type"] == "application/json"
    assert "www-authenticate" not in answer.headers
    polls = 2 + (time.monotonic() - began)
    assert callouts(samples) - before <= polls, "a refusal asks nobody; the loader polls once a second"


def test_a_bearer_without_a_team_needs_a_token(samples: Stack) -> None:
    answer = get(samples, None, "phx_sample_personal")
    assert answer.status_code == 400
    assert answer.text == (
        "The 'token' query parameter is required unless authenticating with a phs_-prefixed token."
    )
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_405(samples: Stack, method: str) -> None:
    answer = get(samples, method=method)
    assert (answer.status_code, answer.content) == (405, b"")
    assert answer.headers["allow"] == "GET, OPTIONS, HEAD"


def test_head_and_options(samples: Stack) -> None:
    head = get(samples, None, None, method="HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == "application/json"
    cors = {"Origin": "https://app.example", "Access-Control-Request-Headers": "authorization"}
    options = get(samples, None, None, method="OPTIONS", headers=cors)
    assert (options.status_code, options.content) == (200, b"")
    assert options.headers["access-control-allow-origin"] == "https://app.example"
    assert options.headers["access-control-allow-credentials"] == "true"
    assert options.headers["access-control-allow-methods"] == "GET,POST,OPTIONS,HEAD"
    assert options.headers["access-control-allow-headers"] == "authorization"


def test_503_when_there_is_no_payload(samples: Stack) -> None:
    answer = get(samples, "phc_sample_team_three", "phs_sample_team_three_secret")
    assert (answer.status_code, answer.text) == (503, MISS)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_500_when_the_payload_cannot_be_read(samples: Stack) -> None:
    key = definitions_key(3)
    samples.redis.set(key, b"\x00nonsense")
    time.sleep(NEGATIVE_TTL)
    try:
        answer = get(samples, "phc_sample_team_three", "phs_sample_team_three_secret")
    finally:
        samples.redis.delete(key)
    assert answer.status_code == 500
    assert answer.text.startswith("An internal server error occurred.")


def test_a_changed_payload_is_seen_and_a_newer_etag_never_has_an_older_body(samples: Stack) -> None:
    original = json.loads(stored(samples, 2)[0])
    secret, token = "phs_sample_team_two_secret", "phc_sample_team_two"
    try:
        for round_number in range(5):
            etag = samples.put_definitions(2, original | {"property_matching_version": round_number})
            put_at = time.monotonic()
            while (answer := get(samples, token, secret)).headers["etag"] != f'W/"{etag}"':
                # Until etag_max_age the version before it is good.
                assert answer.json().get("property_matching_version") != round_number
                assert time.monotonic() - put_at < 2.5
                time.sleep(0.05)  # within the team's rate limit
            assert answer.json()["property_matching_version"] == round_number
            assert get(samples, token, secret, etag=f'W/"{etag}"').status_code == 304
    finally:
        samples.put_definitions(2, original)


def test_a_stale_etag_is_noticed_within_etag_max_age(samples: Stack) -> None:
    original = json.loads(stored(samples, 2)[0])
    secret, token = "phs_sample_team_two_secret", "phc_sample_team_two"
    old = stored(samples, 2)[1]
    # What the test before it left may be confirmed for a while.
    wait_until_all(samples, lambda: get(samples, token, secret, etag=f'W/"{old}"').status_code == 304)
    try:
        samples.put_definitions(2, original | {"property_matching_version": 99})
        changed = time.monotonic()
        while True:
            asked = time.monotonic()
            status = get(samples, token, secret, etag=f'W/"{old}"').status_code
            if status == 200:
                break
            assert status == 304 and asked - changed < 2.5, (status, asked - changed)
            time.sleep(0.05)
    finally:
        samples.put_definitions(2, original)


def test_only_callouts_that_are_needed(samples: Stack) -> None:
    """What is confirmed makes none, 304 or 200; the loader's poll is one a second."""
    _, etag = stored(samples, 1)
    session = requests.Session()
    url = f"{samples.edge_url}{PATH}?token={TOKEN}"
    headers = {"Authorization": f"Bearer {SECRET}"}
    conditional = headers | {"If-None-Match": f'W/"{etag}"'}
    sent = lambda store: samples.metric("flag_definitions_callouts_total", store=store)  # noqa: E731
    definitions = lambda: sent("definitions")  # noqa: E731
    # What earlier answers left to send, and the quota's look every ten seconds.
    jobs = lambda: sum(map(sent, ("usage", "quota", "rebuild")))  # noqa: E731

    samples.wait_until(lambda: settled(definitions))
    before, others, total, began = definitions(), jobs(), callouts(samples), time.monotonic()
    assert session.get(url, headers=conditional).status_code == 304  # confirms
    for _ in range(200):
        assert session.get(url, headers=conditional).status_code == 304
    lasted = time.monotonic() - began
    samples.wait_until(lambda: settled(definitions))
    # The confirmation lasts 2 s: 201 requests within it cost one callout, or two across its edge.
    assert definitions() - before <= 2 + lasted / 2
    # Envoy's own count agrees, but for the jobs and the loader's poll, one a second.
    total, waited = callouts(samples) - total, time.monotonic() - began
    samples.wait_until(lambda: settled(jobs))
    assert total - (jobs() - others) <= 2 + lasted / 2 + waited + 1

    before, total, began = definitions(), callouts(samples), time.monotonic()
    for _ in range(50):
        assert session.get(url, headers=headers).status_code == 200
    took = time.monotonic() - began
    samples.wait_until(lambda: settled(definitions))
    assert definitions() - before <= 1 + took / 2
    # Envoy's own count agrees, but for the loader's polls meanwhile, and the usage.
    assert callouts(samples) - total <= 1 + took / 2 + 10 + (time.monotonic() - began)


def settled(read) -> bool:
    """Workers tell Envoy their counts every half second: nothing changed for longer."""
    before = read()
    time.sleep(1.2)
    return read() == before


def test_everything_else_reaches_the_upstream_untouched() -> None:
    with upstream() as behind, Stack(Settings.on_free_ports(upstream=behind.address)) as stack:
        for path in ["/", "/flags", "/flags/definitions/x", "/flags/definitions%2F", "/decide?token=phc_x"]:
            answer = requests.post(
                stack.edge_url + path, data=b"body", headers={"X-Own": "1", "Authorization": "Bearer x"}
            )
            assert (answer.status_code, answer.content) == (299, b"body")
            seen = behind.requests.pop()
            assert (seen["method"], seen["path"], seen["body"]) == ("POST", path, b"body")
            headers = dict(seen["headers"])
            assert headers["x-own"] == "1" and headers["authorization"] == "Bearer x"
            assert not any("flag-definitions" in name for name in headers)
        # Ours are answered here all the same.
        assert get(stack).status_code == 200
        assert get(stack, "phc_wrong").status_code == 401
        assert behind.requests == []


def test_with_forward_the_undecided_goes_upstream_with_the_reason() -> None:
    config = {"upstream": "forward"}
    with (
        upstream() as behind,
        Stack(Settings.on_free_ports(upstream=behind.address, config=config)) as stack,
    ):
        reason = "x-flag-definitions-forward-reason"
        answer = get(stack, "phc_unknown")
        assert (answer.status_code, answer.headers["x-upstream"]) == (299, "yes")
        assert [v for n, v in behind.requests.pop()["headers"] if n == reason] == ["unknown_credential"]
        # What is known is decided here, and what came back is not sent round again.
        assert get(stack, secret="phs_sample_team_two_secret").status_code == 401
        assert get(stack, "phc_unknown", headers={reason: "x"}).status_code == 503
        stack.stop_part("webdis")
        # Its body was held back with it, and goes on with it.
        answer = get(stack, data=b"body")
        assert (answer.status_code, answer.content) == (299, b"body")
        assert [v for n, v in behind.requests.pop()["headers"] if n == reason] == ["redis"]
