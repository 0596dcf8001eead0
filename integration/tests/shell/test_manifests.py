"""The Envoy configurations and Kubernetes manifests that people deploy: parsed, checked, and given to
the real Envoy to validate."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.manifests import (
    FLAGSMITH_PATHS,
    OFREP,
    OFREP_PATHS,
    OTHERS,
    PATHS,
    cluster,
    connection_manager,
    contour_files,
    local_configuration,
    manifest,
    plugin_configuration,
    wasm_filter,
)
from stack.paths import ROOT, WASM
from stack.settings import Settings


@pytest.fixture(params=["local", "contour"])
def envoy(request: pytest.FixtureRequest) -> tuple[Any, list[Any]]:
    """(bootstrap, listeners) of each deployment."""
    if request.param == "local":
        return local_configuration()
    bootstrap = yaml.safe_load(contour_files()["envoy.yaml"])
    return bootstrap, bootstrap["static_resources"]["listeners"]


def routes(manager: Any) -> list[Any]:
    return manager["route_config"]["virtual_hosts"][0]["routes"]


def validate(bootstrap: Path) -> None:
    result = subprocess.run(
        [Settings.envoy, "--mode", "validate", "--config-path", bootstrap, "--log-level", "error"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_envoy_accepts_the_contour_bootstrap(tmp_path: Path) -> None:
    text = contour_files()["envoy.yaml"]
    assert text.count("/filter/plugin.wasm") == 2
    (tmp_path / "envoy.yaml").write_text(text.replace("/filter/plugin.wasm", str(WASM)))
    validate(tmp_path / "envoy.yaml")


def test_envoy_accepts_the_local_configuration(tmp_path: Path) -> None:
    bootstrap, listeners = local_configuration()
    # In place, for Envoy does not look into an LDS file when it validates.
    del bootstrap["dynamic_resources"]
    bootstrap["static_resources"]["listeners"] = [
        {key: value for key, value in listener.items() if key != "@type"} for listener in listeners
    ]
    (tmp_path / "envoy.yaml").write_text(yaml.safe_dump(bootstrap))
    validate(tmp_path / "envoy.yaml")


def test_the_filter_is_off_except_on_the_paths_of_the_products(envoy: tuple[Any, list[Any]]) -> None:
    manager = connection_manager(envoy[1], "edge")
    assert wasm_filter(manager)["disabled"] is True
    enabled = [route for route in routes(manager) if "typed_per_filter_config" in route]
    *posthog, flagsmith, ofrep = enabled
    assert {route["match"]["path"] for route in posthog} == PATHS
    # The filter takes any number of slashes at both ends.
    pattern = re.compile(flagsmith["match"]["safe_regex"]["regex"])
    slashed = {f"/{path}//" for path in FLAGSMITH_PATHS}
    assert all(pattern.fullmatch(path) for path in FLAGSMITH_PATHS | slashed)
    assert not any(pattern.fullmatch(path) for path in PATHS | OFREP_PATHS | OTHERS)
    assert ofrep["match"] == {"path_separated_prefix": OFREP}
    for route in enabled:
        assert route["typed_per_filter_config"]["flag_definitions"] == {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "config": {},
        }
        assert route["route"]["idle_timeout"] == "4s"
        assert route["route"]["timeout"] == "60s", "of the whole answer, to a slow reader"
        assert "retry_policy" not in route["route"]


def test_a_request_with_a_body_reaches_the_filter(envoy: tuple[Any, list[Any]]) -> None:
    manager = connection_manager(envoy[1], "edge")
    assert wasm_filter(manager)["typed_config"]["config"]["allow_on_headers_stop_iteration"] is True
    (flagsmith,) = [route for route in routes(manager) if "safe_regex" in route["match"]]
    # Above the 2 MiB that the filter takes, so that it refuses what is longer itself.
    assert flagsmith["request_body_buffer_limit"] > 2 << 20
    assert flagsmith["route"]["cluster"] == "flag_definitions_flagsmith"
    assert cluster(envoy[0], flagsmith["route"]["cluster"])["connect_timeout"] == "1s"
    (ofrep,) = [route for route in routes(manager) if "path_separated_prefix" in route["match"]]
    defaults = json.loads((ROOT / "filter-config/examples/all-settings.json").read_text())
    longest = defaults["ofrep"] | plugin_configuration(envoy[1], "edge").get("ofrep", {})
    assert ofrep["request_body_buffer_limit"] > longest["max_body_bytes"]
    assert ofrep["route"]["cluster"] == "flag_definitions_ofrep"
    assert cluster(envoy[0], ofrep["route"]["cluster"])["connect_timeout"] == "1s"


def test_a_body_that_envoy_refuses_is_refused_in_the_edge_proxy_s_words(envoy: tuple[Any, list[Any]]) -> None:
    too_long, *_ = connection_manager(envoy[1], "edge")["local_reply_config"]["mappers"]
    status, path = too_long["filter"]["and_filter"]["filters"]
    assert status["status_code_filter"]["comparison"]["value"]["default_value"] == 413
    pattern = re.compile(path["header_filter"]["header"]["string_match"]["safe_regex"]["regex"])
    assert pattern.fullmatch("/api/v1/identities/?x=y") and not pattern.fullmatch("/flags/definitions")
    assert too_long["body"]["inline_string"] == "Failed to buffer the request body: length limit exceeded"


def test_what_envoy_itself_says_of_ofrep_is_json_that_clients_read(envoy: tuple[Any, list[Any]]) -> None:
    mappers = connection_manager(envoy[1], "edge")["local_reply_config"]["mappers"]
    paths = [
        one["filter"]["and_filter"]["filters"][1]["header_filter"]["header"]["string_match"]["safe_regex"]
        for one in mappers
    ]
    ofrep = [one for one, path in zip(mappers, paths, strict=True) if OFREP in path["regex"]]
    for path in paths:
        pattern = re.compile(path["regex"])
        own = [OFREP, f"{OFREP}/", f"{OFREP}/key?x=y", f"{OFREP}?x=y"]
        assert [bool(pattern.fullmatch(one)) for one in own] == [OFREP in path["regex"]] * len(own)
        assert not pattern.fullmatch(f"{OFREP}ets")
    too_long, idle = ofrep
    assert json.loads(too_long["body"]["inline_string"]) == {"errorDetails": "request body too large"}
    assert "status_code" not in too_long and idle["status_code"] == 503
    assert json.loads(idle["body"]["inline_string"]).keys() == {"errorCode", "errorDetails"}
    for mapper in ofrep:
        assert mapper["body_format_override"]["content_type"] == "application/json"


# What Envoy says of what is away, and not of a request that it does not understand.
AWAY = {"SI", "OM", "UH", "UF", "UO", "UC", "UR", "UT", "URX", "UPE", "UMSDR", "LH", "LR", "NR", "NC"} | {
    "DT",
    "DO",
}


def test_whatever_envoy_says_of_what_is_away_clients_of_evaluated_flags_get_json(
    envoy: tuple[Any, list[Any]],
) -> None:
    mappers = connection_manager(envoy[1], "edge")["local_reply_config"]["mappers"]
    flagged = [
        (one["filter"]["and_filter"]["filters"], one)
        for one in mappers
        if "response_flag_filter" in one["filter"]["and_filter"]["filters"][0]
    ]
    (flagsmith, ofrep, posthog) = flagged
    for (flags, _), mapper in (flagsmith, ofrep):
        assert set(flags["response_flag_filter"]["flags"]) == AWAY
        assert mapper["status_code"] == 503
        assert mapper["body_format_override"]["content_type"] == "application/json"
    # PostHog's SDKs keep their flags whatever Envoy says.
    assert posthog[0][0]["response_flag_filter"]["flags"] == ["SI"]


def milliseconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(ms|s)", duration).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 1, "s": 1000}[unit]


def test_a_request_may_wait_for_less_than_the_route_s_idle_timeout(envoy: tuple[Any, list[Any]]) -> None:
    """Each read has twice its timeout and 100 ms."""
    defaults = json.loads((ROOT / "filter-config/examples/all-settings.json").read_text())["redis"]
    redis = plugin_configuration(envoy[1], "edge").get("redis", {})
    assert not any("timeout" in store for store in redis.values()), "the defaults count"
    reads = ("identity", "definitions", "definitions")
    waits = sum(2 * milliseconds(defaults[read]["timeout"]) + 100 for read in reads)
    for route in routes(connection_manager(envoy[1], "edge")):
        if "typed_per_filter_config" in route:
            assert milliseconds(route["route"]["idle_timeout"]) > waits


def test_both_deployments_end_clients_that_do_not_read_in_the_same_way() -> None:
    local, local_listeners = local_configuration()
    contour = yaml.safe_load(contour_files()["envoy.yaml"])
    contour_listeners = contour["static_resources"]["listeners"]
    assert local["overload_manager"] == contour["overload_manager"]
    both = (local_listeners, contour_listeners)
    sockets = [
        next(one for one in listeners if one["name"] == "edge")["socket_options"] for listeners in both
    ]
    assert sockets[0] == sockets[1]
    managers = [connection_manager(listeners, "edge") for listeners in both]
    for option in (
        "common_http_protocol_options",
        "http2_protocol_options",
        "stream_flush_timeout",
        "drain_timeout",
        "delayed_close_timeout",
    ):
        assert managers[0][option] == managers[1][option], option
    for listeners in both:
        (health,) = [one for one in listeners if one["name"] == "health"]
        assert health["bypass_overload_manager"] is True, (
            "else a probe restarts an Envoy that is short of memory"
        )


def test_what_envoy_may_use_fits_the_limit_of_the_pod() -> None:
    envoy = yaml.safe_load(contour_files()["envoy.yaml"])
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    workers = int(container["command"][container["command"].index("--concurrency") + 1])
    heap = envoy["overload_manager"]["resource_monitors"][0]["typed_config"]["max_heap_size_bytes"]
    plugin = plugin_configuration(envoy["static_resources"]["listeners"], "edge")
    per_second = plugin["definitions"]["large_bytes_per_second"]
    # What all workers hand over before they hear that the heap is full.
    assert workers * per_second < 0.5 * heap
    mebibyte = 1 << 20
    kept = 64 * mebibyte
    for surface in (plugin["flagsmith"], plugin["ofrep"]):
        kept += surface["documents_bytes"] + surface["answers_bytes"]
    kept_bodies = 1.5 * kept * workers
    limit = container["resources"]["limits"]["memory"]
    assert limit == "1Gi"
    assert 130 * mebibyte + kept_bodies + heap + workers * per_second < 1024 * mebibyte


def test_what_webdis_may_hold_fits_its_limit() -> None:
    (thresholds,) = cluster(yaml.safe_load(contour_files()["envoy.yaml"]), "flag_definitions_redis")[
        "circuit_breakers"
    ]["thresholds"]
    webdis = json.loads(contour_files()["webdis.json"])
    longest = json.loads((ROOT / "filter-config/examples/all-settings.json").read_text())["definitions"]
    reply, mebibyte = longest["max_bytes"], 1 << 20
    waiting = thresholds["max_connections"] * reply
    half_read = webdis["threads"] * webdis["pool_size"] * (reply + mebibyte)
    being_formed = webdis["threads"] * 3 * reply
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert container["resources"]["limits"]["memory"] == "1Gi"
    assert waiting + half_read + being_formed < 1024 * mebibyte


def test_no_client_is_told_a_quota_period_s_etag_while_posthog_has_a_share() -> None:
    example = json.loads((ROOT / "filter-config/examples/in-front-of-posthog.json").read_text())
    listeners = yaml.safe_load(contour_files()["envoy.yaml"])["static_resources"]["listeners"]
    for shared in (example, plugin_configuration(listeners, "edge")):
        assert shared["upstream"] == "forward"
        assert shared["quota"]["free_latch"] is False, "PostHog's service does not know that ETag"


@pytest.mark.parametrize("listener", ["edge", "health"])
def test_both_listeners_accept_http_10(envoy: tuple[Any, list[Any]], listener: str) -> None:
    options = connection_manager(envoy[1], listener)["http_protocol_options"]
    # Of HTTP/1.0 a request may leave out its host, which Envoy needs.
    assert options["accept_http_10"] is True and options["default_host_for_http_10"]


def test_an_answer_of_the_upstream_moves_in_small_pieces(envoy: tuple[Any, list[Any]]) -> None:
    (edge,) = [listener for listener in envoy[1] if listener["name"] == "edge"]
    upstreams = ("flag_definitions_upstream", "flag_definitions_flagsmith", "flag_definitions_ofrep")
    for place in (edge, *(cluster(envoy[0], name) for name in upstreams)):
        assert place["per_connection_buffer_limit_bytes"] == 32_768


@pytest.mark.parametrize("listener", ["edge", "health"])
def test_a_trap_reloads_the_vm_and_both_listeners_share_it(
    envoy: tuple[Any, list[Any]], listener: str
) -> None:
    config = wasm_filter(connection_manager(envoy[1], listener))["typed_config"]["config"]
    assert config["failure_policy"] == "FAIL_RELOAD"
    assert config["root_id"] == config["vm_config"]["vm_id"] == "flag_definitions"
    plugin = json.loads(config["configuration"]["value"])
    assert plugin.get("role", "filter") == ("health" if listener == "health" else "filter")


def test_both_listeners_read_the_same_shared_data(envoy: tuple[Any, list[Any]]) -> None:
    health = plugin_configuration(envoy[1], "health")
    assert health == plugin_configuration(envoy[1], "edge") | {"role": "health"}


def test_an_idle_stream_is_answered_like_each_product_s_timeout(envoy: tuple[Any, list[Any]]) -> None:
    mappers = connection_manager(envoy[1], "edge")["local_reply_config"]["mappers"]
    idle = [one for one in mappers if "response_flag_filter" in one["filter"]["and_filter"]["filters"][0]]
    words_of_each = ("service_unavailable", "are not available", "The request timed out.")
    for mapper, words in zip(idle, words_of_each, strict=True):
        assert mapper["status_code"] == 503 and words in mapper["body"]["inline_string"]


def test_the_admin_interface_is_on_loopback(envoy: tuple[Any, list[Any]]) -> None:
    assert envoy[0]["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_callouts_are_bounded_and_stay_in_the_pod(envoy: tuple[Any, list[Any]]) -> None:
    redis = cluster(envoy[0], "flag_definitions_redis")
    assert redis["connect_timeout"] == "0.2s"
    (limits,) = redis["circuit_breakers"]["thresholds"]
    assert limits["max_retries"] == 0
    assert {"max_connections", "max_pending_requests", "max_requests"} < limits.keys()
    (endpoint,) = redis["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_both_deployments_turn_the_same_labels_into_tags() -> None:
    local = local_configuration()[0]["stats_config"]
    contour = yaml.safe_load(contour_files()["envoy.yaml"])["stats_config"]
    assert local == contour
    # Without its tag a label stays a part of the metric's name.
    labels = set(re.findall(r";(\w+)=(?:\{|\w+;)", (ROOT / "src/metrics.rs").read_text()))
    assert labels == {tag["tag_name"] for tag in local["stats_tags"]}
    assert all(
        tag["regex"].startswith(r"^wasmcustom\.flag_definitions_") and f";{tag['tag_name']}=" in tag["regex"]
        for tag in local["stats_tags"]
    )
