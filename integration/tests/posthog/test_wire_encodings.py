"""Section 3 of the endpoint's specification: every form in which PostHog's caches may hold a value."""

from __future__ import annotations

import json
import pickle
import time
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import zstd

from models.posthog import bodies, writers
from models.posthog.endpoint import PersonalKey, ProjectKey, State, Team, etag_of, stored_text
from stack.edge import get
from stack.launcher import Stack
from stack.running import definitions_key

MIB = 1024 * 1024


def text_of(size: int, **more: object) -> str:
    """A payload of about so many bytes that does not compress to nothing."""
    flags = [{"key": f"flag-{n}", "id": n * 7919 % 10_007} for n in range(size // 33)]
    return stored_text({"flags": flags, "cohorts": {}, "group_type_mapping": {}} | more)


# Pickle writes three forms of a string: up to 255 bytes, more, and from 64 KiB on, where protocols 4 and 5
# leave their frame out. Compression begins above 512 bytes.
TEXTS = {
    "short": text_of(60),
    "just not compressed": text_of(400),
    "compressed": text_of(700),
    "above 64 KiB": text_of(100_000),
    "1.5 MiB": text_of(3 * MIB // 2),
    "escaped": stored_text({"flags": [{"key": "a", "name": 'é 🚩 " \\ \n'}], "cohorts": {}}),
    "UTF-8": json.dumps({"flags": [{"key": "é 🚩" * 40}]}, ensure_ascii=False),
    # White space around JSON is JSON (RFC 8259 §2), and part of what the ETag is of.
    "white space around it": "\n\t " + text_of(60) + " \r\n",
    "pretty": json.dumps(json.loads(text_of(700)), indent=2),
    "deeply nested": '{"cohorts": ' + "[" * 5_000 + "]" * 5_000 + ', "flags": [{"key": "a"}]}',
}


class Row(NamedTuple):
    what: str
    text: str
    put: Callable[[Stack, int, str], object]


def by_django(compressor: writers.Compressor, protocol: int) -> Callable[[Stack, int, str], object]:
    return lambda stack, team, text: writers.put_definitions_django(stack, team, text, compressor, protocol)


def raw(encode: Callable[[bytes], bytes]) -> Callable[[Stack, int, str], object]:
    """Writes the payload by hand, and the ETag as it is."""

    def put(stack: Stack, team: int, text: str) -> None:
        key = definitions_key(team)
        stack.redis.mset({key: encode(text.encode()), f"{key}:etag": etag_of(text)})

    return put


def pickled(data: bytes) -> bytes:
    return pickle.dumps(data.decode(), 4)


ROWS = [
    Row(f"{compressor or 'uncompressed'}, protocol {protocol}, {name}", text, by_django(compressor, protocol))
    for compressor, protocol in writers.ENCODINGS
    for name, text in TEXTS.items()
]
ROWS += [Row(f"plain JSON, {name}", text, raw(lambda data: data)) for name, text in TEXTS.items()]
ROWS += [
    # Levels 1, 5 and 9: the header bytes 78 01, 78 5e and 78 da; 78 9c is among those above.
    Row(f"zlib level {n}", TEXTS["compressed"], raw(lambda data, n=n: zlib.compress(pickled(data), n)))
    for n in (1, 5, 9)
]
ROWS += [
    Row(f"zstd level {n}", TEXTS["1.5 MiB"], raw(lambda data, n=n: zstd.compress(pickled(data), n, 1)))
    for n in (1, 10)
]
FIRST_TEAM = 5001


BROKEN: dict[str, bytes] = {
    "nonsense": b"\x00nonsense",
    "a pickled number": pickle.dumps(7),
    "a pickled document": pickle.dumps({"flags": []}, 4),
    "pickled bytes": pickle.dumps(b'{"flags": []}', 4),
    "a pickle that would run a program": b"\x80\x04cos\nsystem\n\x8c\x04true\x85R.",
    "a pickle cut short": pickled(TEXTS["short"].encode())[:-5],
    "a pickle with a wrong length": b"\x80\x04X\xff\xff\xff\x7f{}\x94.",
    "zstd cut short": zstd.compress(pickled(TEXTS["compressed"].encode()), 0, 1)[:-20],
    "zstd magic alone": b"\x28\xb5\x2f\xfd",
    "zlib cut short": zlib.compress(pickled(TEXTS["compressed"].encode()))[:-20],
    "zlib of nothing pickled": zlib.compress(b"nonsense"),
    "zstd that unpacks to 64 MiB": zstd.compress(pickled(b" " * 64 * MIB), 0, 1),
    "zlib that unpacks to 64 MiB": zlib.compress(pickled(b" " * 64 * MIB)),
    "JSON cut short": TEXTS["short"].encode()[:-20],
    "pickled JSON cut short": pickled(TEXTS["short"].encode()[:-1]),
    "compressed JSON cut short": zstd.compress(pickled(TEXTS["above 64 KiB"].encode()[:-2]), 0, 1),
    "no JSON behind the brace": b"{nope",
    "a byte behind the JSON": TEXTS["short"].encode() + b"\0",
    "a second JSON behind the first": TEXTS["short"].encode() * 2,
    "a comma too many": b'{"flags": [],}',
    "no JSON number": b'{"flags": [], "cohorts": {"1": NaN}}',
    "white space alone": b" \n",
    "a byte order mark": b"\xef\xbb\xbf{}",
}
FIRST_BROKEN = 6001
OTHER_TYPES = 6901


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    count = len(ROWS)
    state = State(teams=[team(FIRST_TEAM + n) for n in range(count)])
    state.teams += [team(FIRST_BROKEN + n) for n in range(len(BROKEN))] + [team(OTHER_TYPES)]
    with writers.stack_with(state) as stack:
        yield stack


def team(team_id: int) -> Team:
    return Team(team_id, f"phc_encoding_{team_id}", None, f"phs_encoding_{team_id}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_payloads(stack: Stack, row: Row) -> None:
    own = team(FIRST_TEAM + ROWS.index(row))
    row.put(stack, own.id, row.text)
    answer = get(stack, own.token, own.secret)
    assert answer.status_code == 200
    assert answer.content == row.text.encode(), "the stored text, byte for byte"
    assert answer.headers["etag"] == f'W/"{etag_of(row.text)}"'
    assert answer.headers["cache-control"] == "private, must-revalidate"
    assert get(stack, own.token, own.secret, answer.headers["etag"]).status_code == 304


@pytest.mark.parametrize("what", BROKEN)
def test_payloads_that_cannot_be_read(stack: Stack, what: str) -> None:
    own = team(FIRST_BROKEN + list(BROKEN).index(what))
    stack.redis.set(definitions_key(own.id), BROKEN[what])
    answer = get(stack, own.token, own.secret)
    assert (answer.status_code, answer.text) == (500, bodies.UNREADABLE)
    assert answer.headers["content-type"] == bodies.TEXT
    # Nothing of it is kept, and it is billed to nobody: what is stored next is answered.
    writers.put_definitions_django(stack, own.id, TEXTS["short"])
    stack.wait_until(lambda: get(stack, own.token, own.secret).text == TEXTS["short"])
    # Its worker goes on.
    fine = team(FIRST_TEAM)
    writers.put_definitions_django(stack, fine.id, TEXTS["short"])
    assert get(stack, fine.token, fine.secret).status_code == 200


def test_neither_an_etag_of_another_type_nor_a_broken_latch_costs_the_payload(stack: Stack) -> None:
    own, text = team(OTHER_TYPES), TEXTS["short"]
    etag, latch = f"{definitions_key(own.id)}:etag", f"flag_definitions:quota_end:{own.id}"
    writers.put_definitions_django(stack, own.id, text)
    stack.redis.delete(etag)
    stack.redis.rpush(etag, "x")
    for broken in ("no number", "1:NOT-BASE-36:", "9" * 400 + ":t64vbk:", None):
        stack.redis.delete(latch)
        if broken is None:
            stack.redis.rpush(latch, "x")
        else:
            stack.redis.set(latch, broken)
        time.sleep(2.1)  # etag_max_age
        answer = get(stack, own.token, own.secret)
        assert (answer.status_code, answer.text) == (200, text), broken
        assert answer.headers["etag"] == f'W/"{etag_of(text)}"', "computed, without a suffix"


# === Identities ===

KEY = PersonalKey("phx_encoding", organizations=())
TEXT = TEXTS["short"]
WHITE_SPACE = 7101


@pytest.fixture(scope="module")
def read_through() -> Iterator[Stack]:
    state = State(
        teams=[team(7001 + n) for n in range(len(writers.ENCODINGS))], personal_keys=[KEY], texts={}
    )
    state.texts = {own.id: TEXT for own in [*state.teams, team(WHITE_SPACE)]}
    with writers.stack_with(state, "read_through") as stack:
        yield stack


@pytest.mark.parametrize(("compressor", "protocol"), writers.ENCODINGS)
def test_team_metadata(read_through: Stack, compressor: writers.Compressor, protocol: int) -> None:
    own = team(7001 + writers.ENCODINGS.index((compressor, protocol)))
    writers.put_team(read_through, own, compressor, protocol)
    answer = get(read_through, own.token, own.secret)
    assert (answer.status_code, answer.text) == (200, TEXT)


def test_white_space_before_what_is_looked_up(read_through: Stack) -> None:
    own, secret = team(WHITE_SPACE), "phs_white_space"
    key = f"posthog:1:cache/team_tokens/{own.token}/team_metadata/full_metadata.json"
    read_through.redis.set(key, "\n " + json.dumps(writers.team_metadata(own)))
    entry = writers.project_key_entry(ProjectKey(secret, own.id, None))
    read_through.redis.set(writers.credential_key(secret), "\t" + json.dumps(entry))
    answer = get(read_through, own.token, secret)
    assert (answer.status_code, answer.text) == (200, TEXT)


@pytest.mark.parametrize("form", ["pickled", "plain"])
@pytest.mark.parametrize("kind", ["secret", "project_secret", "personal"])
def test_credentials(read_through: Stack, kind: str, form: str) -> None:
    own = team(7001)
    secret = f"{'phx' if kind == 'personal' else 'phs'}_{kind}_{form}"
    entry = {
        "secret": writers.team_secret_entry(own),
        "project_secret": writers.project_key_entry(ProjectKey(secret, own.id, ("feature_flag:read",))),
        "personal": writers.personal_key_entry(KEY),
    }[kind]
    writers.put_credential(read_through, secret, entry, form)
    answer = get(read_through, own.token, secret)
    assert (answer.status_code, answer.text) == (200, TEXT)
