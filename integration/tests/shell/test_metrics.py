"""What dashboards and logs show. What they must not show is in test_leaks.py."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import Any

from stack.edge import Crowd, authenticated_get, get
from stack.launcher import Stack
from stack.processes import StackError
from stack.running import definitions_key
from stack.settings import Settings

ONE, TWO, EMPTY = (
    (f"phc_sample_team_{name}", f"phs_sample_team_{name}_secret") for name in ("one", "two", "three")
)


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
            stack.wait_until(lambda: seen() == expected)
        assert seen() == expected
        assert stack.metric("flag_definitions_loader_total", event="loaded") == 1
        assert "flag_definitions_snapshot_age_seconds" in stack.prometheus()
        # No label but the documented ones, no team.
        series = [line for line in stack.prometheus().splitlines() if line.startswith("flag_definitions_")]
        assert series and not any("team" in line or ";" in line for line in series)


# What the interface promises: name → labels.
METRICS = {
    "flag_definitions_answers_total": {"status", "reason"},
    "flag_definitions_forwarded_total": {"reason"},
    "flag_definitions_callouts_total": {"store", "outcome"},
    "flag_definitions_etag_total": {"result"},
    "flag_definitions_cache_total": {"result"},
    "flag_definitions_auth_total": {"method"},
    "flag_definitions_rate_limited_total": {"budget", "mode"},
    "flag_definitions_usage_total": {"state"},
    "flag_definitions_loader_total": {"event"},
    "flag_definitions_surface_answers_total": {"surface", "status", "reason"},
    "flag_definitions_evaluations_total": {"surface", "result"},
    "flag_definitions_surface_usage_total": {"surface", "state"},
    "flag_definitions_documents": {"surface"},
    "flag_definitions_document_age_seconds": {"surface"},
    "flag_definitions_snapshot_age_seconds": set(),
    "flag_definitions_watermark_age_seconds": set(),
}
OF_TEAMS = {
    "flag_definitions_team_answers_total": {"team", "status"},
    "flag_definitions_team_rate_limited_total": {"team", "budget", "mode"},
}
VALUES = {
    ("flag_definitions_callouts_total", "store"): {
        "definitions",
        "documents",
        "identity",
        "object_store",
        "quota",
        "rebuild",
        "snapshot",
        "usage",
    },
    ("flag_definitions_callouts_total", "outcome"): {
        "ok",
        "not_sent",
        "timeout",
        "unavailable",
        "refused",
        "readonly",
        "malformed",
        "too_big",
        "misdirected",
    },
    ("flag_definitions_etag_total", "result"): {"hit", "miss", "none", "redis_missing", "redis_error"},
    ("flag_definitions_cache_total", "result"): {"hit", "miss", "error"},
    ("flag_definitions_auth_total", "method"): {
        "secret_api_key",
        "personal_api_key",
        "project_secret_api_key",
    },
    ("flag_definitions_rate_limited_total", "budget"): {"full", "conditional"},
    ("flag_definitions_surface_answers_total", "surface"): {"flagsmith", "ofrep"},
    ("flag_definitions_evaluations_total", "surface"): {"flagsmith", "ofrep"},
    ("flag_definitions_documents", "surface"): {"flagsmith", "ofrep"},
    ("flag_definitions_document_age_seconds", "surface"): {"flagsmith", "ofrep"},
    ("flag_definitions_evaluations_total", "result"): {"evaluated", "kept", "not_modified"},
}


def series(stack: Stack) -> list[tuple[str, dict[str, str], float]]:
    """The filter's series as Prometheus reads them: name, labels, value."""
    found = []
    for line in stack.prometheus().splitlines():
        if match := re.fullmatch(r"(flag_definitions_\w+)(?:\{(.*)\})? (\S+)", line):
            found.append((match[1], dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")), float(match[3])))
    return found


def test_every_metric_of_the_interface_is_there_from_the_start(samples: Stack) -> None:
    seen: dict[str, set[frozenset[str]]] = {}
    for name, labels, _ in series(samples):
        seen.setdefault(name, set()).add(frozenset(labels))
    assert seen == {name: {frozenset(labels)} for name, labels in METRICS.items()}
    for (name, label), values in VALUES.items():
        assert {labels[label] for own, labels, _ in series(samples) if own == name} == values, (name, label)


def test_an_absent_key_is_told_from_a_broken_redis() -> None:
    with Stack(Settings.on_free_ports()) as stack:

        def counted() -> dict[str, float]:
            results = {r: stack.metric("flag_definitions_cache_total", result=r) for r in ("miss", "error")}
            failed = {"outcome": "unavailable", "store": "definitions"}
            return results | {"unavailable": stack.metric("flag_definitions_callouts_total", **failed)}

        assert get(stack, *EMPTY).status_code == 503
        stack.wait_until(lambda: counted() == {"miss": 1, "error": 0, "unavailable": 0})
        stack.stop_part("webdis")
        assert get(stack).status_code == 503
        stack.wait_until(lambda: counted() == {"miss": 1, "error": 1, "unavailable": 1})
        assert stack.metric("flag_definitions_answers_total", reason="payload_missing") == 1
        assert stack.metric("flag_definitions_answers_total", reason="redis") == 1


def test_only_the_teams_in_the_settings_have_labels() -> None:
    config = {"metrics": {"teams": [1, 3]}, "rate_limit": {"overrides": {"1": "2/day", "2": "2/day"}}}
    with Stack(Settings.on_free_ports(config=config)) as stack:
        for _ in range(3):
            get(stack, *ONE)
            get(stack, *TWO)
        get(stack, *EMPTY)
        get(stack, EMPTY[0], "phs_wrong")  # nobody's, so no team's
        expected = {("1", "200"): 2, ("1", "429"): 1, ("3", "503"): 1}

        def answers() -> dict[tuple[str, str], float]:
            own = [entry for entry in series(stack) if entry[0] == "flag_definitions_team_answers_total"]
            return {(labels["team"], labels["status"]): value for _, labels, value in own if value}

        with contextlib.suppress(StackError):
            stack.wait_until(lambda: answers() == expected)
        assert answers() == expected
        limited = {"budget": "full", "mode": "enforced"}
        assert stack.metric("flag_definitions_team_rate_limited_total", team="1", **limited) == 1
        # Without a team they count everybody, and have no such label.
        assert stack.metric("flag_definitions_rate_limited_total", **limited) == 2
        for name, labels, _ in series(stack):
            assert labels.keys() == (METRICS | OF_TEAMS)[name], name
            assert labels.get("team") in (None, "1", "3")


# === The log ===


def lines(stack: Stack) -> list[dict[str, Any]]:
    """The structured lines about requests."""
    found = re.findall(r'wasm log [^{\n]*(\{"event".*)$', stack.log("envoy"), re.MULTILINE)
    return [json.loads(line) for line in found]


def test_each_refused_or_failed_request_is_one_line() -> None:
    # A kept body would be answered with, for as long as the ETag is the same.
    config = {"rate_limit": {"overrides": {"2": "1/day"}}, "definitions": {"body_cache_bytes": 0}}
    with Stack(Settings.on_free_ports(config=config)) as stack:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        for request in ({}, {"etag": f'W/"{etag}"'}, {"method": "HEAD"}, {"method": "OPTIONS"}):
            assert get(stack, **request).status_code in (200, 304)
        get(stack, None, "phx_sample_personal")
        get(stack, secret=None)
        get(stack, secret="phs_wrong")
        get(stack, secret="phx_sample_no_scope")
        get(stack, "phc_wrong")
        get(stack, method="POST")
        assert [get(stack, *TWO).status_code for _ in range(2)] == [200, 429]
        get(stack, *EMPTY)
        stack.redis.set(definitions_key(1), b"\x00nonsense")
        get(stack)
        expected = [
            {"event": "refused", "status": 400, "reason": "token_required"},
            {"event": "refused", "status": 401, "reason": "not_authenticated"},
            {"event": "refused", "status": 401, "reason": "secret_invalid"},
            {"event": "refused", "status": 403, "reason": "scope_missing"},
            {"event": "refused", "status": 401, "reason": "token_invalid"},
            {"event": "refused", "status": 405, "reason": "method_not_allowed"},
            {"event": "refused", "status": 429, "reason": "rate_limited", "team": 2},
            {"event": "failed", "status": 503, "reason": "payload_missing", "team": 3},
            {"event": "failed", "status": 500, "reason": "payload_undecodable", "team": 1},
        ]
        with contextlib.suppress(StackError):  # Envoy writes its log a moment later
            stack.wait_until(lambda: len(lines(stack)) >= len(expected))
        assert lines(stack) == expected


def test_at_log_level_warning_requests_are_not_logged() -> None:
    with Stack(Settings.on_free_ports(log_level="warning")) as stack:
        assert get(stack, secret="phs_wrong").status_code == 401
        stack.redis.set(definitions_key(1), b"\x00nonsense")
        assert get(stack).status_code == 500
        # A warning, which comes after those lines would have come.
        stack.wait_until(lambda: "team 1: " in stack.log("envoy"))
        assert lines(stack) == []


def test_a_flood_of_refusals_is_bounded_in_the_log_and_all_are_accounted_for() -> None:
    flood = 1_500
    with Stack(Settings.on_free_ports(concurrency=1)) as stack:
        refused = authenticated_get(secret="phs_wrong")
        assert Crowd(stack, flood, refused).statuses() == {401: flood}

        def told() -> int:
            return len(lines(stack)) + sum(line.get("suppressed", 0) for line in lines(stack))

        # What was left out is said with the next line, once the second is over.
        time.sleep(1.1)
        assert get(stack, secret="phs_wrong").status_code == 401
        with contextlib.suppress(StackError):  # Envoy writes its log a moment later
            stack.wait_until(lambda: told() == flood + 1)
        assert told() == flood + 1
        assert len(lines(stack)) < flood / 2, "most were left out"
