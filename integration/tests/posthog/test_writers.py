"""The values that the other tests write are the bytes that PostHog's specification of them says."""

from __future__ import annotations

import pickle

import pytest

from models.posthog import writers
from models.posthog.endpoint import Team
from stack.launcher import Stack
from stack.running import definitions_key

LARGE = {"flags": [{"key": f"flag-{n}"} for n in range(40)], "cohorts": {}, "group_type_mapping": {}}


@pytest.fixture
def redis(redis_and_webdis: Stack) -> Stack:
    redis_and_webdis.redis.flushall()
    return redis_and_webdis


@pytest.mark.parametrize(("compressor", "protocol"), writers.ENCODINGS)
def test_definitions(redis: Stack, compressor: writers.Compressor, protocol: int) -> None:
    etag = writers.put_definitions_django(redis, 7, LARGE, compressor, protocol)
    stored = redis.redis.get(definitions_key(7))
    magic = {"zstd": b"\x28\xb5\x2f\xfd", "zlib": b"\x78\x9c", None: bytes([0x80, protocol])}[compressor]
    assert stored.startswith(magic)
    assert 0 < redis.redis.ttl(definitions_key(7)) <= 7 * writers.DAY
    assert redis.redis.get(definitions_key(7) + ":etag") == pickle.dumps(etag, protocol)


@pytest.mark.parametrize(
    ("document", "etag"),
    [
        ('{"flags":[]}', "ccbb299897f0a689"),
        ({"flags": [], "cohorts": {}, "group_type_mapping": {}}, "f3268f0150b30bf3"),
    ],
)
def test_short_definitions_are_not_compressed(redis: Stack, document: str | dict, etag: str) -> None:
    assert writers.put_definitions_django(redis, 7, document) == etag
    assert redis.redis.get(definitions_key(7)).startswith(b"\x80\x04\x95")


def test_the_sentinel(redis: Stack) -> None:
    writers.put_missing(redis, 7)
    assert redis.redis.get(definitions_key(7)).hex(" ") == (
        "80 04 95 0f 00 00 00 00 00 00 00 8c 0b 5f 5f 6d 69 73 73 69 6e 67 5f 5f 94 2e"
    )


def test_teams_and_credentials(redis: Stack) -> None:
    team = Team(7, "phc_seven", secret="phs_seven")
    writers.put_team(redis, team)
    writers.put_credential(redis, "test_key_12345", writers.team_secret_entry(team), "plain")
    assert {key.decode() for key in redis.redis.scan_iter()} == {
        "posthog:1:cache/team_tokens/phc_seven/team_metadata/full_metadata.json",
        "posthog:auth_token:sha256$45af89b510a3279a817f851de5d3f95b73485d58ec2672a39e52d8aeeb014059",
    }
