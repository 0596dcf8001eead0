"""What dashboards see, and what nobody may see."""

from __future__ import annotations

import contextlib

import requests

from edge import SECRET, TOKEN, get, sha256
from settings import Settings
from stack import Stack, StackError, definitions_key

TOKENS = [TOKEN, SECRET, "phs_wrong_secret", "phc_wrong_token", "phx_sample_personal"]


def test_metrics_have_their_names_and_labels_and_count_what_happened() -> None:
    with Stack(Settings.on_free_ports()) as stack:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        expected = {
            ("flag_definitions_answers_total", "status", "200"): 2,
            ("flag_definitions_answers_total", "status", "304"): 3,
            ("flag_definitions_answers_total", "status", "401"): 2,
            ("flag_definitions_answers_total", "reason", "secret_invalid"): 1,
            ("flag_definitions_answers_total", "reason", "token_invalid"): 1,
            ("flag_definitions_answers_total", "reason", "payload_missing"): 1,
            ("flag_definitions_etag_total", "result", "hit"): 3,
            ("flag_definitions_etag_total", "result", "none"): 1,
            ("flag_definitions_etag_total", "result", "miss"): 1,
            ("flag_definitions_cache_total", "result", "hit"): 2,
            ("flag_definitions_cache_total", "result", "miss"): 1,
            ("flag_definitions_auth_total", "method", "secret_api_key"): 5,
            ("flag_definitions_auth_total", "method", "personal_api_key"): 1,
            ("flag_definitions_callouts_total", "outcome", "unavailable"): 0,
            ("flag_definitions_forwarded_total", "reason", "redis"): 0,
        }
        get(stack)
        get(stack, secret="phx_sample_personal", etag='"old"')
        for _ in range(3):
            get(stack, etag=f'W/"{etag}"')
        get(stack, secret="phs_wrong_secret")
        get(stack, token="phc_wrong_token")
        get(stack, "phc_sample_team_three", "phs_sample_team_three_secret")

        def seen() -> dict:
            return {key: stack.metric(key[0], **{key[1]: key[2]}) for key in expected}

        with contextlib.suppress(StackError):  # the comparison below shows the difference
            stack.wait_until(lambda: seen() == expected, timeout=5)
        assert seen() == expected
        assert stack.metric("flag_definitions_loader_total", event="loaded") == 1
        assert "flag_definitions_snapshot_age_seconds" in stack.prometheus()
        # No label but the documented ones, no team.
        series = [line for line in stack.prometheus().splitlines() if line.startswith("flag_definitions_")]
        assert series and not any("team" in line or ";" in line for line in series)


def test_a_listed_team_has_labels_of_its_own() -> None:
    config = {"metrics": {"teams": [1]}, "rate_limit": {"full": "1/day", "log_only": True}}
    with Stack(Settings.on_free_ports(config=config)) as stack:
        for _ in range(3):
            get(stack)
            get(stack, "phc_sample_team_two", "phs_sample_team_two_secret")
        answers, limited = "flag_definitions_team_answers_total", "flag_definitions_team_rate_limited_total"
        stack.wait_until(lambda: stack.metric(limited, team="1", budget="full", mode="log_only") == 2)
        assert stack.metric(answers, team="1", status="200") == 3
        assert stack.metric(answers, team="2") == 0


def test_no_credential_in_logs_metrics_health_or_config_dump() -> None:
    with Stack(Settings.on_free_ports(log_level="trace")) as stack:
        for secret in [SECRET, "phs_wrong_secret", "phx_sample_personal"]:
            for token in [TOKEN, "phc_wrong_token"]:
                get(stack, token, secret)
        stack.redis.set(definitions_key(1), b"\x00nonsense")
        get(stack)
        shown = [
            "\n".join(line for line in stack.log("envoy").splitlines() if "flag_definitions" in line),
            stack.prometheus(),
            requests.get(f"{stack.admin_url}/config_dump", timeout=5).text,
            requests.get(f"{stack.health_url}/health", timeout=5).text,
        ]
        assert "payload_undecodable" in shown[0], "the log is there to be searched"
        for text in shown:
            for token in TOKENS:
                assert token not in text and sha256(token) not in text
