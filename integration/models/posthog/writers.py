"""Redis values as PostHog's own programs write them.

Django's cache goes through the real django-redis, set up like PostHog's: key prefix, version, pickle, and
zstd (before that zlib) for what is longer than 512 bytes. What PostHog writes beside Django's cache goes
through redis-py.
"""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import zstd
from django.conf import settings as django_settings
from django_redis.cache import RedisCache
from django_redis.compressors.base import BaseCompressor
from django_redis.compressors.zlib import ZlibCompressor as DjangoZlibCompressor

from models.posthog.endpoint import PersonalKey, ProjectKey, State, Team, etag_of, sha256, stored_text
from stack.edge import health, trap_count
from stack.launcher import Stack
from stack.settings import Settings

if not django_settings.configured:
    django_settings.configure()

DAY = 24 * 3600
MISSING = "__missing__"  # what PostHog stores where it knows that there is nothing to store
QUOTA_KEY = "@posthog/quota-limits/feature_flag_requests"
REBUILD_KEY = "flag_definitions:rebuild_requests"

Compressor = Literal["zstd", "zlib"] | None
# (compressor, pickle protocol), each as some release of PostHog wrote it.
ENCODINGS: list[tuple[Compressor, int]] = list(itertools.product(("zstd", "zlib", None), (3, 4, 5)))


class ZstdCompressor(BaseCompressor):
    """PostHog's: the same library, preset and limit."""

    min_length = 512

    def compress(self, value: bytes) -> bytes:
        return zstd.compress(value, 0, 1) if len(value) > self.min_length else value

    def decompress(self, value: bytes) -> bytes:
        return zstd.decompress(value)


class ZlibCompressor(DjangoZlibCompressor):
    min_length = 512


def django_cache(stack: Stack, compressor: Compressor = "zstd", protocol: int = 4) -> RedisCache:
    options: dict[str, Any] = {"PICKLE_VERSION": protocol}
    if compressor:
        classes = {"zstd": ZstdCompressor, "zlib": ZlibCompressor}
        options["COMPRESSOR"] = f"{__name__}.{classes[compressor].__name__}"
    url = f"redis://127.0.0.1:{stack.settings.redis_port}/0"
    return RedisCache(url, {"KEY_PREFIX": "posthog", "VERSION": 1, "OPTIONS": options})


# === Definitions ===


def definitions_cache_key(team_id: int) -> str:
    """Without Django's prefix and version."""
    return f"cache/teams/{team_id}/feature_flags/flags_with_cohorts.json"


def put_definitions_django(
    stack: Stack,
    team_id: int,
    document: dict[str, Any] | str,
    compressor: Compressor = "zstd",
    protocol: int = 4,
) -> str:
    """Stores a payload (a document, or its text) and its ETag. Returns the ETag."""
    text = document if isinstance(document, str) else stored_text(document)
    etag = etag_of(text)
    cache = django_cache(stack, compressor, protocol)
    key = definitions_cache_key(team_id)
    cache.set(key, text, timeout=7 * DAY)
    cache.set(f"{key}:etag", etag, timeout=7 * DAY)
    return etag


def put_missing(stack: Stack, team_id: int) -> None:
    """Says, as PostHog does for a day, that there are no definitions. Leaves no ETag."""
    cache = django_cache(stack)
    key = definitions_cache_key(team_id)
    cache.set(key, MISSING, timeout=DAY)
    cache.delete(f"{key}:etag")


def forget_definitions(stack: Stack, team_id: int) -> None:
    key = definitions_cache_key(team_id)
    django_cache(stack).delete_many([key, f"{key}:etag"])


# === Who may read what ===


def team_metadata(team: Team) -> dict[str, Any]:
    """What PostHog caches of a team; it has about 40 fields, these show their kinds."""
    return {
        "id": team.id,
        "project_id": team.id,
        "uuid": f"0190d6f1-0000-7000-8000-{team.id:012d}",
        "name": f'Team {team.id} "größer"',
        "api_token": team.token,
        "organization_id": team.organization,
        "organization_name": None if team.organization is None else "Example",
        "secret_api_token": team.secret,
        "secret_api_token_backup": team.backup,
        "timezone": "UTC",
        "session_recording_opt_in": False,
        "session_recording_sample_rate": "0.50",
        "autocapture_exceptions_errors_to_ignore": [],
        "cookieless_server_hash_mode": 0,
        "extra_settings": {"recorder_script": "posthog-recorder"},
        "updated_at": "2026-07-01T12:00:00+00:00",
    }


def put_team(stack: Stack, team: Team, compressor: Compressor = "zstd", protocol: int = 4) -> None:
    key = f"cache/team_tokens/{team.token}/team_metadata/full_metadata.json"
    django_cache(stack, compressor, protocol).set(key, stored_text(team_metadata(team)), timeout=7 * DAY)


def put_credential(
    stack: Stack, secret: str, entry: dict[str, Any], form: Literal["pickled", "plain"] = "pickled"
) -> None:
    """Stores a checked credential, as PostHog's service does, without Django's prefix."""
    text = json.dumps(entry, separators=(",", ":"))
    stack.redis.set(credential_key(secret), pickle.dumps(text, 4) if form == "pickled" else text)


def forget_credential(stack: Stack, secret: str) -> None:
    stack.redis.delete(credential_key(secret))


def credential_key(secret: str) -> str:
    return f"posthog:auth_token:sha256${sha256(secret)}"


def team_secret_entry(team: Team) -> dict[str, Any]:
    return {"type": "secret", "team_id": team.id, "api_token": team.token}


def project_key_entry(key: ProjectKey, api_token: str | None = None) -> dict[str, Any]:
    return {
        "type": "project_secret",
        "team_id": key.team_id,
        "key_id": "0190d6f1-0000-7000-8000-0000000000aa",
        "scopes": None if key.scopes is None else list(key.scopes),
        "api_token": api_token,
    }


def personal_key_entry(key: PersonalKey) -> dict[str, Any]:
    return {
        "type": "personal",
        "user_id": 7,
        "key_id": "key-7",
        "org_ids": list(key.organizations),
        "scoped_teams": None if key.scoped_teams is None else list(key.scoped_teams),
        "scoped_orgs": None if key.scoped_organizations is None else list(key.scoped_organizations),
        "scopes": None if key.scopes is None else list(key.scopes),
        "current_team_id": None,
    }


def credential_entries(state: State) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every credential that PostHog would have an entry for. One whose user is inactive has none."""
    tokens = {team.id: team.token for team in state.teams}
    for team in state.teams:
        for secret in (team.secret, team.backup):
            if secret:
                yield secret, team_secret_entry(team)
    for project_key in state.project_keys:
        yield project_key.secret, project_key_entry(project_key, tokens.get(project_key.team_id))
    for personal_key in state.personal_keys:
        if personal_key.user_active:
            yield personal_key.key, personal_key_entry(personal_key)


# === Whole states ===


def write_identities(stack: Stack, state: State) -> None:
    """Teams and credentials, each in the next of the encodings."""
    for team, encoding in zip(state.teams, itertools.cycle(ENCODINGS), strict=False):
        put_team(stack, team, *encoding)
    forms: Iterator[Literal["pickled", "plain"]] = itertools.cycle(("pickled", "plain"))
    for (secret, entry), form in zip(credential_entries(state), forms, strict=False):
        put_credential(stack, secret, entry, form)


def write_definitions(stack: Stack, state: State) -> None:
    """Payloads, each in the next of the encodings; unreadable ones; and who is over quota."""
    for team_id, encoding in zip(state.texts, itertools.cycle(ENCODINGS), strict=False):
        put_definitions_django(stack, team_id, state.texts[team_id], *encoding)
    broken = itertools.cycle(({"not": "a string"}, '{"flags": [], "cohorts": {'))
    for team_id, value in zip(sorted(state.unreadable), broken, strict=False):
        django_cache(stack, "zstd").set(definitions_cache_key(team_id), value)
    limit_quota(stack, state.quota_limited)


# === Beside the cache ===


def limit_quota(stack: Stack, tokens: Iterable[str], seconds: float = DAY) -> None:
    """These projects are over quota for so many seconds from now."""
    until = int(time.time() + seconds)
    for token in tokens:
        stack.redis.zadd(QUOTA_KEY, {token: until})


def usage(stack: Stack, team_id: int) -> dict[int, int]:
    """Billed requests of a team: two-minute bucket → count."""
    return _counts(stack, f"posthog:local_evaluation_requests:{team_id}")


def usage_by_sdk(stack: Stack, team_id: int) -> dict[str, dict[int, int]]:
    """The same by SDK."""
    prefix = f"posthog:local_evaluation_requests:sdk:{team_id}:"
    keys = (key.decode() for key in stack.redis.scan_iter(match=prefix + "*"))
    return {key.removeprefix(prefix): _counts(stack, key) for key in keys}


def _counts(stack: Stack, key: str) -> dict[int, int]:
    return {int(bucket): int(count) for bucket, count in stack.redis.hgetall(key).items()}


def rebuild_requests(stack: Stack) -> dict[int, int]:
    """Team → epoch milliseconds of the first request."""
    entries = stack.redis.zrange(REBUILD_KEY, 0, -1, withscores=True)
    return {int(member): int(score) for member, score in entries}


@contextmanager
def stack_with(
    state: State,
    identities: Literal["snapshot", "read_through"] = "snapshot",
    settings: dict[str, Any] | None = None,
    may_trap: bool = False,
    kind: type[Stack] = Stack,
    **config: Any,
) -> Iterator[Stack]:
    """A stack that knows this state. Teams and credentials come from a published snapshot, or, with an empty
    one, from PostHog's cache. `settings` are further ones of the stack, `kind` is a variant of it."""
    document = state.source_document()
    if identities == "read_through":
        document = State().source_document()
        unbounded = {"lookups_per_team": "100000/second", "lookups_per_worker": "100000/second"}
        config = {"read_through": {"enabled": True} | unbounded} | config
    stack = kind(Settings.on_free_ports(snapshot=None, config=config or None, **(settings or {})))
    with stack.all_or_nothing():
        stack.start_redis()
        stack.start_gateway()
        stack.publish(document)
        if identities == "read_through":
            write_identities(stack, state)
        write_definitions(stack, state)
        stack.start_envoy()
        if identities == "read_through":  # Envoy is ready without the snapshot, too
            stack.wait_until(lambda: health(stack)["generation"] is not None)
    passed = False
    try:
        yield stack
        assert may_trap or trap_count(stack) == 0, "the filter trapped"
        passed = True
    finally:
        stack.stop()
        if passed:  # after a failure the logs are wanted
            shutil.rmtree(stack.settings.run_dir, ignore_errors=True)
