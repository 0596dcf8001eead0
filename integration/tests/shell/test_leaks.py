"""No credential is where it should not be, after all that may happen to one: accepted, refused, looked up,
sent in the wrong place, and in the hands of a filter that traps."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from models.posthog import writers
from models.posthog.endpoint import PersonalKey, ProjectKey, State, Team, stored_text
from stack.edge import PATH, TRAP, get, raw, raw_get, trap_count
from stack.launcher import Stack
from stack.paths import FAULTS_WASM
from stack.running import definitions_key

TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
ONE = Team(9301, "phc_leakProjectOne", None, "phs_leakSecretOne", "phs_leakBackupOne")
MISSING = Team(9302, "phc_leakProjectMissing", None, "phs_leakSecretMissing")
BROKEN = Team(9303, "phc_leakProjectBroken", None, "phs_leakSecretBroken")
LIMITED = Team(9304, "phc_leakProjectLimited", None, "phs_leakSecretLimited")
CACHED = Team(9305, "phc_leakProjectCached", None, "phs_leakSecretCached")  # in PostHog's own cache alone
PROJECT_KEY = ProjectKey("phs_leakProjectKey", ONE.id)
PERSONAL = PersonalKey("phx_leakPersonal")
NO_SCOPE = PersonalKey("phx_leakNoScope", scopes=())
INACTIVE = PersonalKey("phx_leakInactive", user_active=False)
OLD_KEY = PersonalKey("leakOldKeyWithoutPrefix")
UNKNOWN = ["phs_leakUnknown", "phx_leakUnknown", "leakUnknownWithoutPrefix", "phc_leakUnknown"]
# Sent where no credential belongs.
MISPLACED = ["phs_leakInQuery", "phx_leakInCookie", "phs_leakInAgent", "phx_leakInETag", "phc_leakInHeader"]
MISPLACED += ["leakBasicUser", "phs_leakInPath", "phx_leakInBody"]

STATE = State(
    teams=[ONE, MISSING, BROKEN, LIMITED],
    project_keys=[PROJECT_KEY],
    personal_keys=[PERSONAL, NO_SCOPE, INACTIVE, OLD_KEY],
    texts={ONE.id: TEXT, LIMITED.id: TEXT, CACHED.id: TEXT},
    unreadable={BROKEN.id},
    quota_limited={LIMITED.token},
)
TEAMS = [ONE, MISSING, BROKEN, LIMITED, CACHED]
CREDENTIALS = [team.token for team in TEAMS] + [team.secret for team in TEAMS if team.secret]
CREDENTIALS += [ONE.backup or "", PROJECT_KEY.secret, *(key.key for key in STATE.personal_keys)]
CREDENTIALS += UNKNOWN + MISPLACED

# What PostHog writes; its keys name public tokens. The filter writes none of these.
POSTHOG_S = ("posthog:1:", "posthog:auth_token:", "@posthog/")


@dataclass
class Session:
    """A stack to which everything has happened."""

    stack: Stack
    answers: list[requests.Response] = field(default_factory=list)

    def ask(self, token: str | None, secret: str | None, etag: str | None = None, **more: Any) -> int:
        answer = get(self.stack, token, secret, etag, **more)
        self.answers.append(answer)
        return answer.status_code


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    config = {
        "read_through": {
            "enabled": True,
            "lookups_per_team": "1000/second",
            "lookups_per_worker": "1000/second",
        },
        "quota": {"interval": "1s"},
        "usage": {"flush_interval": "1s"},
        "metrics": {"teams": [ONE.id, CACHED.id]},
        "rate_limit": {"overrides": {str(LIMITED.id): "100000/minute"}},
    }
    settings = {"wasm": FAULTS_WASM, "log_level": "trace"}
    with writers.stack_with(STATE, settings=settings, may_trap=True, **config) as stack:
        writers.put_team(stack, CACHED)
        writers.put_credential(stack, CACHED.secret, writers.team_secret_entry(CACHED))
        session = Session(stack)
        everything_happens(session)
        yield session


def everything_happens(session: Session) -> None:
    stack = session.stack
    stack.wait_until(lambda: session.ask(LIMITED.token, LIMITED.secret) == 402)
    every_pair(session)
    misplaced(session)
    assert session.ask(BROKEN.token, BROKEN.secret) == 500
    assert session.ask(MISSING.token, MISSING.secret) == 503
    key = definitions_key(CACHED.id)
    stack.redis.mset({key: b"\x80\x04nonsense" + CACHED.secret.encode(), f"{key}:etag": "0" * 16})
    stack.wait_until(lambda: session.ask(CACHED.token, CACHED.secret) == 500)
    for outage, repair in ((stack.pause, stack.resume), (stack.stop_part, stack.restart)):
        outage("webdis")
        # Not before what is kept is no longer known to be current.
        stack.wait_until(lambda: session.ask(ONE.token, ONE.secret) == 503)
        assert session.ask("phc_leakUnknown", "phs_leakUnknown") in (401, 503)
        repair("webdis")
    stack.wait_until(lambda: session.ask(ONE.token, ONE.secret) == 200)
    # A bug of the filter, while it holds credentials; twice, so that VMs come back and go again.
    for _ in range(2):
        session.ask(ONE.token, ONE.secret, headers=TRAP)
        session.ask("phc_leakUnknown", "phx_leakUnknown", headers=TRAP)
        stack.wait_until(lambda: session.ask(ONE.token, ONE.secret) == 200)
    # A configuration that is refused, and one that is not.
    assert not stack.change_config({"redis": {"default": {"cluster": ""}}})
    stack.wait_until(lambda: bool(writers.usage(stack, ONE.id)))
    stack.wait_until(lambda: MISSING.id in writers.rebuild_requests(stack))
    time.sleep(1)  # counts reach Envoy


def every_pair(session: Session) -> None:
    """Each token with each credential: every way to be accepted or refused."""
    tokens = [None, "", *(team.token for team in TEAMS), *UNKNOWN[:1], "phc_leakUnknown"]
    secrets = [None, *(secret for secret in CREDENTIALS if secret not in MISPLACED)]
    seen = {session.ask(token, secret) for token in tokens for secret in secrets}
    assert seen == {200, 400, 401, 402, 403, 500, 503}


def misplaced(session: Session) -> None:
    """Credentials where nobody looks for them, and requests that are broken."""
    headers: list[dict[str, str]] = [
        {"Cookie": "key=phx_leakInCookie"},
        {"User-Agent": "posthog-phs_leakInAgent/phs_leakInAgent"},
        {"X-PostHog-Project-Api-Key": "phc_leakInHeader"},
        {"X-Api-Key": "phc_leakInHeader"},
        {"Authorization": "Basic leakBasicUser"},
        {"Authorization": "bearer leakBasicUser"},
        {"Authorization": "leakBasicUser"},
        {"Referer": "https://app.example/?token=phs_leakInQuery"},
        {"x-flag-definitions-forward-reason": "phs_leakInQuery"},
    ]
    for more in headers:
        secret = None if "Authorization" in more else ONE.secret
        session.ask(ONE.token, secret, headers=more)
        session.ask(None, secret, headers=more)
    for etag in ('"phx_leakInETag"', "phx_leakInETag", 'W/"phx_leakInETag", *'):
        session.ask(ONE.token, ONE.secret, etag)
    for query in ("?personal_api_key=phs_leakInQuery", "?token=phs_leakInQuery", "?phs_leakInQuery"):
        session.ask(None, ONE.secret, path=PATH + query)
        session.ask(ONE.token, ONE.secret, path=PATH + query)
    session.ask(ONE.token, ONE.secret, path="/phs_leakInPath")
    session.ask(ONE.token, ONE.secret, path=PATH + "/phs_leakInPath")
    session.ask(ONE.token, ONE.secret, method="POST", data=b"key=phx_leakInBody")
    session.ask(ONE.token, ONE.secret, data=b"key=phx_leakInBody")
    bad = b"authorization: Bearer phs_leakUnknown\xff\xfe"
    for target in (
        b"/flags/definitions?token=phc_leakUnknown\xff",
        b"/flags/definitions?token=%ff%00phc_leakUnknown",
    ):
        raw(session.stack, raw_get(target, bad), timeout=2)
        raw(session.stack, raw_get(target, b"authorization: Bearer " + b"phx_leakUnknown" * 2000), timeout=2)


def found_in(text: str, credentials: list[str]) -> set[str]:
    """Which of them are there, named by their hash: a failure must not tell them either."""
    return {hashlib.sha256(c.encode()).hexdigest()[:8] + " " + c[:9] for c in credentials if c in text}


def test_everything_happened(session: Session) -> None:
    assert trap_count(session.stack) >= 2
    assert {a.status_code for a in session.answers} >= {200, 400, 401, 402, 403, 404, 405, 500, 503}
    assert len(found_in(" ".join(CREDENTIALS), CREDENTIALS)) == len(CREDENTIALS)
    log = session.stack.log("envoy")
    # Lines are bounded in a second, so not every request has one.
    for line in ('"reason":"secret_invalid"', '"reason":"payload_undecodable"'):
        assert line in log, line


def test_no_credential_in_logs(session: Session) -> None:
    stack = session.stack
    for path in sorted(stack.settings.run_dir.glob("*.log")):
        text = path.read_text(errors="replace")
        # webdis logs nothing of a request, and Redis nothing of a command: nobody set them to.
        assert found_in(text, CREDENTIALS) == set(), path.name
        hashes = [hashlib.sha256(credential.encode()).hexdigest() for credential in CREDENTIALS]
        assert found_in(text, hashes) == set(), path.name


def test_no_credential_in_envoy_s_admin_interface_or_health(session: Session) -> None:
    stack = session.stack
    pages = [
        "stats/prometheus",
        "stats?format=json",
        "config_dump?include_eds",
        "clusters",
        "listeners",
        "certs",
    ]
    urls = [f"{stack.admin_url}/{page}" for page in pages] + [f"{stack.health_url}/health"]
    for url in urls:
        status, body = stack.http(url)
        assert status == 200 and body, url
        assert found_in(body.decode(), CREDENTIALS) == set(), url
        hashes = [hashlib.sha256(credential.encode()).hexdigest() for credential in CREDENTIALS]
        assert found_in(body.decode(), hashes) == set(), url


def test_no_credential_in_answers(session: Session) -> None:
    for answer in session.answers:
        shown = answer.text + str(answer.headers)
        assert found_in(shown, CREDENTIALS) == set(), (answer.request.method, answer.status_code)


def test_no_credential_in_what_the_filter_and_the_publisher_write(session: Session) -> None:
    """Key by key. PostHog's own names of tokens are PostHog's."""
    stack, own = session.stack, []
    for key in stack.redis.scan_iter():
        name = key.decode()
        if not name.startswith(POSTHOG_S):
            own.append(name)
            assert found_in(name + content(stack, name), CREDENTIALS) == set(), name
    for written in ("flag_definitions:snapshot", "flag_definitions:rebuild_requests"):
        assert written in own, "there is something to search"
    assert any(name.startswith("posthog:local_evaluation_requests:sdk:") for name in own)
    assert any(name.startswith("flag_definitions:usage:") for name in own)


def content(stack: Stack, name: str) -> str:
    read = {
        "string": stack.redis.get,
        "hash": stack.redis.hgetall,
        "zset": lambda key: stack.redis.zrange(key, 0, -1),
        "list": lambda key: stack.redis.lrange(key, 0, -1),
        "stream": stack.redis.xrange,
    }
    kind = stack.redis.type(name).decode()
    return repr(read[kind](name)) if kind in read else ""
