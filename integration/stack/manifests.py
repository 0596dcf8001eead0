"""The Envoy configurations and Kubernetes manifests that people deploy, parsed."""

from __future__ import annotations

import json
from typing import Any

import yaml

from stack import render
from stack.paths import ROOT
from stack.settings import Settings

CONTOUR = ROOT / "envoy/contour"
PATHS = {
    "/flags/definitions",
    "/flags/definitions/",
    "/api/feature_flag/local_evaluation",
    "/api/feature_flag/local_evaluation/",
}
FLAGSMITH_PATHS = {
    f"/api/v1/{name}{slash}"
    for name in ("flags", "identities", "environment-document")
    for slash in ("", "/")
}
OFREP = "/ofrep/v1/evaluate/flags"
OFREP_PATHS = {OFREP, f"{OFREP}/", f"{OFREP}/new-checkout", f"{OFREP}/a/b", f"{OFREP}/a%2Fb"}
OTHERS = {
    "/api/v1/flags/1",
    "/api/v1/flagss",
    "/api/v1/identities/x/",
    "/api/v1/analytics/flags/",
    "/api/v1/",
    "/v1/flags",
    "/ofrep/v1/evaluate",
    "/ofrep/v1/evaluate/flagss",
    "/ofrep/v1/configuration",
    "/OFREP/v1/evaluate/flags",
}


def manifest(kind: str, name: str = "flag-definitions") -> dict[str, Any]:
    """An object of the kustomization."""
    names = yaml.safe_load((CONTOUR / "kustomization.yaml").read_text())["resources"]
    objects = [yaml.safe_load((CONTOUR / name).read_text()) for name in names]
    (found,) = [entry for entry in objects if (entry["kind"], entry["metadata"]["name"]) == (kind, name)]
    return found


def contour_files() -> dict[str, str]:
    return manifest("ConfigMap")["data"]


def local_configuration() -> tuple[Any, list[Any]]:
    """The local bootstrap and listeners as the launcher renders them."""
    settings = Settings(upstream="localhost:9")
    listeners = yaml.safe_load(render.listeners(settings, None))
    return yaml.safe_load(render.bootstrap(settings)), listeners["resources"]


def http_proxy(name: str = "httpproxy.yaml") -> dict[str, Any]:
    return yaml.safe_load((CONTOUR / name).read_text())


def connection_manager(listeners: list[Any], name: str) -> Any:
    listener = next(listener for listener in listeners if listener["name"] == name)
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def wasm_filter(manager: Any) -> Any:
    return next(entry for entry in manager["http_filters"] if entry["name"] == "flag_definitions")


def plugin_configuration(listeners: list[Any], listener: str) -> dict[str, Any]:
    config = wasm_filter(connection_manager(listeners, listener))["typed_config"]["config"]
    return json.loads(config["configuration"]["value"])


def cluster(bootstrap: Any, name: str) -> Any:
    return next(entry for entry in bootstrap["static_resources"]["clusters"] if entry["name"] == name)
