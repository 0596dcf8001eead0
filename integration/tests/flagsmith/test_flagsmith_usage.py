"""Usage: Flagsmith is told of each request that was served, once, whatever happens between."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.flagsmith.followed import (
    CLIENT_KEY,
    FLAGS,
    IDENTITIES,
    SERVER_KEY,
    WHOLE,
    Followed,
    following,
    reported,
)
from models.flagsmith.upstream import PROXY_KEY, write_configuration

FLUSH = 0.5
BATCH = "flag_definitions:reported:flagsmith:batch"


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Followed]:
    with reported(tmp_path, {"flush_interval": f"{FLUSH * 1000:.0f}ms"}) as edge:
        # What was asked until the stack was there.
        settle(edge)
        yield edge


def served(flags: int = 0, identities: int = 0, documents: int = 0) -> Counter[tuple[str, str]]:
    named = {"flags": flags, "identities": identities, "environment-document": documents}
    return +Counter({(CLIENT_KEY, resource): count for resource, count in named.items()})


def settle(edge: Followed) -> None:
    """Waits until nothing is on its way, and forgets what came."""
    edge.stack.wait_until(lambda: bool(edge.upstream.reports))
    time.sleep(4 * FLUSH + 2)
    assert on_its_way(edge) == []
    edge.upstream.reports.clear()


def on_its_way(edge: Followed) -> list[str]:
    names = edge.stack.redis.keys("flag_definitions:usage:flagsmith:*")
    return [*names, *edge.stack.redis.keys(BATCH)]


def ask_flags(edge: Followed, times: int) -> None:
    assert {edge.ask().status for _ in range(times)} == {200}


def wait_for(edge: Followed, expected: Counter[tuple[str, str]]) -> None:
    """Exactly this is counted, and stays so."""
    try:
        edge.stack.wait_until(lambda: edge.upstream.taken == expected)
    except Exception:
        raise AssertionError(f"{edge.upstream.taken} is not {expected}") from None
    time.sleep(2 * FLUSH + 2)
    assert edge.upstream.taken == expected
    assert on_its_way(edge) == []


def publisher_metric(edge: Followed, state: str) -> float:
    url = f"http://127.0.0.1:{edge.stack.settings.publisher_port}/metrics"
    text = edge.stack.http(url)[1].decode()
    name = f'flag_definitions_publisher_usage_total{{state="{state}"}} '
    return next(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def filter_metric(edge: Followed, state: str) -> float:
    return edge.stack.metric("flag_definitions_surface_usage_total", surface="flagsmith", state=state)


def test_each_served_request_is_reported_once_and_no_other(edge: Followed) -> None:
    before = publisher_metric(edge, "sent")
    ask_flags(edge, 20)
    assert edge.ask(key=SERVER_KEY).status == 200
    assert edge.ask(method="HEAD").status == 200
    tag = edge.ask().headers["etag"]
    for _ in range(3):
        assert edge.ask(If_None_Match=tag).status == 304
    for number in range(7):
        body = f'{{"identifier": "user-{number}", "traits": []}}'.encode()
        assert edge.identify(body).status == 200
    assert edge.ask(f"{IDENTITIES}?identifier=one").status == 200
    for _ in range(5):
        assert edge.ask(WHOLE, SERVER_KEY).status == 200
    # Not these.
    assert edge.ask(method="OPTIONS").status == 200
    assert edge.ask(method="DELETE").status == 405
    assert edge.ask(key="nobody").status == 401
    assert edge.ask(WHOLE, CLIENT_KEY).status == 401
    assert edge.ask(f"{FLAGS}?feature=nothing").status == 404
    assert edge.ask(IDENTITIES).status == 400
    assert edge.identify(b"{").status == 400

    wait_for(edge, served(flags=26, identities=8, documents=5))
    assert all(report.proxy_key == PROXY_KEY for report in edge.upstream.reports)
    ids = [report.id for report in edge.upstream.reports]
    assert len(set(ids)) == len(ids)
    assert publisher_metric(edge, "sent") - before == 39
    edge.stack.wait_until(lambda: filter_metric(edge, "sent") == filter_metric(edge, "counted") >= 39)
    # PostHog's own are as they were.
    assert edge.stack.metric("flag_definitions_usage_total", state="counted") == 0


def test_a_report_that_fails_comes_again_as_it_was(edge: Followed) -> None:
    edge.upstream.report_status = 500
    ask_flags(edge, 9)
    edge.stack.wait_until(lambda: len(edge.upstream.reports) >= 2)
    # Too many requests are no refusal of this one. What is served meanwhile waits for its turn.
    edge.upstream.report_status = 429
    ask_flags(edge, 4)
    edge.stack.wait_until(lambda: len(edge.upstream.reports) >= 4)
    failed = list(edge.upstream.reports)
    edge.upstream.report_status = 202
    wait_for(edge, served(flags=13))
    assert len({(report.id, report.body) for report in failed}) == 1
    assert {report.status for report in failed} == {500, 429}
    first = next(report for report in edge.upstream.reports if report.status == 202)
    assert (first.id, first.body) == (failed[0].id, failed[0].body)
    log = edge.stack.log("publisher")
    assert log.count("a report of usage is not taken") == 2, "once for each problem"


def test_a_report_that_is_refused_is_dropped_and_counted(edge: Followed) -> None:
    edge.upstream.report_status = 400
    ask_flags(edge, 6)
    edge.stack.wait_until(lambda: publisher_metric(edge, "refused") == 6)
    edge.upstream.report_status = 202
    ask_flags(edge, 2)
    wait_for(edge, served(flags=2))
    assert publisher_metric(edge, "refused") == 6
    assert edge.stack.log("publisher").count("a report of usage is refused") == 1


def test_the_next_publisher_sends_what_a_killed_one_took(edge: Followed) -> None:
    edge.upstream.report_status = 500
    ask_flags(edge, 5)
    edge.stack.wait_until(lambda: bool(edge.upstream.reports) and edge.stack.redis.exists(BATCH) == 1)
    edge.stack.processes.pop("publisher").kill()
    ask_flags(edge, 3)
    failed = list(edge.upstream.reports)
    edge.upstream.report_status = 202
    edge.stack.restart("publisher")
    wait_for(edge, served(flags=8))
    first = next(report for report in edge.upstream.reports if report.status == 202)
    assert (first.id, first.body) == (failed[0].id, failed[0].body)


@pytest.mark.parametrize("part", ["webdis", "redis"])
def test_nothing_is_lost_and_nothing_comes_twice_while_a_part_is_away(edge: Followed, part: str) -> None:
    """Redis holds still: it would lose what it has if it were stopped here."""
    ask_flags(edge, 5)
    if part == "redis":
        edge.stack.pause(part)
    else:
        edge.stack.stop_part(part)
    answers = Counter(edge.ask().status for _ in range(40))
    assert answers[200] > 0 and answers.keys() <= {200, 503}
    time.sleep(3 * FLUSH)
    if part == "redis":
        edge.stack.resume(part)
    else:
        edge.stack.restart(part)
    edge.stack.wait_until(lambda: edge.ask(IDENTITIES).status == 400)
    wait_for(edge, served(flags=5 + answers[200]))


def test_what_was_served_while_an_environment_was_listed_is_reported_after_that(edge: Followed) -> None:
    edge.upstream.report_status = 500
    ask_flags(edge, 5)
    edge.stack.wait_until(lambda: edge.stack.redis.exists(BATCH) == 1)
    ask_flags(edge, 3)
    other = "ser.pub.other"
    edge.upstream.documents[other] = edge.upstream.documents[SERVER_KEY]
    edge.upstream.listed = {other: "pub.client.other"}
    later = 3
    while (status := edge.ask().status) == 200:
        later += 1
    assert status == 401
    edge.upstream.report_status = 202
    wait_for(edge, served(flags=5 + later))
    assert publisher_metric(edge, "unknown") == 0


def test_without_a_proxy_key_or_with_usage_switched_off_nothing_is_counted(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    with following(tmp_path / "pairs") as pairs:
        ask_flags(pairs, 5)
        time.sleep(7)
        assert filter_metric(pairs, "counted") == 0 and on_its_way(pairs) == []
        assert pairs.upstream.reports == []
    with reported(tmp_path, {"enabled": False}) as off:
        ask_flags(off, 5)
        time.sleep(7)
        assert filter_metric(off, "counted") == 0 and on_its_way(off) == []
        assert off.upstream.reports == []


def test_no_key_is_in_redis_or_in_a_log(edge: Followed) -> None:
    edge.upstream.report_status = 500
    ask_flags(edge, 5)
    edge.stack.wait_until(lambda: len(edge.upstream.reports) >= 2)
    redis = edge.stack.redis
    stored = [redis.get(BATCH)]
    stored += [str(redis.hgetall(name)) for name in redis.keys("flag_definitions:reported:flagsmith:tenants")]
    ids = {report.id for report in edge.upstream.reports}
    texts = [*map(str, stored), edge.stack.log("publisher"), edge.stack.log("envoy")]
    for secret in (CLIENT_KEY, SERVER_KEY, PROXY_KEY):
        assert not any(secret in text for text in texts)
    assert len(stored) == 2 and len(ids) == 1


def test_a_publisher_without_its_proxy_key_takes_nothing(edge: Followed) -> None:
    """Who served for the proxy key before counts on until it hears of it, and that is left where it is."""
    edge.upstream.report_status = 500
    ask_flags(edge, 5)
    edge.stack.wait_until(lambda: edge.stack.redis.exists(BATCH) == 1)
    configuration = edge.upstream.configuration({SERVER_KEY: CLIENT_KEY})
    write_configuration(edge.config, configuration)
    edge.stack.restart("publisher")
    edge.upstream.report_status = 202
    edge.upstream.reports.clear()
    edge.stack.wait_until(lambda: edge.ask().status == 200)
    time.sleep(3)
    before = filter_metric(edge, "counted")
    ask_flags(edge, 5)
    time.sleep(3)
    assert filter_metric(edge, "counted") == before
    assert edge.upstream.reports == []
