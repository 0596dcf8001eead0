"""The manifests for Contour: routes, roll-back, pods, publisher and webdis."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from stack.manifests import (
    CONTOUR,
    FLAGSMITH_PATHS,
    OFREP_PATHS,
    OTHERS,
    PATHS,
    cluster,
    contour_files,
    http_proxy,
    manifest,
    plugin_configuration,
)
from stack.paths import PUBLISHER, ROOT


def test_contour_routes_the_four_paths_and_retries_only_what_was_not_answered() -> None:
    proxied = http_proxy()["spec"]["routes"]
    assert {route["conditions"][0]["exact"] for route in proxied} == PATHS
    (flagsmith,) = http_proxy("flagsmith.yaml")["spec"]["routes"]
    (ofrep,) = http_proxy("ofrep.yaml")["spec"]["routes"]
    for route in (*proxied, flagsmith, ofrep):
        # The whole answer, and a pause in it.
        assert route["timeoutPolicy"] == {"response": "60s", "idle": "5s"}
        assert route["retryPolicy"] == {"count": 3, "retryOn": ["reset-before-request", "connect-failure"]}
        assert sum(service["weight"] for service in route["services"]) == 100
        assert "healthCheckPolicy" not in route, "readiness belongs to the pods"
    # As many at a time as requests, not three.
    assert manifest("Service")["metadata"]["annotations"] == {"projectcontour.io/max-retries": "100"}


@pytest.mark.parametrize(
    ("surface", "own", "others"),
    [("flagsmith", FLAGSMITH_PATHS, OFREP_PATHS), ("ofrep", OFREP_PATHS, FLAGSMITH_PATHS)],
)
def test_contour_routes_the_paths_of_the_other_surfaces(
    surface: str, own: set[str], others: set[str]
) -> None:
    (route,) = http_proxy(f"{surface}.yaml")["spec"]["routes"]
    ((condition,),) = [route["conditions"]]
    pattern = re.compile(condition["regex"])
    assert all(pattern.fullmatch(path) for path in own)
    assert not any(pattern.fullmatch(path) for path in PATHS | others | OTHERS)
    assert http_proxy(f"{surface}.yaml")["metadata"]["name"] == f"flag-definitions-{surface}"
    # What the filter cannot decide goes to the same service.
    (behind,) = [s for s in route["services"] if s["name"] != manifest("Service")["metadata"]["name"]]
    upstream = cluster(yaml.safe_load(contour_files()["envoy.yaml"]), f"flag_definitions_{surface}")
    (endpoint,) = upstream["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address["address"].startswith(behind["name"] + ".")
    assert address["port_value"] == behind["port"]


def test_applying_the_kustomization_leaves_the_weights_alone() -> None:
    names = yaml.safe_load((CONTOUR / "kustomization.yaml").read_text())["resources"]
    kinds = [yaml.safe_load((CONTOUR / name).read_text())["kind"] for name in names]
    assert "HTTPProxy" not in kinds


@pytest.mark.parametrize(
    ("proxy", "patch", "service"),
    [
        ("httpproxy.yaml", "rollback.yaml", "posthog-feature-flags"),
        ("flagsmith.yaml", "rollback-flagsmith.yaml", "flagsmith-edge-proxy"),
        ("ofrep.yaml", "rollback-ofrep.yaml", "flagd"),
    ],
)
def test_the_rollback_gives_the_other_service_everything(proxy: str, patch: str, service: str) -> None:
    patched = http_proxy(proxy)
    for change in yaml.safe_load((CONTOUR / patch).read_text()):
        assert change["op"] == "replace"
        *way, last = [int(step) if step.isdigit() else step for step in change["path"].split("/")[1:]]
        place: Any = patched
        for step in way:
            place = place[step]
        assert last in place, "a replacement replaces something"
        place[last] = change["value"]
    for route in patched["spec"]["routes"]:
        weights = {entry["name"]: entry["weight"] for entry in route["services"]}
        assert weights == {"flag-definitions": 0, service: 100}
    before = [route["services"] for route in http_proxy(proxy)["spec"]["routes"]]
    assert all(entry["weight"] for services in before for entry in services), "else the test shows nothing"


def test_the_pod_drains_before_it_ends_and_is_probed_on_the_health_listener() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (envoy,) = pod["containers"]
    assert envoy["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "health"}
    assert envoy["livenessProbe"]["httpGet"] == {"path": "/health", "port": "health"}
    drain = envoy["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert "POST /drain_listeners?inboundonly&graceful" in drain
    assert "--disable-hot-restart" in envoy["command"]
    # Time for the drain and for two attempts to send what was counted last.
    drain_time = int(envoy["command"][envoy["command"].index("--drain-time-s") + 1])
    listeners = yaml.safe_load(contour_files()["envoy.yaml"])["static_resources"]["listeners"]
    flush_interval = plugin_configuration(listeners, "edge")["usage"]["flush_interval"]
    pause = int(drain.rpartition("sleep ")[2])
    assert pause > drain_time + 2 * int(flush_interval.removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] >= pause + 10


def test_the_publisher_is_told_what_it_understands_and_its_urls_come_from_a_secret() -> None:
    pod = manifest("Deployment", "flag-definitions-publisher")["spec"]["template"]["spec"]
    (publisher,) = pod["containers"]
    program, *arguments = publisher["command"]
    assert program.endswith(PUBLISHER.name) and arguments == ["watch"]
    help_text = subprocess.run(
        [PUBLISHER, "watch", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for variable in publisher["env"]:
        assert f"[env: {variable['name']}" in help_text, variable["name"]
        origin = variable.get("valueFrom", {})
        assert variable["name"].endswith("_URL") == ("secretKeyRef" in origin)
    for probe in ("readinessProbe", "livenessProbe"):
        assert publisher[probe]["httpGet"] == {"path": "/healthz", "port": "monitor"}
    (port,) = publisher["ports"]
    (listen,) = [entry["value"] for entry in publisher["env"] if entry["name"] == "FLAG_DEFINITIONS_LISTEN"]
    assert listen == f"0.0.0.0:{port['containerPort']}"


def test_webdis_listens_on_loopback_and_logs_in_as_the_filter_s_user() -> None:
    contour = json.loads(contour_files()["webdis.json"])
    assert contour["http_host"] == "127.0.0.1"
    assert contour["redis_auth"] == ["flag_definitions_filter", "$REDIS_PASSWORD"]
    local = (ROOT / "envoy/webdis.json").read_text().replace("${REDIS_LOGIN_PORT}", "0")
    local = json.loads(local.replace("${WEBDIS_PORT}", "0"))
    assert contour["acl"] == local["acl"]
    assert contour["daemonize"] is local["daemonize"] is False
    (webdis,) = manifest("Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert webdis["restartPolicy"] == "Always"
    probe = webdis["livenessProbe"]["exec"]["command"][-1]
    assert f"http://{contour['http_host']}:{contour['http_port']}/EVAL/" in probe


@pytest.mark.parametrize(
    ("name", "key", "mounted", "origin"),
    [
        (
            "FLAGSMITH_CONFIG",
            "flagsmith-config",
            "{}/config.json",
            {"secret": {"secretName": "flag-definitions-flagsmith", "optional": True}},
        ),
        (
            "FLAGD_URI",
            "flagd-uri",
            "file:{}/flags.json",
            {"configMap": {"name": "flag-definitions-flags", "optional": True}},
        ),
    ],
)
def test_the_publisher_follows_a_file_where_the_config_map_names_it(
    name: str, key: str, mounted: str, origin: dict[str, Any]
) -> None:
    pod = manifest("Deployment", "flag-definitions-publisher")["spec"]["template"]["spec"]
    (publisher,) = pod["containers"]
    (variable,) = [entry for entry in publisher["env"] if entry["name"] == name]
    named = variable["valueFrom"]["configMapKeyRef"]
    assert named == {"name": manifest("ConfigMap")["metadata"]["name"], "key": key, "optional": True}
    assert named["key"] not in contour_files(), "nobody follows one unasked"
    # As it stands there, one has to take the # away.
    text = (CONTOUR / "configmap.yaml").read_text()
    (path,) = re.findall(rf"^  # {named['key']}: (\S+)$", text, re.MULTILINE)
    enabled = yaml.safe_load(text.replace(f"  # {named['key']}:", f"  {named['key']}:"))
    assert enabled["data"] == contour_files() | {named["key"]: path}
    # Without the Secret or the ConfigMap the pod starts all the same.
    (volume,) = [entry for entry in pod["volumes"] if entry | origin == entry]
    (mount,) = [entry for entry in publisher["volumeMounts"] if entry["name"] == volume["name"]]
    # A file that is mounted by a subPath does not change.
    assert mount.keys() == {"name", "mountPath", "readOnly"} and mount["readOnly"] is True
    assert path == mounted.format(mount["mountPath"])
    databases = [entry["valueFrom"] for entry in publisher["env"] if entry["name"] == "DATABASE_URL"]
    assert [origin["secretKeyRef"]["optional"] for origin in databases] == [True], "each alone is enough"


@pytest.mark.parametrize("surface", ["flagsmith", "ofrep"])
def test_the_contour_configuration_is_prepared_for_the_other_surfaces_and_leaves_them_off(
    surface: str,
) -> None:
    listeners = yaml.safe_load(contour_files()["envoy.yaml"])["static_resources"]["listeners"]
    section = plugin_configuration(listeners, "edge")[surface]
    assert section["enabled"] is False
    assert section["upstream"] == "forward", "what cannot be decided goes to the service behind"
