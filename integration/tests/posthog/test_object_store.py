"""PostHog's second tier: what Redis does not have is asked of an object store, behind the cluster of
envoy/object-store.yaml with the plugin configuration of filter-config/examples/object-store.json.

The store is a stand-in (stack/object_store.py) that verifies Envoy's signatures.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import requests

from models.posthog import bodies, writers
from models.posthog.endpoint import State, Team, etag_of, stored_text
from stack import clusters, object_store
from stack.edge import get, in_background, upstream, wait_until_all
from stack.launcher import Stack
from stack.object_store import Answer, ObjectStore
from stack.running import definitions_key

TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
ETAG = f'W/"{etag_of(TEXT)}"'
STALE = 'W/"0000000000000000"'
MAX_BYTES = 10_000
PREFIX = "tier two/é=1+1/"  # S3 signs names percent-encoded
IN_REDIS, CHANGED, BILLED, CROWD, MISSING_NOTE, AWAY, ABSENT, LATER, FIRST_CODED = range(9101, 9110)
FIRST_FAILURE = 9121
GZIP = gzip.compress(TEXT.encode())


def team(team_id: int) -> Team:
    return Team(team_id, f"phc_store_{team_id}", None, f"phs_store_{team_id}")


def ask(stack: Stack, team_id: int, etag: str | None = None) -> requests.Response:
    return get(stack, team(team_id).token, team(team_id).secret, etag)


def outcome(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


def path(team_id: int) -> str:
    return (
        "/posthog-flags/tier%20two/%C3%A9%3D1%2B1/"
        f"cache/teams/{team_id}/feature_flags/flags_with_cohorts.json"
    )


@contextmanager
def stack_before(store: ObjectStore, environment: dict[str, str], **config: Any) -> Iterator[Stack]:
    """A stack without definitions in Redis."""
    example = clusters.plugin_config("object-store")
    # Times that a busy machine keeps.
    example["redis"]["default"]["timeout"] = "1s"
    example["definitions"]["object_store"] |= {"prefix": PREFIX, "timeout": "2s"}
    example["definitions"] |= {"max_bytes": MAX_BYTES}
    example |= {"usage": {"flush_interval": "1s"}} | config
    settings = {
        "clusters": (clusters.object_store(store.port, store.certificate),),
        "environment": environment,
        "log_level": "trace",
    }
    if "upstream" in config:
        settings["upstream"] = config["upstream"]
        example["upstream"] = "forward"
    state = State(teams=[team(team_id) for team_id in range(9101, 9141)])
    with writers.stack_with(state, settings=settings, **example) as stack:
        yield stack


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store.object_store() as store:
        yield store
        assert store.wrong == [], "every request was signed as S3 wants it"


@pytest.fixture(scope="module")
def stack(store: ObjectStore) -> Iterator[Stack]:
    with stack_before(store, object_store.ENVIRONMENT) as stack:
        yield stack


def test_an_object_is_answered_with_a_computed_etag_and_billed(stack: Stack, store: ObjectStore) -> None:
    store.objects[path(BILLED)] = TEXT.encode()
    answer = ask(stack, BILLED)
    assert outcome(answer) == (200, TEXT)
    assert answer.headers["etag"] == ETAG
    assert answer.headers["cache-control"] == "private, must-revalidate"
    assert answer.headers["content-type"] == bodies.JSON
    assert ask(stack, BILLED, ETAG).status_code == 304, "confirmed a moment ago"
    time.sleep(2.1)  # etag_max_age
    asked = store.asked.count(path(BILLED))
    assert ask(stack, BILLED, ETAG).status_code == 304, "confirmed by the store"
    assert store.asked.count(path(BILLED)) == asked + 1
    assert outcome(ask(stack, BILLED, STALE)) == (200, TEXT)
    stack.wait_until(lambda: sum(writers.usage(stack, BILLED).values()) == 2)
    # PostHog shall bring it back into Redis.
    stack.wait_until(lambda: BILLED in writers.rebuild_requests(stack))


CODED = {
    "gzip": GZIP,
    "GZIP": gzip.compress(TEXT.encode(), 1),
    "x-gzip": GZIP,
    "identity": TEXT.encode(),
    "": TEXT.encode(),
}


@pytest.mark.parametrize("coding", CODED)
def test_an_object_in_gzip_form_is_answered_as_its_text(
    stack: Stack, store: ObjectStore, coding: str
) -> None:
    team_id = FIRST_CODED + list(CODED).index(coding)
    store.answers[path(team_id)] = Answer(200, CODED[coding], coding=coding)
    answer = ask(stack, team_id)
    assert outcome(answer) == (200, TEXT)
    assert "content-encoding" not in answer.headers
    assert answer.headers["etag"] == ETAG, "of the text"
    assert ask(stack, team_id, ETAG).status_code == 304


def test_what_is_in_redis_never_asks_the_store(stack: Stack, store: ObjectStore) -> None:
    store.objects[path(IN_REDIS)] = b'{"flags": "another"}'
    writers.put_definitions_django(stack, IN_REDIS, TEXT)
    for etag in (None, ETAG, STALE):
        assert ask(stack, IN_REDIS, etag).status_code == (304 if etag == ETAG else 200)
    assert path(IN_REDIS) not in store.asked
    # Nor does what cannot be read there: PostHog wrote it.
    key = definitions_key(IN_REDIS)
    stack.redis.mset({key: b"\x00nonsense", key + ":etag": "fedcba9876543210"})
    wait_until_all(stack, lambda: outcome(ask(stack, IN_REDIS)) == (500, bodies.UNREADABLE))
    assert path(IN_REDIS) not in store.asked
    assert IN_REDIS not in writers.rebuild_requests(stack)


def test_posthog_s_note_that_there_is_nothing_asks_the_store(stack: Stack, store: ObjectStore) -> None:
    store.objects[path(MISSING_NOTE)] = TEXT.encode()
    writers.put_missing(stack, MISSING_NOTE)
    assert outcome(ask(stack, MISSING_NOTE)) == (200, TEXT)


def test_a_redis_that_is_away_is_no_reason_to_ask_the_store(stack: Stack, store: ObjectStore) -> None:
    store.objects[path(AWAY)] = TEXT.encode()
    stack.pause("webdis")
    try:
        assert outcome(ask(stack, AWAY)) == (503, bodies.TIMEOUT)
    finally:
        stack.resume("webdis")
    assert path(AWAY) not in store.asked
    stack.wait_until(lambda: outcome(ask(stack, AWAY)) == (200, TEXT))


def test_a_changed_object_is_seen(stack: Stack, store: ObjectStore) -> None:
    changed = stored_text({"flags": [{"key": "b"}], "cohorts": {}, "group_type_mapping": {}})
    for text in (TEXT, changed):
        store.objects[path(CHANGED)] = text.encode()

        def is_seen(text: str = text) -> bool:
            answer = ask(stack, CHANGED)
            assert answer.headers["etag"] == f'W/"{etag_of(answer.text)}"'
            return answer.text == text

        wait_until_all(stack, is_seen)
    assert ask(stack, CHANGED, f'W/"{etag_of(changed)}"').status_code == 304


def test_an_absent_object_is_a_miss_until_it_is_there(stack: Stack, store: ObjectStore) -> None:
    assert outcome(ask(stack, ABSENT)) == (503, bodies.MISS)
    assert outcome(ask(stack, ABSENT, ETAG)) == (503, bodies.MISS)
    stack.wait_until(lambda: ABSENT in writers.rebuild_requests(stack))
    assert store.asked.count(path(ABSENT)) <= 2, "each worker remembers it for a moment"
    store.objects[path(ABSENT)] = TEXT.encode()
    stack.wait_until(lambda: outcome(ask(stack, ABSENT)) == (200, TEXT))


class Failure(NamedTuple):
    what: str
    answer: Answer
    status: int
    body: str
    counted: str  # outcome of the callout


FAILURES = [
    Failure("forbidden", Answer(403), 503, bodies.MISS, "refused"),
    Failure("unauthorized", Answer(401), 503, bodies.MISS, "refused"),
    Failure("broken", Answer(500), 503, bodies.MISS, "unavailable"),
    Failure("slow down", Answer(503), 503, bodies.MISS, "unavailable"),
    Failure("redirected", Answer(301), 503, bodies.MISS, "malformed"),
    Failure("slow", Answer(200, TEXT.encode(), delay=3.5), 503, bodies.MISS, "timeout"),
    Failure(
        "too big", Answer(200, b'{"flags":[' + b" " * MAX_BYTES + b"]}"), 500, bodies.UNREADABLE, "too_big"
    ),
    Failure("much too big", Answer(200, b" " * 1_000_000), 500, bodies.UNREADABLE, "too_big"),
    Failure("not JSON", Answer(200, b"<html>"), 500, bodies.UNREADABLE, "ok"),
    Failure("empty", Answer(200, b""), 500, bodies.UNREADABLE, "ok"),
    Failure("cut short", Answer(200, TEXT.encode()[:-1]), 500, bodies.UNREADABLE, "ok"),
    Failure("gzip undeclared", Answer(200, GZIP), 500, bodies.UNREADABLE, "ok"),
    Failure("gzip cut short", Answer(200, GZIP[:-1], coding="gzip"), 500, bodies.UNREADABLE, "ok"),
    Failure("no gzip", Answer(200, TEXT.encode(), coding="gzip"), 500, bodies.UNREADABLE, "ok"),
    Failure("another coding", Answer(200, TEXT.encode(), coding="br"), 500, bodies.UNREADABLE, "ok"),
    Failure(
        "gzip of too much",
        Answer(200, gzip.compress(b'{"flags":[' + b" " * MAX_BYTES + b"]}"), coding="gzip"),
        500,
        bodies.UNREADABLE,
        "ok",
    ),
]


@pytest.mark.parametrize("row", FAILURES, ids=lambda row: row.what)
def test_failures(stack: Stack, store: ObjectStore, row: Failure) -> None:
    """Whatever the store says about the request: no client gets 401, and none drops its flags."""
    team_id = FIRST_FAILURE + FAILURES.index(row)
    store.answers[path(team_id)] = row.answer

    def counted() -> float:
        name = "flag_definitions_callouts_total"
        return stack.metric(name, store="object_store", outcome=row.counted)

    before = counted()
    assert outcome(ask(stack, team_id)) == (row.status, row.body)
    stack.wait_until(lambda: counted() > before)
    # The second tier does not make the first one whole.
    stack.wait_until(lambda: team_id in writers.rebuild_requests(stack))
    assert outcome(ask(stack, team_id, ETAG)) == (row.status, row.body)
    del store.answers[path(team_id)]
    store.objects[path(team_id)] = TEXT.encode()
    stack.wait_until(lambda: outcome(ask(stack, team_id)) == (200, TEXT))


def test_a_crowd_asks_the_store_once(stack: Stack, store: ObjectStore) -> None:
    store.answers[path(CROWD)] = Answer(200, TEXT.encode(), delay=1.0)
    answers = in_background(*[lambda: ask(stack, CROWD) for _ in range(20)])
    assert {outcome(answer.result(timeout=60)) for answer in answers} == {(200, TEXT)}
    # Once in each worker; a straggler may find its worker's callout done.
    assert 1 <= store.asked.count(path(CROWD)) <= 5


def test_no_key_of_the_store_is_anywhere(stack: Stack, store: ObjectStore) -> None:
    store.objects[path(LATER)] = TEXT.encode()
    assert ask(stack, LATER).status_code == 200
    shown = {
        "log": stack.log("envoy"),
        "metrics": stack.prometheus(),
        "config_dump": stack.http(f"{stack.admin_url}/config_dump?include_eds")[1].decode(),
        "bootstrap": (stack.settings.run_dir / "bootstrap.yaml").read_text(),
    }
    assert "flag_definitions_object_store" in shown["config_dump"], "there is something to search"
    assert "GET" not in shown["metrics"] and "snapshot 1 loaded" in shown["log"]
    for name, text in shown.items():
        for secret in object_store.ENVIRONMENT.values():
            assert secret not in text, name


@pytest.mark.parametrize("key", ["wrong", "none"])
def test_without_the_right_key_nobody_is_refused(key: str) -> None:
    environment = {} if key == "none" else object_store.ENVIRONMENT | {"AWS_SECRET_ACCESS_KEY": "x" * 40}
    with object_store.object_store() as store, stack_before(store, environment) as stack:
        store.objects[path(ABSENT)] = TEXT.encode()
        assert outcome(ask(stack, ABSENT)) == (503, bodies.MISS)
        assert store.asked == []
        assert store.wrong == (["wrong signature"] if key == "wrong" else ["the request is not signed"])


def test_with_an_upstream_a_failure_is_forwarded_and_a_miss_is_not(store: ObjectStore) -> None:
    with (
        upstream() as behind,
        stack_before(store, object_store.ENVIRONMENT, upstream=behind.address) as stack,
    ):
        store.answers[path(LATER)] = Answer(500)
        assert ask(stack, LATER).status_code == 299
        reasons = [v for n, v in behind.requests.pop()["headers"] if n == "x-flag-definitions-forward-reason"]
        assert reasons == ["object_store"]
        store.answers[path(LATER)] = Answer(404)
        stack.wait_until(lambda: outcome(ask(stack, LATER)) == (503, bodies.MISS))
