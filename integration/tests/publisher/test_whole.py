"""The checker of what a watching publisher wrote sees what is missing, damaged or out of order."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from models.posthog import whole
from models.posthog.whole import ETAG, PREFIX, TEAM, TEAM_SECRET, digest, etag_hash, look
from stack.launcher import Stack

TEAM_RECORD = bytes([TEAM]) + struct.pack("<I", 7)
SECRET_RECORD = bytes([TEAM_SECRET]) + struct.pack("<I", 7)
ETAG_RECORD = bytes([ETAG]) + b"abc"
GONE = b"\0"


def page(records: dict[bytes, bytes]) -> bytes:
    parts = [key + struct.pack("<H", len(record)) + record for key, record in sorted(records.items())]
    return b"FDP1" + b"".join(parts)


@pytest.fixture
def redis(redis_and_webdis: Stack) -> Stack:
    """A lineage of two pages, a change, a removal and a watermark."""
    records = {digest("phc_7"): TEAM_RECORD, digest("phs_7"): SECRET_RECORD, etag_hash(7): ETAG_RECORD}
    halves = [dict(part) for part in (sorted(records.items())[:1], sorted(records.items())[1:])]
    pages = [page(half) for half in halves]
    digests = [
        {"sha256": base64.b64encode(hashlib.sha256(data).digest()).decode(), "bytes": len(data)}
        for data in pages
    ]
    counts = {"teams": 1, "team_secrets": 1, "project_secret_keys": 0, "personal_keys": 0, "etags": 1}
    manifest = {"format": 1, "generation": 3, "stream_id": "10-0", "pages": digests, "etags_watched": True}
    client = redis_and_webdis.redis
    client.flushall()
    for number, data in enumerate(pages):
        client.set(f"{PREFIX}snapshot:3:{number}", data)
    client.set(f"{PREFIX}snapshot", json.dumps(manifest | {"lineage": 2, "records": counts}))
    client.set(f"{PREFIX}generation", 3)
    client.set(f"{PREFIX}fence", 5)
    add(redis_and_webdis, "11-0", "10-0", 4, "r", page({digest("phs_new"): SECRET_RECORD}))
    add(redis_and_webdis, "11-1", "11-0", 5, "r", page({digest("phs_7"): GONE}))
    add(redis_and_webdis, "12-0", "11-1", 5, "w", b"11999:0")
    return redis_and_webdis


def add(stack: Stack, own: str, before: str, fence: int, kind: str, value: bytes) -> None:
    stack.redis.xadd(f"{PREFIX}changes", {"p": before, "f": fence, "k": kind, "v": value}, id=own)


def change_manifest(stack: Stack, **fields: Any) -> None:
    manifest = json.loads(stack.redis.get(f"{PREFIX}snapshot"))
    stack.redis.set(f"{PREFIX}snapshot", json.dumps(manifest | fields))


def test_what_is_whole_is_read(redis: Stack) -> None:
    published = look(redis)
    assert published.credentials == {digest("phc_7"): (TEAM, 7, None), digest("phs_new"): (TEAM_SECRET, 7)}
    assert published.etag(7) == "abc" and published.etag(8) is None
    assert (published.last, published.fence, published.watermarks) == ((12, 0), 5, [(11999, 0)])
    assert look(redis, published) == published


FAULTS: dict[str, Callable[[Stack], object]] = {
    "no manifest": lambda stack: stack.redis.delete(f"{PREFIX}snapshot"),
    "a page is missing": lambda stack: stack.redis.delete(f"{PREFIX}snapshot:3:1"),
    "a page is damaged": lambda stack: stack.redis.setrange(f"{PREFIX}snapshot:3:0", 5, b"\xff"),
    "wrong counts": lambda stack: change_manifest(stack, records=dict.fromkeys(whole.COUNTED, 0)),
    "a snapshot of a file": lambda stack: change_manifest(stack, lineage=0),
    "an entry is missing": lambda stack: stack.redis.xdel(f"{PREFIX}changes", "11-0"),
    "an entry of nobody's": lambda stack: add(stack, "13-0", "11-0", 5, "w", b"1:1"),
    "a fence goes down": lambda stack: add(stack, "13-0", "12-0", 4, "w", b"1:1"),
    "a fence that nobody took": lambda stack: add(stack, "13-0", "12-0", 6, "w", b"1:1"),
    "another kind": lambda stack: add(stack, "13-0", "12-0", 5, "x", b""),
    "a record of no kind": lambda stack: add(stack, "13-0", "12-0", 5, "r", page({digest("x"): b"\x09"})),
    "ids that went back": lambda stack: stack.redis.xdel(f"{PREFIX}changes", "12-0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_whole_is_seen(redis: Stack, fault: str) -> None:
    before = look(redis)
    FAULTS[fault](redis)
    with pytest.raises((AssertionError, KeyError)):
        look(redis, before)


def test_pages_of_no_manifest_are_leftovers_until_they_expire(redis: Stack) -> None:
    assert whole.leftovers(redis) == []
    redis.redis.set(f"{PREFIX}snapshot:2:0", b"old")
    assert whole.leftovers(redis) == [f"{PREFIX}snapshot:2:0"]
    redis.redis.expire(f"{PREFIX}snapshot:2:0", 600)
    assert whole.leftovers(redis) == []
