"""What the filter answers beyond what was recorded: validators, bad input, changes."""

from __future__ import annotations

import json
import time

import pytest

from models.flagsmith.followed import CLIENT_KEY, FLAGS, IDENTITIES, SERVER_KEY, WHOLE, Followed

MIB = 1 << 20
IDENTITY = json.dumps(
    {"identifier": "user-1", "traits": [{"trait_key": "plan", "trait_value": "pro"}]}
).encode()


def test_validators_on_all_three_routes(shared: Followed) -> None:
    def flags(**headers: str):
        return shared.ask(**headers)

    def identity(**headers: str):
        return shared.identify(IDENTITY, **headers)

    def whole(**headers: str):
        return shared.ask(WHOLE, SERVER_KEY, **headers)

    tags = set()
    for question in (flags, identity, whole):
        answer = question()
        tag = answer.headers["etag"]
        assert answer.status == 200 and tag.startswith('W/"')
        assert question().headers["etag"] == tag, "equal questions, equal tags"
        again = question(If_None_Match=tag)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert question(If_None_Match='"other"').status == 200
        assert question(If_None_Match=f'"other", {tag}', Accept_Encoding="gzip").status == 304
        tags.add(tag)
    assert len(tags) == 3, "other questions have other tags"
    one = shared.ask(f"{FLAGS}?feature=ratio").headers["etag"]
    server = shared.ask(key=SERVER_KEY).headers["etag"]
    other = shared.identify(IDENTITY.replace(b"user-1", b"user-2")).headers["etag"]
    assert len(tags | {one, server, other}) == 6
    assert flags().headers["x-flagsmith-document-updated-at"] == "2026-05-04T03:02:01.654321+00:00"


def test_both_workers_agree(shared: Followed) -> None:
    answers = {(answer.headers["etag"], answer.body) for answer in (shared.ask() for _ in range(40))}
    assert len(answers) == 1
    ids = [flag["feature"]["id"] for flag in shared.ask().json]
    assert ids == sorted(ids)


def test_a_change_is_served_by_every_worker_and_its_tag_with_it(followed: Followed) -> None:
    before = followed.ask()
    followed.change("banner_text", "Changed")
    began = time.monotonic()
    followed.stack.wait_until(lambda: all(followed.value("banner_text") == "Changed" for _ in range(8)), 20)
    assert time.monotonic() - began < 5, "a poll a second, and two seconds more"
    after = followed.ask()
    assert after.headers["etag"] != before.headers["etag"]
    stale = followed.ask(If_None_Match=before.headers["etag"])
    assert stale.status == 200 and stale.body == after.body


def test_a_document_that_does_not_fit_changes_nothing(followed: Followed) -> None:
    before, whole = followed.ask(), followed.ask(WHOLE, SERVER_KEY)
    document = json.loads(json.dumps(followed.upstream.documents[SERVER_KEY]))
    document["project"]["segments"][1]["rules"][0]["rules"][0]["conditions"][0]["value"] = 18
    document["project"]["server_key_only_feature_ids"] = []
    followed.upstream.documents[SERVER_KEY] = document
    asked = len(followed.upstream.asked)
    followed.stack.wait_until(lambda: len(followed.upstream.asked) > asked + 2)
    time.sleep(2)
    assert followed.ask().body == before.body, "what only server-side keys see is not shown"
    assert followed.ask(WHOLE, SERVER_KEY).body == whole.body


@pytest.mark.parametrize("end", [0, 1, 12, 30, len(IDENTITY) - 1])
def test_a_body_that_is_cut_is_no_json(shared: Followed, end: int) -> None:
    answer = shared.identify(IDENTITY[:end])
    assert answer.status == 400
    assert answer.body.startswith(b"Failed to parse the request body as JSON: ")


def test_bodies_of_all_kinds(shared: Followed) -> None:
    deep = b'{"identifier":"a","traits":[{"trait_key":"x","trait_value":' + b"[" * 40_000
    for body, statuses in [
        (b"[]", {422}),
        (b"null", {422}),
        (b'{"identifier":1}', {422}),
        (b'{"identifier":"a","traits":null}', {422}),
        (b'{"identifier":"a","identifier":"b"}', {422}),
        (b'{"identifier":"a","traits":[{"trait_key":"k"}]}', {422}),
        (b'{"identifier":"a"} x', {400}),
        (b"\xff\xfe", {400}),
        (deep, {400, 422}),
        (deep + b"[" * 10_000, {413}),  # too many values
        (b'{"identifier":"a","traits":[{"trait_key":"k","trait_value":1e999}]}', {200, 400, 422}),
        (b'{"identifier":"a","traits":[{"trait_key":"k","trait_value":18446744073709551616}]}', {200}),
        (b'{"identifier":"","traits":[{"trait_key":"k","trait_value":{"a":[1,null]}}]}', {200}),
    ]:
        assert shared.identify(body).status in statuses, body[:60]
    for content_type in ("text/plain", "", "application/jsonx"):
        assert shared.identify(IDENTITY, Content_Type=content_type).status == 415
    assert shared.identify(IDENTITY, Content_Type="application/vnd.api+json").status == 200


def test_long_bodies(shared: Followed) -> None:
    trait = b'{"identifier":"a","traits":[{"trait_key":"k","trait_value":"%s"}]}'
    longest = trait % (b"x" * (2 * MIB - len(trait) + 2))
    assert len(longest) == 2 * MIB
    assert shared.identify(longest).status == 200
    for body in (longest + b" ", trait % (b"x" * (5 * MIB))):
        answer = shared.identify(body)
        assert answer.status == 413
        assert answer.body == b"Failed to buffer the request body: length limit exceeded"
    # A key is checked before any of a body is taken.
    assert (
        shared.ask(IDENTITIES, "nobody", "POST", longest + b" ", Content_Type="application/json").status
        == 401
    )
    assert shared.ask().status == 200


def test_head_and_other_methods(shared: Followed) -> None:
    whole, head = shared.ask(), shared.ask(method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["etag"] == whole.headers["etag"]
    for path, allowed in ((FLAGS, "GET,HEAD"), (IDENTITIES, "GET,HEAD,POST"), (WHOLE, "GET,HEAD")):
        answer = shared.ask(path, SERVER_KEY, "DELETE")
        assert (answer.status, answer.headers["allow"], answer.body) == (405, allowed, b"")
    grpc = shared.ask(method="GET", Content_Type="application/grpc")
    assert (grpc.status, grpc.body) == (415, b"")


def test_nothing_secret_is_in_logs_metrics_or_redis(shared: Followed) -> None:
    shared.identify(IDENTITY.replace(b"user-1", b"somebody-secret"))
    shared.ask(key="ser.unknown-secret")
    stack = shared.stack
    texts = [stack.log("envoy"), stack.log("publisher"), stack.prometheus()]
    for key in stack.redis.scan_iter("flag_definitions:*"):
        kind = stack.redis.type(key)
        if kind == b"string":
            texts.append(stack.redis.get(key).decode("latin1"))
        elif kind == b"stream":
            texts.append(repr(stack.redis.xrange(key)))
        texts.append(key.decode())
    for secret in (SERVER_KEY, "ser.unknown-secret", "somebody-secret", CLIENT_KEY):
        assert not any(secret in text for text in texts), "a secret shows"


def test_what_is_counted(shared: Followed) -> None:
    def counted() -> dict[str, float]:
        names = ("evaluated", "kept", "not_modified")
        metric = "flag_definitions_evaluations_total"
        return {name: shared.stack.metric(metric, surface="flagsmith", result=name) for name in names}

    tag = shared.ask().headers["etag"]
    time.sleep(2.5)  # until all that was counted before is told
    before = counted()
    for _ in range(5):
        assert shared.ask(If_None_Match=tag).status == 304
        assert shared.ask().status == 200
    shared.stack.wait_until(lambda: counted()["not_modified"] == before["not_modified"] + 5)
    after = counted()
    assert after["kept"] + after["evaluated"] == before["kept"] + before["evaluated"] + 5
    answers = "flag_definitions_surface_answers_total"
    assert shared.stack.metric(answers, surface="flagsmith", status="304", reason="not_modified") >= 5
