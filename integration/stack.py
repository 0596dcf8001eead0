"""The local stack as a program, behind `make run`, `make up` and `make down`: a command line for stack/."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from stack.launcher import Stack
from stack.paths import SAMPLE_FLAGS, SAMPLE_FLAGSMITH_CONFIG, SAMPLE_SNAPSHOT
from stack.processes import StackError, end_on_signals
from stack.running import definitions_key
from stack.settings import Settings


def describe(stack: Stack) -> str:
    lines = [
        f"edge    {stack.edge_url}/flags/definitions",
        f"health  {stack.health_url}/ready  {stack.health_url}/health",
        f"admin   {stack.admin_url}/stats/prometheus",
        f"redis   127.0.0.1:{stack.settings.redis_port}",
        f"webdis  127.0.0.1:{stack.settings.webdis_port}",
        f"logs    {stack.settings.run_dir}",
    ]
    if stack.settings.snapshot == SAMPLE_SNAPSHOT:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        url = f"{stack.edge_url}/flags/definitions?token=phc_sample_team_one"
        curl = f"curl -i '{url}' -H 'Authorization: Bearer"
        lines += [
            "",
            "# 200: the definitions",
            f"{curl} phs_sample_team_one_secret'",
            "# 304: they have not changed",
            f"{curl} phs_sample_team_one_secret' -H 'If-None-Match: W/\"{etag}\"'",
            "# 401: a wrong secret",
            f"{curl} phs_wrong'",
        ]
    if stack.settings.flagsmith_config:
        lines += flagsmith_examples(stack)
    if stack.settings.flagd_uri:
        lines += ofrep_examples(stack)
    return "\n".join(lines)


def flagsmith_examples(stack: Stack) -> list[str]:
    """What to ask Flagsmith's routes. Keys are secrets: only the sample's are shown."""
    key, status = "<client_side_key>", "200"
    if stack.settings.flagsmith_config == SAMPLE_FLAGSMITH_CONFIG:
        (pair,) = json.loads(SAMPLE_FLAGSMITH_CONFIG.read_text())["environment_key_pairs"]
        key, status = pair["client_side_key"], "503, as Flagsmith refuses the sample's keys"
    asked = f"-H 'X-Environment-Key: {key}'"
    identity = '{"identifier":"user-1","traits":[{"trait_key":"plan","trait_value":"pro"}]}'
    return [
        "",
        f"# {status}: Flagsmith's flags of an environment",
        f"curl -i '{stack.edge_url}/api/v1/flags/' {asked}",
        f"# {status}: and of an identity",
        f"curl -i '{stack.edge_url}/api/v1/identities/' {asked} --json '{identity}'",
        "# whether all environments were read",
        f"curl -i '{stack.health_url}/proxy/health/readiness'",
    ]


def ofrep_examples(stack: Stack) -> list[str]:
    """What to ask OFREP's routes. A URI may hold a password, so none is shown."""
    url = f"{stack.edge_url}/ofrep/v1/evaluate/flags"
    context = json.dumps({"context": {"targetingKey": "user-1", "email": "ann@example.com"}})
    key = "<key>"
    if stack.settings.flagd_uri == f"file:{SAMPLE_FLAGS}":
        key = next(iter(json.loads(SAMPLE_FLAGS.read_text())["flags"]))
    return [
        "",
        "# 200: all flags, evaluated by OFREP; with its ETag as If-None-Match 304",
        f"curl -i '{url}' --json '{context}'",
        "# 200: one flag",
        f"curl -i '{url}/{key}' --json '{context}'",
    ]


def run(settings: Settings) -> None:
    """Foreground: until Ctrl-C, SIGTERM or the end of one of the processes."""

    end_on_signals()
    stack = Stack(settings)
    try:
        with stack:
            print(describe(stack), "", "Ctrl-C stops it all.", sep="\n", flush=True)
            while ended := [name for name, process in stack.processes.items() if process.alive()]:
                if len(ended) < len(stack.processes):
                    gone = ", ".join(stack.processes.keys() - set(ended))
                    raise StackError(f"{gone} ended; the logs are in {settings.run_dir}")
                time.sleep(0.5)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)


def up(settings: Settings) -> None:
    end_on_signals()  # so that a half-started stack is stopped
    stack = Stack(settings)
    stack.start()
    print(describe(stack))


def down(settings: Settings) -> None:
    stack = Stack.running(settings)
    if not stack.processes:
        print(f"nothing is running for EDGE_PORT={settings.edge_port}")
    stack.stop()


def status(settings: Settings) -> None:
    stack = Stack.running(settings)
    for process in stack.processes.values():
        print(f"{process.name:12} pid {process.pid}")
    print("ready" if stack.ready() else "not ready")
    sys.exit(0 if stack.ready() else 1)


def main() -> None:
    commands = {"run": run, "up": up, "down": down, "status": status}
    parser = argparse.ArgumentParser(
        description="The local stack: Redis, webdis and Envoy with the filter, on loopback.",
        epilog="Settings come from the environment: EDGE_PORT ADMIN_PORT HEALTH_PORT REDIS_PORT "
        "WEBDIS_PORT SNAPSHOT CONFIG UPSTREAM FLAGSMITH_CONFIG FLAGSMITH_UPSTREAM FLAGD_URI OFREP_UPSTREAM "
        "CONCURRENCY WATCH DATABASE_URL.",
    )
    parser.add_argument("command", choices=commands)
    command = parser.parse_args().command
    try:
        commands[command](Settings.from_environment(dict(os.environ)))
    except StackError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
