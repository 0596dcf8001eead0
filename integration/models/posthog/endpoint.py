"""What the endpoint answers, as a model to compare with: PostHog's rules one after the other.

It shares nothing with the filter. `answer(state, request)` is all there is; `State` is what PostHog would
have in Postgres and Redis, with credentials in clear.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote_plus

from models.posthog import bodies

PATHS = (
    "/flags/definitions",
    "/flags/definitions/",
    "/api/feature_flag/local_evaluation",
    "/api/feature_flag/local_evaluation/",
)
READING_SCOPES = {"*", "feature_flag:read", "feature_flag:write"}
VARY = "origin, access-control-request-method, access-control-request-headers"
# Of payloads, which may be in gzip form, and of the 304s that stand for them.
VARY_BY_ENCODING = f"{VARY}, accept-encoding"


# === What is known ===


@dataclass(frozen=True)
class Team:
    id: int
    token: str
    organization: str | None = None
    secret: str | None = None
    backup: str | None = None


@dataclass(frozen=True)
class ProjectKey:
    secret: str
    team_id: int
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class PersonalKey:
    key: str
    organizations: tuple[str, ...] = ()
    scoped_teams: tuple[int, ...] | None = None
    scoped_organizations: tuple[str, ...] | None = None
    scopes: tuple[str, ...] | None = None
    user_active: bool = True


@dataclass
class Limits:
    """Rates so slow that nothing is refilled during a test: what is left of each team's two budgets."""

    full: int
    conditional: int
    spent: dict[tuple[str, int], int] = field(default_factory=dict)

    def spend(self, budget: str, team_id: int) -> bool:
        """True when there was something left to spend."""
        used = self.spent.get((budget, team_id), 0)
        if used >= getattr(self, budget):
            return False
        self.spent[(budget, team_id)] = used + 1
        return True


@dataclass
class State:
    teams: list[Team] = field(default_factory=list)
    project_keys: list[ProjectKey] = field(default_factory=list)
    personal_keys: list[PersonalKey] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)  # payloads as stored; none: a cache miss
    unreadable: set[int] = field(default_factory=set)  # teams whose payload cannot be decoded
    quota_limited: set[str] = field(default_factory=set)  # project tokens
    limits: Limits | None = None

    def source_document(self) -> dict[str, Any]:
        """The teams and credentials as the publisher takes them."""
        return {
            "format": 1,
            "teams": [
                {
                    "id": team.id,
                    "api_token": team.token,
                    "organization_id": team.organization,
                    "secret_token_sha256": [sha256(s) for s in (team.secret, team.backup) if s],
                }
                for team in self.teams
            ],
            "project_secret_keys": [
                {"sha256": sha256(key.secret), "team_id": key.team_id, "scopes": _list(key.scopes)}
                for key in self.project_keys
            ],
            "personal_keys": [
                {
                    "sha256": sha256(key.key),
                    "user_active": key.user_active,
                    "organization_ids": list(key.organizations),
                    "scoped_teams": _list(key.scoped_teams),
                    "scoped_organizations": _list(key.scoped_organizations),
                    "scopes": _list(key.scopes),
                }
                for key in self.personal_keys
            ],
        }


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def stored_text(document: dict[str, Any]) -> str:
    """The text that PostHog stores for a document."""
    return json.dumps(document, sort_keys=True)


def etag_of(text: str) -> str:
    return sha256(text)[:16]


def _list(values: tuple | None) -> list | None:
    return None if values is None else list(values)


# === What is asked ===


@dataclass(frozen=True)
class Request:
    method: str = "GET"
    path: str = PATHS[0]
    query: tuple[tuple[str, str | None], ...] = ()  # None: a name without `=`
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def target(self) -> str:
        pairs = (
            quote_plus(name) + ("" if value is None else "=" + quote_plus(value))
            for name, value in self.query
        )
        return self.path + ("?" + "&".join(pairs) if self.query else "")

    def header(self, name: str) -> str | None:
        """The first field of that name, without the blanks around it (RFC 9110 §5.5)."""
        return next((value.strip(" \t") for key, value in self.headers if key.lower() == name), None)

    def tokens(self) -> list[str]:
        """Those of the query; without any, the one of the header by which PostHog's Rust SDK names it."""
        query = self.target.partition("?")[2]
        tokens = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "token"]
        in_header = self.header("x-posthog-project-api-key")
        return tokens or ([in_header] if in_header else [])

    def bearer(self) -> str | None:
        authorization = self.header("authorization") or ""
        if not authorization.startswith("Bearer "):
            return None
        return authorization.removeprefix("Bearer ").strip() or None


# === What is answered ===


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def answer(state: State, request: Request) -> Answer:
    """The whole answer. Spends from `state.limits`."""
    reply = _answer(state, request)
    reply.headers = cors(request) | reply.headers
    return reply


def cors(request: Request) -> dict[str, str]:
    headers = {
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET,POST,OPTIONS,HEAD",
        "vary": VARY,
    }
    origin = request.header("origin")
    if origin is not None:
        headers["access-control-allow-origin"] = origin
    asked = request.header("access-control-request-headers")
    if asked is not None:
        headers["access-control-allow-headers"] = asked
    return headers


def _answer(state: State, request: Request) -> Answer:
    if request.method == "HEAD":
        return Answer(200, {"content-type": bodies.JSON})
    if request.method == "OPTIONS":
        return Answer(200)
    if request.method != "GET":
        return Answer(405, {"allow": "GET, OPTIONS, HEAD"})

    team = authenticate(state, request)
    if isinstance(team, Answer):
        return team

    conditional = request.header("if-none-match") is not None
    budget = "conditional" if conditional else "full"
    if state.limits and not state.limits.spend(budget, team.id):
        return _json(429, bodies.RATE_LIMITED)
    if team.token in state.quota_limited:
        return _json(402, bodies.QUOTA_LIMITED)
    return definitions(state, request, team, conditional)


def authenticate(state: State, request: Request) -> Team | Answer:
    tokens = request.tokens()
    bearer = request.bearer()
    if len(tokens) > 1:
        return _text(400, bodies.TOKEN_REPEATED)

    if not tokens:
        if bearer is None:
            return _json(401, bodies.NOT_AUTHENTICATED)
        if not bearer.startswith("phs_"):
            return _text(400, bodies.TOKEN_REQUIRED)
        owner = _team_of_secret(state, bearer)
        return owner or _json(401, bodies.SECRET_INVALID)

    team = next((team for team in state.teams if team.token == tokens[0]), None)
    if team is None:
        return _json(401, bodies.TOKEN_INVALID)
    if bearer is None:
        return _json(401, bodies.NOT_AUTHENTICATED)
    if bearer.startswith("phs_"):
        return team if _team_of_secret(state, bearer) == team else _json(401, bodies.SECRET_INVALID)
    return _with_personal_key(state, team, bearer)


def _team_of_secret(state: State, secret: str) -> Team | None:
    for team in state.teams:
        if secret in (team.secret, team.backup):
            return team
        for key in state.project_keys:
            if key.secret == secret and key.team_id == team.id:
                return team if _reads_flags(key.scopes) else None
    return None


def _with_personal_key(state: State, team: Team, bearer: str) -> Team | Answer:
    invalid = _json(401, bodies.PERSONAL_INVALID)
    key = next((key for key in state.personal_keys if key.key == bearer), None)
    if key is None or not key.user_active:
        return invalid
    if key.scoped_teams and team.id not in key.scoped_teams:
        return invalid
    if not _reads_flags(key.scopes):
        return _json(403, bodies.SCOPE_MISSING)
    if team.organization is not None:
        if key.scoped_organizations and team.organization not in key.scoped_organizations:
            return invalid
        if team.organization not in key.organizations:
            return invalid
    return team


def _reads_flags(scopes: tuple[str, ...] | None) -> bool:
    return scopes is None or bool(READING_SCOPES & set(scopes))


def definitions(state: State, request: Request, team: Team, conditional: bool) -> Answer:
    text = state.texts.get(team.id)
    if text is not None:
        etag = etag_of(text)
        validators = {"etag": f'W/"{etag}"', "cache-control": "private, must-revalidate"}
        validators["vary"] = VARY_BY_ENCODING
        if matches(request, etag):
            return Answer(304, validators)
    if conditional and state.limits and not state.limits.spend("full", team.id):
        return _json(429, bodies.RATE_LIMITED)
    if team.id in state.unreadable:
        return _text(500, bodies.UNREADABLE)
    if text is None:
        return _text(503, bodies.MISS)
    return Answer(200, {"content-type": bodies.JSON} | validators, text.encode())


def matches(request: Request, etag: str) -> bool:
    """Weak comparison (RFC 9110 §13.1.2), and bare values, as PostHog takes them."""
    fields = [value for name, value in request.headers if name.lower() == "if-none-match"]
    for member in re.findall(r'(?:W/)?"[^"]*"|[^,\s]+', ", ".join(fields)):
        if member == "*" or member.removeprefix("W/").strip('"') == etag:
            return True
    return False


def _json(status: int, body: str) -> Answer:
    return Answer(status, {"content-type": bodies.JSON}, body.encode())


def _text(status: int, body: str) -> Answer:
    return Answer(status, {"content-type": bodies.TEXT}, body.encode())
