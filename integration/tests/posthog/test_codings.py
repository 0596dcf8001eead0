"""Content codings: gzip is made of a kept body, and sent to those who accept it."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator

import pytest

from models.posthog import writers
from models.posthog.endpoint import VARY, VARY_BY_ENCODING, State
from models.posthog.kept_bodies import (
    ETAG_MAX_AGE,
    FLUSH,
    STATE,
    TEAMS,
    compressed,
    connected,
    flags,
    put,
    text_of,
)
from stack.edge import UNLIMITED, get, trap_count
from stack.launcher import Stack

LARGE = flags(0, 30_000)  # above 1.5 MB


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with writers.stack_with(STATE, **UNLIMITED, **FLUSH) as stack:
        yield stack


@pytest.mark.parametrize("text", [flags(0, 3), flags(0), flags(0, 2_000), LARGE], ids=len)
def test_gzip_is_the_same_text_under_the_same_etag(stack: Stack, text: str) -> None:
    own = TEAMS[5]
    etag = put(stack, own, text)
    time.sleep(ETAG_MAX_AGE + 0.1)
    with connected(stack, own) as connection:
        plain = connection.get(None, "identity")
        assert plain.sent.decode() == text
        assert "content-encoding" not in plain.headers
        packed = compressed(connection)
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.sent).decode() == text
        assert packed.headers["content-length"] == str(len(packed.sent))
        assert len(packed.sent) < len(text)
        for name in ("etag", "vary", "content-type", "cache-control"):
            assert packed.headers[name] == plain.headers[name], name
        assert packed.headers["etag"] == f'W/"{etag}"'
        assert packed.headers.get_all("vary") == [VARY_BY_ENCODING]
        current = connection.get(etag, "gzip")
        assert (current.status, current.sent) == (304, b"")
        assert current.headers.get_all("vary") == [VARY_BY_ENCODING]
        assert "content-encoding" not in current.headers
        print(f"{len(text)} → {len(packed.sent)} bytes")
    assert trap_count(stack) == 0


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ((), False),
        (("",), False),
        (("gzip",), True),
        (("GZIP",), True),
        (("x-gzip",), True),
        (("gzip, deflate, br, zstd",), True),
        (("deflate", "gzip;q=0.5"), True),
        (("*",), True),
        (("identity;q=0, *",), True),
        (("gzip;q=0",), False),
        (("gzip;q=0, *;q=1",), False),
        (("*;q=0",), False),
        (("identity;q=0",), False),
        (("identity, gzip;q=0.9",), False),
        (("br;q=1.0, deflate",), False),
        (("gzip;q=much",), False),
        (("gzip;q=0.5;q=0",), False),
        ((",,;;=,\xff\xfe",), False),
        (("gzip," * 5_000,), True),
    ],
)
def test_who_accepts_gzip(stack: Stack, accepted: tuple[str, ...], packed: bool) -> None:
    own = TEAMS[6]
    with connected(stack, own) as connection:
        compressed(connection)
        answer = connection.get(None, *accepted)
    assert answer.status == 200
    assert (answer.headers.get("content-encoding") == "gzip") == packed
    assert text_of(answer) == flags(0)
    assert answer.headers.get_all("vary") == [VARY_BY_ENCODING]


def test_other_answers_do_not_vary_by_coding(stack: Stack) -> None:
    own = TEAMS[7]
    for secret, method, status in [
        ("phs_x", "GET", 401),
        (own.secret, "POST", 405),
        (own.secret, "HEAD", 200),
    ]:
        answer = get(stack, own.token, secret, method=method, headers={"Accept-Encoding": "gzip"})
        assert (answer.status_code, answer.headers["vary"]) == (status, VARY)
        assert "content-encoding" not in answer.headers


def test_gzip_can_be_off_and_head_has_the_headers_of_get() -> None:
    own = TEAMS[8]
    state = State(teams=[own], texts={own.id: flags(0)})
    for gzip_on in (True, False):
        config = {"definitions": {"gzip": gzip_on}, "head_requests": "validate"} | UNLIMITED
        with writers.stack_with(state, **config) as stack, connected(stack, own) as connection:
            if gzip_on:
                compressed(connection)
            for _ in range(20):
                answer = connection.get(None, "gzip")
                assert (answer.status, text_of(answer)) == (200, flags(0))
                assert answer.headers["vary"] == (VARY_BY_ENCODING if gzip_on else VARY)
                assert ("content-encoding" in answer.headers) == gzip_on
                time.sleep(0.01)
            for field in ("gzip", "identity"):
                whole, head = connection.get(None, field), connection.get(None, field, method="HEAD")
                assert (head.status, head.sent) == (200, b"")
                for name in ("etag", "vary", "content-type", "content-length", "content-encoding"):
                    assert head.headers.get(name) == whole.headers.get(name), (field, name)
