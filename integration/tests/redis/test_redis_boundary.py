"""What somebody who reaches webdis can do to Redis: read the snapshot and PostHog's cache, count usage and
ask for rebuilds, no more.

Everything goes through the real webdis. A second one with an open command list shows that the Redis
user is the boundary, not webdis's list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis
import requests

from stack import processes
from stack.launcher import Stack
from stack.programs import tool
from stack.settings import PUBLISHER_PASSWORD, Settings

SNAPSHOT = "flag_definitions:snapshot"
PAYLOAD = "posthog:1:cache/teams/1/feature_flags/flags_with_cohorts.json"
FOREIGN = "session:4711"
CREDENTIAL = "posthog:auth_token:sha256$00"
QUOTA = "@posthog/quota-limits/feature_flag_requests"
USAGE = "posthog:local_evaluation_requests:1"
USAGE_BY_SDK = "posthog:local_evaluation_requests:sdk:1:posthog-python"
REBUILD = "flag_definitions:rebuild_requests"
QUEUE = "celery"

# To a command, and to one inside a script.
NO_PERMISSION = (b"-NOPERM", b"-ERR The user executing the script can't ")

PAIR = "return {redis.call('GET',KEYS[1]) or '', redis.call('GET',KEYS[2]) or ''}"


class Webdis:
    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, *words: object) -> requests.Response:
        """POST, as the filter does; the format is appended to the last word."""
        body = "/".join(quote(str(word), safe="") for word in words) + ".raw"
        return requests.post(self.url, data=body, timeout=20)

    def answers(self) -> bool:
        """On each of its connections to Redis, which clients are given in turn."""
        return all(self.send("PING").content == b"+PONG\r\n" for _ in range(80))

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
    redis_and_webdis.redis.set(CREDENTIAL, "credential")
    redis_and_webdis.redis.zadd(QUOTA, {"phc_limited": 2_000_000_000})
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


def test_the_filter_reads_credentials_and_quota(webdis: Webdis) -> None:
    assert webdis.reply("GET", CREDENTIAL) == b"$10\r\ncredential\r\n"
    limited = b"*1\r\n$11\r\nphc_limited\r\n"
    assert webdis.reply("ZRANGEBYSCORE", QUOTA, "(1700000000", "+inf") == limited
    script = "return redis.call('ZRANGEBYSCORE',KEYS[1],ARGV[1],'+inf')"
    assert webdis.reply("EVAL_RO", script, 1, QUOTA, "(1700000000") == limited


def test_the_filter_counts_usage_in_one_script(stack: Stack, webdis: Webdis) -> None:
    """Each command that a flush may need: the batch is remembered, then counted, in one atomic step."""
    batch = "flag_definitions:usage:process-1"
    script = (
        "if redis.call('EXISTS',KEYS[1])==1 and redis.call('GET',KEYS[1])==ARGV[1] then return 'seen' end "
        "redis.call('SET',KEYS[1],ARGV[1]) "
        "redis.call('PEXPIRE',KEYS[1],60000) redis.call('EXPIRE',KEYS[1],60) "
        "for i=2,3 do redis.call('HINCRBY',KEYS[i],'14169312',2) end return 'counted'"
    )
    words = ("EVAL", script, 3, batch, USAGE, USAGE_BY_SDK, "7")
    assert webdis.reply(*words) == b"$7\r\ncounted\r\n"
    assert webdis.reply(*words) == b"$4\r\nseen\r\n"
    assert stack.redis.hgetall(USAGE) == stack.redis.hgetall(USAGE_BY_SDK) == {b"14169312": b"2"}
    assert stack.redis.ttl(batch) > 0 and stack.redis.ttl(USAGE) == -1


def test_the_filter_notes_the_end_of_a_quota_period(webdis: Webdis) -> None:
    key = "flag_definitions:quota_end:1"
    script = (
        "redis.call('HSET',KEYS[1],'at',redis.call('TIME')[1]) redis.call('EXPIRE',KEYS[1],60) "
        "return {redis.call('HGET',KEYS[1],'at'), tostring(redis.call('EXISTS',KEYS[1]))}"
    )
    assert webdis.reply("EVAL", script, 1, key).endswith(b"$1\r\n1\r\n")


def test_the_filter_asks_for_rebuilds(stack: Stack, webdis: Webdis) -> None:
    assert webdis.reply("ZADD", REBUILD, "NX", 1700000000000, 42) == b":1\r\n"
    assert webdis.reply("ZADD", REBUILD, "NX", 1800000000000, 42) == b":0\r\n"
    assert stack.redis.zrange(REBUILD, 0, -1, withscores=True) == [(b"42", 1700000000000.0)]
    assert webdis.reply("LPUSH", QUEUE, "{}") == b":1\r\n"


WRITES = [
    ("SET", SNAPSHOT, "forged"),
    ("DEL", SNAPSHOT),
    ("EXPIRE", SNAPSHOT, 1),
    ("RENAME", SNAPSHOT, "flag_definitions:x"),
    ("XADD", "flag_definitions:changes", "*", "a", "b"),
    ("EVAL", f"return redis.call('SET','{SNAPSHOT}','forged')", 0),
    ("EVAL", "return redis.call('SET',KEYS[1],'forged')", 1, SNAPSHOT),
    ("SET", PAYLOAD, "forged"),
    ("EVAL", "return redis.call('HSET',KEYS[1],'a','b')", 1, "flag_definitions:snapshot:1:0"),
    ("EVAL", "return redis.call('XADD',KEYS[1],'*','a','b')", 1, "flag_definitions:changes"),
    ("EVAL", f"return redis.call('SET','{CREDENTIAL}','forged')", 0),
    ("SET", CREDENTIAL, "forged"),
    ("ZADD", QUOTA, 2_000_000_000, "phc_victim"),
    ("ZADD", FOREIGN + ":set", 1, "x"),
    ("LPUSH", "celery-other", "{}"),
    ("HINCRBY", "posthog:1:counter", 1, 1),
    # Its own queues and counters it can fill, but not empty.
    ("DEL", USAGE),
    ("ZREM", REBUILD, 42),
    ("RPOP", QUEUE),
    ("EVAL", f"return redis.call('DEL','{USAGE}')", 0),
    ("EVAL", "return redis.call('FLUSHALL')", 0),
    ("FLUSHALL",),
    ("FLUSHDB",),
]


@pytest.mark.parametrize("words", WRITES, ids=lambda words: f"{words[0]}-{words[-1]}")
def test_nothing_else_can_be_written(stack: Stack, webdis: Webdis, open_webdis: Webdis, words: tuple) -> None:
    before = stack.redis.dbsize()
    response = webdis.send(*words)
    # What webdis lets through, Redis has to refuse: a script is opaque to webdis's own list.
    assert response.status_code == 403 or response.content.startswith(NO_PERMISSION), response.content
    assert open_webdis.reply(*words).startswith(NO_PERMISSION), words
    assert stack.redis.get(SNAPSHOT) == b"manifest"
    assert stack.redis.get(CREDENTIAL) == b"credential"
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
    ("EVAL", f"return redis.call('GET','{FOREIGN}')", 0),
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
    stack.wait_until(webdis.answers)
    assert webdis.reply("GET", SNAPSHOT) == b"$8\r\nmanifest\r\n"


def test_the_boundary_holds_after_redis_was_restarted(stack: Stack, webdis: Webdis) -> None:
    stack.restart("redis")
    stack.wait_until(webdis.answers)
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
