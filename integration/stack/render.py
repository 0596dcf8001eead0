"""Fills in the templates in envoy/ for one stack."""

from __future__ import annotations

import ipaddress
import json
import string
import textwrap
from pathlib import Path
from typing import Any

from stack.clusters import Cluster
from stack.paths import LOCAL_CONFIG, ROOT
from stack.settings import Settings, split_host_port

# A plugin configuration: a document, a text that is used as it is, or None for the built-in one.
PluginConfig = dict[str, Any] | str | None


def redis_users() -> str:
    """The ACL file without its comments, which Redis refuses."""
    lines = (ROOT / "envoy/redis/users.acl").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("user "))


def webdis(settings: Settings, login_port: int) -> str:
    return _fill("envoy/webdis.json", settings, REDIS_LOGIN_PORT=login_port)


def upstash_secret(settings: Settings, token_file: Path) -> str:
    return _fill("envoy/upstash-secret.yaml", settings, UPSTASH_TOKEN_FILE=token_file)


def bootstrap(settings: Settings, *more: Cluster) -> str:
    """The bootstrap with these clusters beside its own."""
    upstreams = {
        name: getattr(settings, name.lower()) for name in ("UPSTREAM", "FLAGSMITH_UPSTREAM", "OFREP_UPSTREAM")
    }
    values: dict[str, str] = {}
    for name, upstream in upstreams.items():
        kind, endpoints = _upstream(name, upstream)
        values |= {f"{name}_TYPE": kind, f"{name}_ENDPOINTS": json.dumps(endpoints)}
    text = _fill("envoy/bootstrap.yaml", settings, **values)
    # The list of clusters is the last thing in it.
    further = [_fill(cluster.example, settings, **cluster.values) for cluster in more]
    text += textwrap.indent("".join(further), "  ")
    if settings.callout_timeout:  # else a connection for which webdis has no room yet were given up before
        text = text.replace("connect_timeout: 0.2s", "connect_timeout: 5s")
    return text


def listeners(settings: Settings, config: PluginConfig) -> str:
    if config is None:
        config = built_in_config(settings)
    text = config if isinstance(config, str) else json.dumps(_with_timeout(config, settings.callout_timeout))
    other_paths = "direct_response: { status: 404 }"
    if settings.upstream:
        other_paths = "route: { cluster: flag_definitions_upstream }"
    rendered = _fill(
        "envoy/listeners.yaml",
        settings,
        WASM=settings.wasm.resolve(),
        # A JSON string is a YAML string too, whatever is in it.
        PLUGIN_CONFIG=json.dumps(text.strip()),
        HEALTH_PLUGIN_CONFIG=json.dumps(_with_health_role(text).strip()),
        OTHER_PATHS=other_paths,
    )
    rendered = _with_health_routes(rendered, text, other_paths)
    if settings.idle_timeout:
        rendered = rendered.replace("idle_timeout: 4s", f"idle_timeout: {settings.idle_timeout}")
    return rendered


def _with_health_routes(rendered: str, plugin_config: str, other_paths: str) -> str:
    """A route to the filter for each of `health.paths`. What it does not answer goes where other paths go."""
    try:
        paths = json.loads(plugin_config)["health"]["paths"]
    except (ValueError, KeyError, TypeError):
        return rendered  # the filter says what is wrong with it
    catch_all = "            # Everything else, untouched"
    routes = "".join(
        f"            - match: {{ path: {json.dumps(path)} }}\n"
        f"              {other_paths}\n"
        "              typed_per_filter_config: *enabled\n"
        for path in paths
    )
    return rendered.replace(catch_all, routes + catch_all, 1)


def _upstream(name: str, upstream: str | None) -> tuple[str, list[Any]]:
    """Type and endpoints of a cluster."""
    if not upstream:
        return "STATIC", []
    host, port = split_host_port(name, upstream)
    address = {"socket_address": {"address": host, "port_value": port}}
    kind = "STATIC" if _is_ip(host) else "STRICT_DNS"
    return kind, [{"lb_endpoints": [{"endpoint": {"address": address}}]}]


def _with_timeout(config: dict[str, Any], timeout: str | None) -> dict[str, Any]:
    """The document with a timeout of callouts, unless it has one or there is none."""
    redis = config.get("redis", {})
    default = {"timeout": timeout} | redis.get("default", {})
    return config | {"redis": redis | {"default": default}} if timeout else config


def built_in_config(settings: Settings) -> dict[str, Any]:
    """The built-in plugin configuration, with the surfaces whose sources the publisher follows."""
    config: dict[str, Any] = json.loads(LOCAL_CONFIG.read_text())
    for surface, source, upstream in (
        ("flagsmith", settings.flagsmith_config, settings.flagsmith_upstream),
        ("ofrep", settings.flagd_uri, settings.ofrep_upstream),
    ):
        if source:
            config[surface] = {"enabled": True} | ({"upstream": "forward"} if upstream else {})
    return config


def _with_health_role(config: str) -> str:
    """The same document for the health listener. What is no JSON object stays: the filter says why."""
    try:
        return json.dumps(json.loads(config) | {"role": "health"})
    except (ValueError, TypeError):
        return config


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _fill(template: str, settings: Settings, **values: object) -> str:
    ports = {name.upper(): getattr(settings, name) for name in settings.PORTS}
    text = (ROOT / template).read_text()
    return string.Template(text).substitute(ports, RUN_DIR=settings.run_dir, **values)
