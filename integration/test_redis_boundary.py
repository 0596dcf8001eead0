"""What somebody who reaches webdis can do to Redis: read the snapshot and PostHog's cache, no more.

Everything goes through the real webdis. A second one with an open command list shows that the Redis
user is the boundary, not webdis's list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import requests

import processes
import redis
from settings import Settings
from stack import PUBLISHER_PASSWORD, Stack, tool

SNAPSHOT = "flag_definitions:snapshot"
PAYLOAD = "posthog:1:cache/teams/1/feature_flags/flags_with_cohorts.json"
FOREIGN = "session:4711"

PAIR = "return {redis.call('GET',KEYS[1]) or '', redis.call('GET',KEYS[2]) or ''}"


class Webdis:
    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, *words: object) -> requests.Response:
        """POST, as the filter does; the format is appended to the last word."""
        body = "/".join(quote(str(word), safe="") for word in words) + ".raw"
        return requests.post(self.url, data=body, timeout=5)

    def reply(self, *words: object) -> bytes:
        response = self.send(*words)
        assert response.status_code == 200, f"{words}: webdis answered {response.status_code}"
        return response.content


@pytest.fixture
def stack(redis_and_webdis: Stack) -> Stack:
    redis_and_webdis.redis.flushall()
    redis_and_webdis.redis.mset(
        {SNAPSHOT: "manifest", PAYLOAD: b'{"flags":\r\n[]}\x00', PAYLOAD + ":etag": "etag", FOREIGN: "secret"}
    )
    return redis_and_webdis


@pytest.fixture
def webdis(stack: Stack) -> Webdis:
    return Webdis(stack.webdis_url)


@pytest.fixture(scope="module")
def open_webdis_url(redis_and_webdis: Stack) -> Iterator[str]:
    """A webdis whose own command list lets everything through, logged in as the same Redis user."""
    run_dir = redis_and_webdis.settings.run_dir
    port = Settings.on_free_ports().webdis_port
    config = json.loads((run_dir / "webdis.json").read_text())
    config |= {"http_port": port, "acl": [], "logfile": str(run_dir / "open-webdis.log")}
    (run_dir / "open-webdis.json").write_text(json.dumps(config))
    process = processes.start("open-webdis", [tool("webdis"), "open-webdis.json"], run_dir)
    url = f"http://127.0.0.1:{port}/"
    try:
        redis_and_webdis.wait_until(lambda: redis_and_webdis.http(f"{url}PING.raw")[0] == 200)
        yield url
    finally:
        process.stop()


@pytest.fixture
def open_webdis(stack: Stack, open_webdis_url: str) -> Webdis:
    return Webdis(open_webdis_url)


def test_the_filter_reads_etag_and_payload_as_one_pair(webdis: Webdis) -> None:
    reply = webdis.reply("EVAL_RO", PAIR, 2, PAYLOAD + ":etag", PAYLOAD)
    assert reply == b'*2\r\n$4\r\netag\r\n$15\r\n{"flags":\r\n[]}\x00\r\n'


def test_a_missing_pair_is_two_empty_strings(webdis: Webdis) -> None:
    missing = "posthog:1:cache/teams/9/feature_flags/flags_with_cohorts.json"
    assert webdis.reply("EVAL_RO", PAIR, 2, missing + ":etag", missing) == b"*2\r\n$0\r\n\r\n$0\r\n\r\n"


def test_the_filter_reads_the_snapshot_and_the_time(webdis: Webdis) -> None:
    assert webdis.reply("GET", SNAPSHOT) == b"$8\r\nmanifest\r\n"
    assert webdis.reply("TIME").startswith(b"*2\r\n")


WRITES = [
    ("SET", SNAPSHOT, "forged"),
    ("DEL", SNAPSHOT),
    ("EXPIRE", SNAPSHOT, 1),
    ("RENAME", SNAPSHOT, "flag_definitions:x"),
    ("XADD", "flag_definitions:changes", "*", "a", "b"),
    ("EVAL", f"return redis.call('SET','{SNAPSHOT}','forged')", 0),
    ("EVAL", "return redis.call('SET',KEYS[1],'forged')", 1, SNAPSHOT),
    ("SET", PAYLOAD, "forged"),
    ("EVAL", "return redis.call('FLUSHALL')", 0),
    ("FLUSHALL",),
    ("FLUSHDB",),
]


@pytest.mark.parametrize("words", WRITES, ids=lambda words: f"{words[0]}-{words[-1]}")
def test_nothing_can_be_written(stack: Stack, webdis: Webdis, open_webdis: Webdis, words: tuple) -> None:
    before = stack.redis.dbsize()
    response = webdis.send(*words)
    # webdis compares prefixes: enabling EVAL_RO lets EVAL through too, and Redis has to refuse it.
    assert response.status_code == 403 or response.content.startswith(b"-NOPERM"), response.content
    assert open_webdis.reply(*words).startswith(b"-NOPERM"), words
    assert stack.redis.get(SNAPSHOT) == b"manifest"
    assert stack.redis.dbsize() == before


@pytest.mark.parametrize("command", ["SET", "DEL", "FLUSHALL"])
def test_a_read_only_script_cannot_write(stack: Stack, webdis: Webdis, command: str) -> None:
    arguments = {"SET": ",KEYS[1],'forged'", "DEL": ",KEYS[1]", "FLUSHALL": ""}[command]
    reply = webdis.reply("EVAL_RO", f"return redis.call('{command}'{arguments})", 1, SNAPSHOT)
    assert reply.startswith(b"-"), reply
    assert stack.redis.get(SNAPSHOT) == b"manifest"


FOREIGN_READS = [
    ("GET", FOREIGN),
    ("MGET", PAYLOAD, FOREIGN),
    ("EVAL_RO", "return redis.call('GET',KEYS[1])", 1, FOREIGN),
    # A key that the script does not declare is checked when it is read.
    ("EVAL_RO", f"return redis.call('GET','{FOREIGN}')", 0),
]


@pytest.mark.parametrize("words", FOREIGN_READS, ids=lambda words: f"{words[0]}-{words[-1]}")
def test_other_keys_cannot_be_read(webdis: Webdis, words: tuple) -> None:
    reply = webdis.reply(*words)
    assert reply.startswith(b"-"), reply
    assert b"secret" not in reply


@pytest.mark.parametrize(
    "words",
    [
        ("KEYS", "*"),
        ("SCAN", 0),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
        ("DEBUG", "SLEEP", 1),
        ("SHUTDOWN",),
    ],
    ids=lambda words: words[0],
)
def test_administration_is_refused(webdis: Webdis, open_webdis: Webdis, words: tuple) -> None:
    assert webdis.send(*words).status_code == 403
    assert open_webdis.send(*words).content[:1] in (b"", b"-")


@pytest.mark.parametrize("words", [("AUTH", "default", ""), ("HELLO", 3, "AUTH", "default", "")])
def test_nobody_becomes_another_user_through_webdis(webdis: Webdis, words: tuple) -> None:
    """Redis lets everybody try AUTH, and in the local stack `default` needs no password."""
    assert webdis.send(*words).status_code == 403


def test_webdis_is_never_redis_s_open_default_user(stack: Stack, webdis: Webdis) -> None:
    webdis.reply("PING")
    relayed = {client["user"] for client in stack.redis.client_list() if client["cmd"] == "ping"}
    assert relayed == {"flag_definitions_filter"}


def test_a_refused_login_reads_nothing(stack: Stack, webdis: Webdis) -> None:
    """A login that fails must not leave webdis connected as the default user."""
    admin = stack.redis
    try:
        admin.acl_setuser("flag_definitions_filter", enabled=False)
        admin.client_kill_filter(user="flag_definitions_filter")
        stack.wait_until(lambda: webdis.send("GET", FOREIGN).status_code == 503)
        assert b"secret" not in webdis.send("GET", FOREIGN).content
    finally:
        admin.acl_setuser("flag_definitions_filter", enabled=True)
    stack.wait_until(lambda: webdis.send("GET", SNAPSHOT).content == b"$8\r\nmanifest\r\n")


def test_the_boundary_holds_after_redis_was_restarted(stack: Stack, webdis: Webdis) -> None:
    stack.restart("redis")
    stack.wait_until(lambda: webdis.send("PING").content == b"+PONG\r\n")
    stack.redis.set(FOREIGN, "secret")
    assert webdis.reply("GET", FOREIGN).startswith(b"-NOPERM")


def test_the_publisher_writes_the_snapshot_and_nothing_else(stack: Stack) -> None:
    publisher = redis.Redis(port=stack.settings.redis_port, username="publisher", password=PUBLISHER_PASSWORD)
    publisher.set(SNAPSHOT, "new")
    publisher.xadd("flag_definitions:changes", {"a": "b"})
    for forbidden in (
        lambda: publisher.get(PAYLOAD),
        lambda: publisher.set(FOREIGN, "x"),
        publisher.flushall,
        lambda: publisher.keys("*"),
        lambda: publisher.eval("return redis.call('SET','session:4711','x')", 0),
    ):
        with pytest.raises((redis.exceptions.NoPermissionError, redis.exceptions.ResponseError)):
            forbidden()
    assert stack.redis.get(FOREIGN) == b"secret"
