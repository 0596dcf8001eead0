"""What the filter may not decide goes to PostHog's own service, and does not go round."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from models.posthog import bodies, writers
from models.posthog.endpoint import State, Team, etag_of, stored_text
from models.posthog.front import unchanged_posthog
from stack.edge import PATHS, Tally, get, publish, upstream, wait_until_all
from stack.launcher import Stack, kept_for_a_look
from stack.settings import Settings

REASON = "x-flag-definitions-forward-reason"
TEXT = stored_text({"flags": [{"key": "a"}], "cohorts": {}, "group_type_mapping": {}})
KNOWN = Team(6001, "phc_known", None, "phs_known")
NEW = Team(6002, "phc_new", None, "phs_new")
FORWARD = {"upstream": "forward"}


def state(*teams: Team) -> State:
    return State(teams=list(teams), texts={team.id: TEXT for team in teams})


@pytest.mark.parametrize("path", PATHS)
def test_the_unknown_goes_to_posthog_and_its_answer_comes_back_as_it_is(path: str) -> None:
    body = b'{"type":"authentication_error","code":"own","detail":"PostHog says so","attr":null}'
    with (
        upstream() as behind,
        unchanged_posthog(state(KNOWN), behind=behind.address, **FORWARD) as stack,
    ):
        behind.answer = (401, {"content-type": "application/json", "x-own": "1", "etag": 'W/"own"'}, body)
        answer = get(
            stack,
            None,
            "phx_nobody",
            'W/"held"',
            path=path + "?send_cohorts&token=phc_nobody",
            headers={"X-Own": "a", "User-Agent": "posthog-python/7.91.1"},
        )
        assert (answer.status_code, answer.content) == (401, body)
        sent_back = {name: answer.headers.get(name) for name in ("content-type", "x-own", "etag")}
        assert sent_back == {"content-type": "application/json", "x-own": "1", "etag": 'W/"own"'}
        (asked,) = behind.requests
        assert asked["path"] == path + "?send_cohorts&token=phc_nobody"
        sent = dict(asked["headers"])
        for name, value in {
            "authorization": "Bearer phx_nobody",
            "if-none-match": 'W/"held"',
            "x-own": "a",
            "user-agent": "posthog-python/7.91.1",
            REASON: "unknown_credential",
        }.items():
            assert sent[name] == value
        assert get(stack, KNOWN.token, KNOWN.secret).status_code == 200
        assert len(behind.requests) == 1, "what is known is answered here"


def test_posthog_checks_a_new_credential_once_and_then_it_is_answered_here() -> None:
    """PostHog's service leaves in its cache what it has checked."""
    with (
        upstream() as behind,
        unchanged_posthog(state(KNOWN), behind=behind.address, **FORWARD) as stack,
    ):
        writers.put_definitions_django(stack, NEW.id, TEXT)

        def check() -> None:
            writers.put_team(stack, NEW)
            writers.put_credential(stack, NEW.secret or "", writers.team_secret_entry(NEW))

        behind.on_request = check
        behind.answer = (
            200,
            {"content-type": "application/json", "etag": f'W/"{etag_of(TEXT)}"'},
            TEXT.encode(),
        )
        tally = Tally(stack)
        assert get(stack, NEW.token, NEW.secret).text == TEXT
        assert len(behind.requests) == 1
        # That it was not there is remembered for a second.
        wait_until_all(stack, lambda: here(stack, behind.requests))
        for _ in range(10):
            assert here(stack, behind.requests)
        assert tally.count("answers", status="401") == 0


def here(stack: Stack, asked: list) -> bool:
    """Whether this request was answered by the filter."""
    before = len(asked)
    assert get(stack, NEW.token, NEW.secret).text == TEXT
    return len(asked) == before


def test_an_operator_may_have_the_unknown_rejected_although_there_is_an_upstream() -> None:
    config = FORWARD | {"unknown_credential": "reject"}
    with (
        upstream() as behind,
        unchanged_posthog(state(KNOWN), published=State(), behind=behind.address, **config) as stack,
    ):
        answer = get(stack, KNOWN.token, "phs_nobody")
        assert (answer.status_code, answer.text) == (401, bodies.SECRET_INVALID)
        answer = get(stack, "phc_nobody", "phs_nobody")
        assert (answer.status_code, answer.text) == (401, bodies.TOKEN_INVALID)
        assert behind.requests == []
        # Without a fresh snapshot even then the upstream decides.
        stack.redis.delete("flag_definitions:snapshot")
        stack.wait_until(lambda: get(stack, KNOWN.token, "phs_nobody").status_code == 299)
        assert get(stack, "phc_nobody", "phs_nobody").status_code == 299


# === The hop guard ===


def forwarding(upstream_address: str) -> Settings:
    return Settings.on_free_ports(snapshot=None, upstream=upstream_address, config=FORWARD)


def test_a_filter_behind_a_filter_does_not_pass_on_what_came_from_one() -> None:
    with ExitStack() as stacks:
        behind = stacks.enter_context(upstream())
        second = stacks.enter_context(kept_for_a_look(Stack(forwarding(behind.address))))
        first_settings = forwarding(f"127.0.0.1:{second.settings.edge_port}")
        first = stacks.enter_context(kept_for_a_look(Stack(first_settings)))
        for stack in (second, first):
            stack.start_redis()
            stack.start_webdis()
            stack.publish(state().source_document())
            stack.start_envoy()
        tallies = Tally(first), Tally(second)
        answer = get(first, "phc_nobody", "phs_nobody")
        assert (answer.status_code, answer.text) == (503, bodies.MISS)
        assert behind.requests == []
        assert tallies[0].after(1).count("forwarded", reason="unknown_credential") == 1
        assert tallies[1].after(1).count("answers", status="503", reason="loop") == 1
        # The second answers what it knows, also to the first.
        publish(second, state(KNOWN).source_document())
        writers.put_definitions_django(second, KNOWN.id, TEXT)
        assert get(first, KNOWN.token, KNOWN.secret).text == TEXT


def test_an_upstream_that_is_the_edge_itself_ends_after_one_round() -> None:
    settings = forwarding("127.0.0.1:1")
    settings = replace(settings, upstream=f"127.0.0.1:{settings.edge_port}")
    with kept_for_a_look(Stack(settings)) as stack:
        stack.start_redis()
        stack.start_webdis()
        stack.publish(state(KNOWN).source_document())
        stack.start_envoy()
        tally = Tally(stack)
        for _ in range(5):
            answer = get(stack, "phc_nobody", "phs_nobody")
            assert (answer.status_code, answer.text) == (503, bodies.MISS)
        assert tally.after(10).count("forwarded") == 5
        assert tally.count("answers", status="503", reason="loop") == 5
        assert stack.stats()["http.edge.downstream_rq_total"] == 10
