"""`rebuild.kind: celery`: a real Celery worker understands what the filter pushes."""

from __future__ import annotations

import base64
import json
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
import requests

from models.posthog import writers
from models.posthog.endpoint import State, Team, stored_text
from stack import processes
from stack.celery_worker import MARKERS, TASK
from stack.edge import get
from stack.launcher import Stack
from stack.paths import INTEGRATION

TEAM = Team(9001, "phc_celery", None, "phs_celery")
OTHER = Team(9002, "phc_celery_other", None, "phs_celery_other")
QUEUE = "celery"
TEXT = stored_text({"flags": [], "cohorts": {}, "group_type_mapping": {}})


@pytest.fixture
def stack() -> Iterator[Stack]:
    rebuild = {"kind": "celery", "celery": {"task": TASK, "queue": QUEUE}, "repeat_after": "60s"}
    with writers.stack_with(State(teams=[TEAM, OTHER]), rebuild=rebuild) as stack:
        yield stack


@contextmanager
def worker(stack: Stack) -> Iterator[None]:
    """One Celery worker, stopped by its pid."""
    broker = f"redis://127.0.0.1:{stack.settings.redis_port}/0"
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    process = processes.start(
        "celery",
        [sys.executable, "-m", "celery", "--app", "stack.celery_worker", "--workdir", INTEGRATION]
        + ["--broker", broker, "worker", "--pool", "solo", "--concurrency", "1", "--queues", QUEUE, *quiet],
        stack.settings.run_dir,
    )
    try:
        yield
        assert process.alive(), process.last_lines()
    finally:
        process.stop()


def markers(stack: Stack) -> list[dict[str, Any]]:
    return [json.loads(marker) for marker in stack.redis.lrange(MARKERS, 0, -1)]


def queued(stack: Stack) -> list[dict[str, Any]]:
    return [json.loads(message) for message in stack.redis.lrange(QUEUE, 0, -1)]


def miss(stack: Stack, team: Team) -> None:
    assert get(stack, team.token, team.secret).status_code == 503


def message(task: str, args: list[Any]) -> dict[str, Any]:
    """A message as the specification has it (Celery message protocol 2 in kombu's Redis form)."""
    task_id, empty = str(uuid.uuid4()), {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    absent = ("parent_id", "shadow", "eta", "expires", "group")
    return {
        "body": base64.b64encode(json.dumps([args, {}, empty]).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id}
        | dict.fromkeys(absent)
        | {"retries": 0, "timelimit": [None, None], "origin": "test", "ignore_result": True},
        "properties": {
            "correlation_id": task_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def test_a_worker_takes_the_specified_message_from_the_filters_redis_user(redis_and_webdis: Stack) -> None:
    """Without the filter: the specification is right, and webdis may push."""
    stack = redis_and_webdis
    text = json.dumps(message(TASK, [TEAM.id]))
    body = f"LPUSH/{QUEUE}/{quote(text, safe='')}.raw"
    assert requests.post(stack.webdis_url, data=body, timeout=20).content == b":1\r\n"
    with worker(stack):
        stack.wait_until(lambda: len(markers(stack)) == 1, timeout=120)
    assert markers(stack)[0]["args"] == [TEAM.id]
    assert not stack.redis.exists(QUEUE)


def test_the_message_is_the_specified_one(stack: Stack) -> None:
    miss(stack, TEAM)
    stack.wait_until(lambda: len(queued(stack)) == 1)
    (got,) = queued(stack)
    args, kwargs, embedded = json.loads(base64.b64decode(got.pop("body")))
    assert (args, kwargs) == ([TEAM.id], {})
    assert embedded == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    expected = message(TASK, [TEAM.id])
    del expected["body"]
    task_id, tag = uuid.UUID(got["headers"]["id"]), uuid.UUID(got["properties"]["delivery_tag"])
    assert task_id.version == tag.version == 4 and task_id != tag
    expected["headers"] |= {"id": str(task_id), "root_id": str(task_id), "origin": got["headers"]["origin"]}
    expected["properties"] |= {"correlation_id": str(task_id), "delivery_tag": str(tag)}
    assert got == expected


def test_a_worker_rebuilds_what_is_missing(stack: Stack) -> None:
    with worker(stack):
        miss(stack, TEAM)
        stack.wait_until(lambda: len(markers(stack)) == 1, timeout=120)
        miss(stack, OTHER)
        stack.wait_until(lambda: len(markers(stack)) == 2, timeout=120)
    assert [marker["args"] for marker in markers(stack)] == [[TEAM.id], [OTHER.id]]
    assert [marker["kwargs"] for marker in markers(stack)] == [{}, {}]
    assert not stack.redis.exists(QUEUE)
    assert writers.rebuild_requests(stack) == {}, "one kind of signal, not both"


def test_a_team_is_asked_for_once_in_a_while(stack: Stack) -> None:
    for _ in range(4):
        miss(stack, TEAM)
        time.sleep(1.1)  # longer than a miss is remembered
    assert len(queued(stack)) == 1


def test_what_is_there_or_unknown_is_not_rebuilt(stack: Stack) -> None:
    writers.put_definitions_django(stack, TEAM.id, TEXT)
    get(stack, TEAM.token, TEAM.secret)
    stack.pause("webdis")
    try:
        get(stack, OTHER.token, OTHER.secret)
    finally:
        stack.resume("webdis")
    time.sleep(1.5)
    assert queued(stack) == []
