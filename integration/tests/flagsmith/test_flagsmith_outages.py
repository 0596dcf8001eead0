"""What clients see when something is away: never a 401 or a 404."""

from __future__ import annotations

import time

from models.flagsmith.followed import FLAGS, SERVER_KEY, WHOLE, Followed
from models.flagsmith.upstream import write_configuration


def statuses(followed: Followed) -> dict[str, int]:
    return {
        "flags": followed.ask().status,
        "document": followed.ask(WHOLE, SERVER_KEY).status,
        "unknown": followed.ask(key="nobody").status,
    }


WELL = {"flags": 200, "document": 200, "unknown": 401}


def test_an_upstream_that_is_away_changes_nothing(followed: Followed) -> None:
    assert statuses(followed) == WELL
    followed.upstream.failing.add(SERVER_KEY)
    time.sleep(4)
    assert statuses(followed) == WELL
    assert followed.stack.http(f"{followed.stack.health_url}/ready")[0] == 200


def test_without_the_publisher_redis_is_asked_and_nobody_is_refused(followed: Followed) -> None:
    assert statuses(followed) == WELL
    followed.stack.stop_part("publisher")
    followed.stack.wait_until(lambda: followed.ask(key="nobody").status == 503)
    for _ in range(20):
        assert statuses(followed) == {"flags": 200, "document": 200, "unknown": 503}


def test_without_redis_what_is_known_is_served_for_a_while(followed: Followed) -> None:
    assert statuses(followed) == WELL
    followed.stack.stop_part("webdis")
    seen = set()
    until = time.monotonic() + 8
    while time.monotonic() < until:
        now = statuses(followed)
        assert now["flags"] in (200, 503) and now["document"] in (200, 503)
        assert now["unknown"] in (401, 503)
        seen.add(tuple(now.values()))
        time.sleep(0.1)
    assert seen >= {(200, 200, 401), (503, 503, 503)}
    followed.stack.restart("webdis")
    followed.stack.wait_until(lambda: statuses(followed) == WELL)


def test_a_document_that_redis_lost_is_written_again(followed: Followed) -> None:
    before = followed.ask().body
    followed.stack.redis.flushall()
    followed.stack.wait_until(lambda: statuses(followed) == WELL, 40)
    assert followed.ask().body == before


def test_a_key_that_is_taken_away_stops(followed: Followed) -> None:
    """The configuration file is read at start: another publisher takes over."""
    other = "ser.pub.other"
    followed.upstream.documents[other] = followed.upstream.documents[SERVER_KEY]
    configuration = followed.upstream.configuration({other: "pub.client.other"})
    write_configuration(followed.config, configuration)
    followed.stack.restart("publisher")
    followed.stack.wait_until(lambda: followed.ask(key="pub.client.other").status == 200)
    followed.stack.wait_until(lambda: followed.ask().status == 401)
    assert followed.ask(WHOLE, SERVER_KEY).status == 401
    assert followed.ask(f"{FLAGS}?feature=ratio", "pub.client.other").status == 200
