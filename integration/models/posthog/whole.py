"""Whether what a watching publisher has in Redis is whole, read independently of publisher and filter.

`look(stack)` reads manifest, pages and stream in one step, and fails when a page is missing or damaged, an
entry of the stream is not chained to the one before, or a fence goes down. `records_of(database)` is what
should be published.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import uuid
from dataclasses import dataclass
from typing import Any

from models.posthog.endpoint import READING_SCOPES
from posthog_db import Database
from stack.launcher import Stack

PREFIX = "flag_definitions:"
MAX_PAGE_BYTES, MAX_ENTRY_RECORDS = 128 << 10, 128
TOMBSTONE, TEAM, TEAM_SECRET, PROJECT_SECRET, PERSONAL, ETAG = range(6)
COUNTED = {
    "teams": TEAM,
    "team_secrets": TEAM_SECRET,
    "project_secret_keys": PROJECT_SECRET,
    "personal_keys": PERSONAL,
    "etags": ETAG,
}

# A hash's record, as a tuple: kind first, lists as sets.
Records = dict[bytes, tuple]
Id = tuple[int, int]

# One step, so that no write comes between its reads.
LOOK = """
local m = redis.call('GET', KEYS[1])
local o = {m or '', redis.call('GET', KEYS[3]) or '', redis.call('GET', KEYS[4]) or ''}
local pages = {}
if m then
  local d = cjson.decode(m)
  for i = 0, #d.pages - 1 do
    local page = KEYS[1] .. ':' .. string.format('%.0f', d.generation) .. ':' .. i
    pages[#pages + 1] = redis.call('GET', page) or ''
  end
end
o[4], o[5] = pages, redis.call('XRANGE', KEYS[2], '-', '+')
return o
"""


@dataclass(frozen=True)
class Published:
    """All that is published at one moment."""

    manifest: dict[str, Any]
    snapshot: Records
    records: Records  # with all changes applied; tombstones left out
    last: Id  # of the stream, or the manifest's when nothing follows it
    fence: int  # of the last entry; 0 without any
    watermarks: list[tuple[int, int]]  # those after the manifest: (etags_at, records_at) in ms, 0 for none

    @property
    def generation(self) -> int:
        return self.manifest["generation"]

    @property
    def lineage(self) -> int:
        return self.manifest["lineage"]

    def follows(self, earlier: Published) -> None:
        """Nothing went backwards since."""
        assert self.generation >= earlier.generation
        assert stream_id(self.manifest["stream_id"]) >= stream_id(earlier.manifest["stream_id"])
        assert self.last >= earlier.last, "the stream went back"
        assert self.fence >= earlier.fence or not self.fence, "a fence went down"
        assert self.lineage >= earlier.lineage

    def of_kinds(self, *kinds: int) -> Records:
        return {key: record for key, record in self.records.items() if record[0] in kinds}

    @property
    def credentials(self) -> Records:
        return self.of_kinds(TEAM, TEAM_SECRET, PROJECT_SECRET, PERSONAL)

    def etag(self, team_id: int) -> str | None:
        record = self.records.get(etag_hash(team_id))
        return None if record is None else record[1]


def look(stack: Stack, previous: Published | None = None, may_be_missing: bool = False) -> Published | None:
    """What is published; fails when it is not whole, or went back since `previous`. `None` when there is no
    manifest, which fails, too, unless it `may_be_missing`."""
    keys = [PREFIX + name for name in ("snapshot", "changes", "generation", "fence")]
    text, generation, fence, pages, entries = stack.redis.eval(LOOK, len(keys), *keys)
    if not text:
        assert may_be_missing, "there is no manifest"
        return None
    manifest = json.loads(text)
    assert manifest["format"] == 1 and manifest["etags_watched"] is True and manifest["lineage"] > 0
    assert manifest["lineage"] <= manifest["generation"]
    # A counter that was lost is set again when it is next needed.
    assert not generation or manifest["generation"] <= int(generation)
    snapshot = read_pages(manifest, pages)
    published = follow(manifest, snapshot, entries)
    assert not fence or published.fence <= int(fence), "an entry's fence was never given out"
    if previous:
        published.follows(previous)
    return published


def read_pages(manifest: dict[str, Any], pages: list[bytes]) -> Records:
    snapshot: Records = {}
    before = b""
    for number, (expected, page) in enumerate(zip(manifest["pages"], pages, strict=True)):
        assert page, f"page {number} of generation {manifest['generation']} is missing"
        assert len(page) == expected["bytes"] <= MAX_PAGE_BYTES
        assert base64.b64encode(hashlib.sha256(page).digest()).decode() == expected["sha256"], number
        for key, record in read_records(page):
            assert key > before, "records are out of order"
            before = key
            snapshot[key] = decode(record)
    counts = {name: 0 for name in COUNTED}
    kinds = {kind: name for name, kind in COUNTED.items()}
    for record in snapshot.values():
        if record[0] != TOMBSTONE:
            counts[kinds[record[0]]] += 1
    assert manifest["records"] == counts
    return snapshot


def follow(manifest: dict[str, Any], snapshot: Records, entries: list) -> Published:
    """Applies the stream. Entries before the manifest's id are looked at, too, but for their chain: where a
    lineage begins, there is none."""
    begin = stream_id(manifest["stream_id"])
    records, last, fence, watermarks = dict(snapshot), begin, 0, []
    for raw_id, fields in entries:
        assert fields[::2] == [b"p", b"f", b"k", b"v"], fields[::2]
        own, before, kind, value = stream_id(raw_id), stream_id(fields[1]), fields[5], fields[7]
        assert int(fields[3]) >= fence, f"the fence goes down at {own}"
        fence = int(fields[3])
        assert before < own
        changed = [(key, decode(record)) for key, record in read_records(value)] if kind == b"r" else []
        assert len(changed) <= MAX_ENTRY_RECORDS
        assert kind == b"r" or (kind == b"w" and re.fullmatch(rb"\d+:\d+", value)), kind
        if own <= begin:
            continue
        assert before == last, f"{own} follows {before}, but {last} is before it"
        last = own
        records |= changed
        if kind == b"w":
            etags_at, records_at = value.split(b":")
            watermarks.append((int(etags_at), int(records_at)))
    living = {key: record for key, record in records.items() if record[0] != TOMBSTONE}
    return Published(manifest, snapshot, living, last, fence, watermarks)


def leftovers(stack: Stack) -> list[str]:
    """Pages that belong to no manifest and never expire."""
    manifest = json.loads(stack.redis.get(PREFIX + "snapshot"))
    current = f"{PREFIX}snapshot:{manifest['generation']}:".encode()
    pages = stack.redis.scan_iter(match=PREFIX + "snapshot:*", count=1000)
    return [key.decode() for key in pages if not key.startswith(current) and stack.redis.ttl(key) < 0]


# === The layouts ===


def stream_id(text: str | bytes) -> Id:
    millis, sequence = (text.decode() if isinstance(text, bytes) else text).split("-")
    return int(millis), int(sequence)


def read_records(page: bytes) -> list[tuple[bytes, bytes]]:
    assert page[:4] == b"FDP1", page[:4]
    records, at = [], 4
    while at < len(page):
        key = page[at : at + 32]
        (length,) = struct.unpack_from("<H", page, at + 32)
        record = page[at + 34 : at + 34 + length]
        assert len(record) == length, "a page is cut off"
        records.append((key, record))
        at += 34 + length
    return records


def decode(record: bytes) -> tuple:
    kind, rest = record[0], record[1:]
    if kind == TOMBSTONE:
        assert not rest
        return (TOMBSTONE,)
    if kind == TEAM:
        organization = str(uuid.UUID(bytes=rest[4:])) if len(rest) > 4 else None
        return TEAM, struct.unpack_from("<I", rest)[0], organization
    if kind == TEAM_SECRET:
        return TEAM_SECRET, *struct.unpack("<I", rest)
    if kind == PROJECT_SECRET:
        return PROJECT_SECRET, *struct.unpack("<I?", rest)
    if kind == PERSONAL:
        active, reads_flags = struct.unpack_from("<??", rest)
        at, lists = 2, []
        for size, read in [
            (4, lambda item: struct.unpack("<I", item)[0]),
            *[(16, lambda item: str(uuid.UUID(bytes=item)))] * 2,
        ]:
            (count,) = struct.unpack_from("<H", rest, at)
            items = [rest[at + 2 + n * size : at + 2 + (n + 1) * size] for n in range(count)]
            lists.append(frozenset(map(read, items)))
            at += 2 + count * size
        assert at == len(rest)
        return PERSONAL, active, reads_flags, *lists
    assert kind == ETAG, kind
    return ETAG, rest.decode()


def etag_hash(team_id: int) -> bytes:
    return hashlib.sha256(b"\0etag" + struct.pack("<I", team_id)).digest()


# === What should be published ===


def records_of(database: Database) -> Records:
    """Teams and credentials by PostHog's rules, straight from its tables."""
    records: Records = {}
    for team_id, organization, token, *secrets in database.execute(
        "SELECT id, organization_id, api_token, secret_api_token, secret_api_token_backup FROM posthog_team"
    ):
        records[digest(token)] = (TEAM, team_id, None if organization is None else str(organization))
        records |= {digest(secret): (TEAM_SECRET, team_id) for secret in secrets if secret}
    for secure_value, team_id, scopes in database.execute(
        "SELECT secure_value, team_id, scopes FROM posthog_projectsecretapikey"
    ):
        records[stored(secure_value)] = (PROJECT_SECRET, team_id, reads_flags(scopes))
    for secure_value, active, scopes, teams, organizations, memberships in database.execute(
        "SELECT secure_value, is_active, scopes, scoped_teams, scoped_organizations,"
        " ARRAY(SELECT organization_id::text FROM posthog_organizationmembership m WHERE m.user_id = u.id)"
        " FROM posthog_personalapikey k JOIN posthog_user u ON u.id = k.user_id"
    ):
        lists = [frozenset(items or ()) for items in (teams, organizations, memberships)]
        records[stored(secure_value)] = (PERSONAL, active, reads_flags(scopes), *lists)
    return records


def reads_flags(scopes: list[str] | None) -> bool:
    return scopes is None or bool(READING_SCOPES & set(scopes))


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def stored(secure_value: str) -> bytes:
    return bytes.fromhex(secure_value.removeprefix("sha256$"))
