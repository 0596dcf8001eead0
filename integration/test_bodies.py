"""Bodies that workers keep: a 200 costs no callout while its ETag is known to be current, in the coding that
the client asks for; what is not known to be current is never answered."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import bodies
import writers
from edge import (
    PATH,
    UNLIMITED,
    Crowd,
    Tally,
    authenticated_get,
    get,
    in_background,
    trap_count,
    wait_until_all,
)
from model import VARY, VARY_BY_ENCODING, State, Team, etag_of, stored_text
from sdks import SDKS, Poll
from stack import Stack

ETAG_MAX_AGE = 2.0  # the filter's default, in seconds
NEGATIVE_TTL = 1.0
CROWD = 2_000
FLUSH = {"usage": {"flush_interval": "300ms"}}


def flags(version: int, count: int = 40) -> str:
    flags = [{"key": f"flag-{n}", "id": n * 7919 % 10_007, "active": True} for n in range(count)]
    return stored_text({"flags": flags, "cohorts": {}, "group_type_mapping": {}, "version": version})


def team(number: int) -> Team:
    return Team(number, f"phc_bodies_{number}", None, f"phs_bodies_{number}")


TEAMS = [team(n) for n in range(11_001, 11_021)]
STATE = State(teams=TEAMS, texts={team.id: flags(0) for team in TEAMS})
LARGE = flags(0, 30_000)  # above 1.5 MB


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with writers.stack_with(STATE, **UNLIMITED, **FLUSH) as stack:
        yield stack


class Connection:
    """Sends requests of one team over one connection, so to one worker."""

    def __init__(self, stack: Stack, team: Team) -> None:
        self.team = team
        self.connection = http.client.HTTPConnection("127.0.0.1", stack.settings.edge_port, timeout=20)

    def get(
        self, etag: str | None = None, *accepted: str, method: str = "GET", agent: str = "posthog-python/7"
    ) -> http.client.HTTPResponse:
        """The answer; its body as it came is `answer.sent`."""
        target = f"{PATH}?token={self.team.token}"
        self.connection.putrequest(method, target, skip_accept_encoding=True)
        self.connection.putheader("Authorization", f"Bearer {self.team.secret}")
        self.connection.putheader("User-Agent", agent)
        for field in accepted:
            self.connection.putheader("Accept-Encoding", field)
        if etag is not None:
            self.connection.putheader("If-None-Match", f'W/"{etag}"')
        self.connection.endheaders()
        answer = self.connection.getresponse()
        answer.sent = answer.read()  # type: ignore[attr-defined]
        return answer

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def connected(stack: Stack, team: Team) -> Iterator[Connection]:
    connection = Connection(stack, team)
    try:
        yield connection
    finally:
        connection.close()


def text_of(answer: Any) -> str:
    packed = answer.headers.get("content-encoding") == "gzip"
    return (gzip.decompress(answer.sent) if packed else answer.sent).decode()


def put(stack: Stack, team: Team, text: str) -> str:
    return writers.put_definitions_django(stack, team.id, text)


# === What it costs ===


def test_a_kept_body_costs_no_callout(stack: Stack) -> None:
    own = TEAMS[0]
    with connected(stack, own) as connection:
        tally = Tally(stack)
        began = time.monotonic()
        for n in range(50):
            answer = connection.get("0" * 16 if n % 2 else None)
            assert (answer.status, text_of(answer)) == (200, flags(0))
            assert answer.headers["etag"] == f'W/"{etag_of(flags(0))}"'
            assert answer.headers["content-length"] == str(len(flags(0)))
        assert connection.get(etag_of(flags(0))).status == 304
        took = time.monotonic() - began
        tally.after(51)
    assert tally.count("callouts", store="definitions") <= 1 + took / ETAG_MAX_AGE
    assert tally.count("etag", result="none") == tally.count("etag", result="miss") == 25
    assert tally.count("cache", result="hit") == 50


def test_without_a_cache_each_200_is_read() -> None:
    state = State(teams=TEAMS[:1], texts={TEAMS[0].id: flags(0)})
    off = {"definitions": {"body_cache_bytes": 0}}
    with writers.stack_with(state, **UNLIMITED, **off) as stack, connected(stack, TEAMS[0]) as connection:
        tally = Tally(stack)
        for _ in range(50):
            answer = connection.get(None, "gzip")
            assert (answer.status, answer.sent.decode()) == (200, flags(0))
            assert answer.headers["vary"] == VARY
        assert tally.after(50).count("callouts", store="definitions") == 50


def test_a_stampede_after_a_change_costs_a_callout_a_worker_and_all_get_the_new_version(stack: Stack) -> None:
    own = TEAMS[1]
    for _ in range(20):  # both workers have the old one
        assert get(stack, own.token, own.secret).status_code == 200
    # Whatever they hold, they are of one team.
    held = [b"", b'"0000000000000000"', f'W/"{etag_of(flags(0))}"'.encode(), b'"1"']
    asks = [
        authenticated_get(f"?token={own.token}".encode(), own.secret or "").replace(
            b"\r\n\r\n", b"\r\nif-none-match: " + tag + b"\r\n\r\n" if tag else b"\r\n\r\n"
        )
        for tag in held
    ]
    new = put(stack, own, flags(1))
    time.sleep(ETAG_MAX_AGE + 0.1)
    tally = Tally(stack)
    began = time.monotonic()
    crowds = [Crowd(stack, CROWD // len(asks), ask) for ask in asks]
    seen = sum((crowd.statuses() for crowd in crowds), Counter())
    took = time.monotonic() - began
    assert seen == {200: CROWD}
    tally.after(CROWD)
    asked = tally.count("callouts", store="definitions")
    print(f"{CROWD} requests in {took:.1f} s, {asked:.0f} callouts")
    # What is known grows old on the way, if that takes long.
    assert asked <= stack.settings.concurrency * (1 + took // ETAG_MAX_AGE)
    answer = get(stack, own.token, own.secret)
    assert (answer.headers["etag"], answer.text) == (f'W/"{new}"', flags(1))


# === What is current ===


def test_a_change_is_seen_within_etag_max_age_and_a_new_etag_has_its_own_body(stack: Stack) -> None:
    own = TEAMS[2]
    versions = {etag_of(flags(n)): flags(n) for n in range(8)}
    wrong: list[str] = []
    seen: list[tuple[float, str]] = []
    unavailable: list[float] = []
    stop = threading.Event()

    def hammer(number: int) -> None:
        with connected(stack, own) as connection:
            held = None
            while not stop.is_set():
                asked_at = time.monotonic()
                answer = connection.get(held if number % 2 else None, "gzip" if number % 3 else "identity")
                if answer.status == 503:  # a busy machine: Redis did not answer in time
                    unavailable.append(asked_at)
                    time.sleep(0.05)
                    continue
                etag = answer.headers["etag"].removeprefix('W/"').rstrip('"')
                if answer.status == 200 and text_of(answer) != versions[etag]:
                    wrong.append(etag)
                if answer.status == 304 and etag != held:
                    wrong.append(f"304 {etag} for {held}")
                held = etag
                seen.append((asked_at, etag))

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    changed: list[tuple[float, str]] = []
    for number in range(1, 8):
        time.sleep(0.7 + 0.3 * number)
        etag = put(stack, own, flags(number))
        changed.append((time.monotonic(), etag))
    time.sleep(ETAG_MAX_AGE + 1)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    order = [etag_of(flags(n)) for n in range(8)]
    slack = 0.6  # a callout under way
    for asked_at, etag in seen:
        current = [e for at, e in changed if at <= asked_at - ETAG_MAX_AGE - slack]
        if current:
            assert order.index(etag) >= order.index(current[-1]), f"{etag} {asked_at} {changed}"
    assert {etag for _, etag in seen} >= set(order[-1:])
    print(f"{len(seen)} answers, {len(unavailable)} of 503")
    assert len(unavailable) < len(seen) / 20


@pytest.mark.parametrize("part", ["webdis", "redis"])
def test_without_redis_a_body_is_answered_while_it_is_confirmed(part: str) -> None:
    own = TEAMS[3]
    state = State(teams=[own], texts={own.id: flags(0)})
    with writers.stack_with(state, **UNLIMITED) as stack, connected(stack, own) as connection:
        assert connection.get().status == 200
        stack.pause(part)
        paused = time.monotonic()
        seen: list[tuple[float, int]] = []
        while time.monotonic() - paused < ETAG_MAX_AGE + 3:
            began = time.monotonic() - paused
            answer = connection.get()
            seen.append((began, answer.status))
            if answer.status == 200:
                assert text_of(answer) == flags(0)
            else:
                assert answer.sent.decode() in (bodies.MISS, bodies.TIMEOUT)
            time.sleep(0.02)
        stack.resume(part)
        early = {status for at, status in seen if at < ETAG_MAX_AGE / 2}
        late = {status for at, status in seen if at > ETAG_MAX_AGE}
        assert (early, late) == ({200}, {503})
        time.sleep(NEGATIVE_TTL + 0.1)
        stack.wait_until(lambda: get(stack, own.token, own.secret).status_code == 200)


def test_the_end_of_a_quota_period_makes_another_version() -> None:
    own = TEAMS[4]
    state = State(teams=[own], texts={own.id: flags(0)})
    plain = etag_of(flags(0))
    with writers.stack_with(state, **UNLIMITED, quota={"interval": "1s"}) as stack:
        assert get(stack, own.token, own.secret).headers["etag"] == f'W/"{plain}"'
        writers.limit_quota(stack, [own.token], seconds=8)
        # A 200 after one 402 could be of a worker that has not heard of the limit yet.
        wait_until_all(stack, lambda: get(stack, own.token, own.secret).status_code == 402)
        stack.wait_until(lambda: get(stack, own.token, own.secret).status_code == 200, timeout=15)
        with connected(stack, own) as connection:
            for _ in range(20):
                answer = connection.get(plain)
                assert (answer.status, text_of(answer)) == (200, flags(0))
                assert answer.headers["etag"].startswith(f'W/"{plain}-')


# === Codings ===


def compressed(connection: Connection, timeout: float = 10.0) -> Any:
    """The first answer in gzip form; until it is made the text comes as it is."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        answer = connection.get(None, "gzip")
        assert answer.status == 200
        if answer.headers.get("content-encoding"):
            return answer
        time.sleep(0.01)
    raise AssertionError("never in gzip form")


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


# === Bounds ===


def test_a_small_cache_serves_more_teams_than_it_holds() -> None:
    """Whoever gives way is read again; nobody gets another team's body."""
    teams = TEAMS[:12]
    state = State(teams=teams, texts={own.id: flags(own.id, 400) for own in teams})
    config = {"definitions": {"body_cache_bytes": 65_536}} | UNLIMITED
    with writers.stack_with(state, **config) as stack:

        def ask(own: Team) -> None:
            with connected(stack, own) as connection:
                for n in range(60):
                    answer = connection.get("0" * 16 if n % 3 else None, "gzip" if n % 2 else "identity")
                    assert (answer.status, text_of(answer)) == (200, state.texts[own.id])

        for asked in in_background(*[lambda own=own: ask(own) for own in teams]):
            asked.result(timeout=60)
        assert trap_count(stack) == 0


# === What is billed ===


def test_every_200_is_billed_once_whatever_it_was_answered_from(stack: Stack) -> None:
    own = TEAMS[9]
    with connected(stack, own) as connection:
        compressed(connection)
    stack.wait_until(lambda: settled(stack, own), timeout=15)
    before = sum(writers.usage(stack, own.id).values())
    received = 0
    with contextlib.ExitStack() as exits:
        connections = [exits.enter_context(connected(stack, own)) for _ in range(6)]
        for n in range(300):
            held = [None, "0" * 16, etag_of(flags(0))][n % 3]
            coding = ["gzip", "identity"][n % 2]
            received += connections[n % 6].get(held, coding).status == 200
    assert received == 200
    stack.wait_until(lambda: sum(writers.usage(stack, own.id).values()) - before >= received)
    time.sleep(1)
    assert sum(writers.usage(stack, own.id).values()) - before == received


def settled(stack: Stack, own: Team) -> bool:
    before = writers.usage(stack, own.id)
    time.sleep(1)
    return writers.usage(stack, own.id) == before


# === Real clients ===


@pytest.mark.parametrize("name", SDKS)
def test_sdks_take_kept_bodies(stack: Stack, name: str) -> None:
    own = TEAMS[10]
    text = {
        "flags": [
            {
                "id": 1,
                "team_id": own.id,
                "name": "",
                "key": "kept",
                "filters": {"groups": [{"properties": [], "rollout_percentage": 100}]},
                "deleted": False,
                "active": True,
                "ensure_experience_continuity": False,
                "version": 1,
            }
        ],
        "cohorts": {},
        "group_type_mapping": {},
    }
    etag = put(stack, own, stored_text(text))
    time.sleep(ETAG_MAX_AGE + 0.1)
    with connected(stack, own) as connection:
        compressed(connection)
    for _ in range(3):
        with SDKS[name](stack, own.token, own.secret or "") as sdk:
            first: Poll = sdk.poll()
            assert first == Poll(200, None, {"kept": True})
            assert sdk.poll() == Poll(304, f'W/"{etag}"', {"kept": True})
