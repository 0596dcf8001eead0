"""OpenFeature's real OFREP providers, with one face: flags by key, and what each of them made of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from stack.paths import INTEGRATION
from stack.processes import StackError
from stack.programs import tool

POLL = 200  # milliseconds between two polls of a browser


class Flag(NamedTuple):
    """What a caller is given."""

    value: Any
    reason: str | None
    variant: str | None
    error: str | None


class NodeSdk:
    """One of the JavaScript providers, in a program of its own."""

    def __init__(self, mode: Literal["web", "server"], url: str, headers: dict[str, str], poll: int) -> None:
        program = INTEGRATION / "node/ofrep.mjs"
        command = [tool("node"), str(program), mode, url, json.dumps(headers), str(poll)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seen: list[str] = []  # requests and events since they were looked at

    def context(self, **context: Any) -> None:
        """From now on it is asked for this context. The first one starts the provider."""
        self._ask({"context": context})

    def flag(self, key: str, default: Any, context: dict[str, Any] | None = None) -> Flag:
        return flag_of(self._ask({"key": key, "default": default, "context": context or {}})["flag"])

    def flags(self, defaults: dict[str, Any], context: dict[str, Any] | None = None) -> dict[str, Flag]:
        flags = self._ask({"keys": defaults, "context": context or {}})["flags"]
        return {key: flag_of(flag) for key, flag in flags.items()}

    def wait(self, milliseconds: int) -> list[str]:
        """What was seen until then, since it was looked at last."""
        self._ask({"wait": milliseconds})
        seen, self.seen = self.seen, []
        return seen

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"error": "the program ended"}')
        if "error" in line:
            raise StackError(f"ofrep.mjs: {line['error']}")
        self.seen += line["seen"]
        return line

    def stop(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def flag_of(answer: dict[str, Any]) -> Flag:
    return Flag(answer["value"], answer.get("reason"), answer.get("variant"), answer.get("error"))


class PythonSdk:
    """openfeature-provider-ofrep, in this process."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.provider = OFREPProvider(url, headers_factory=lambda: headers)

    def flag(self, key: str, default: Any, context: dict[str, Any] | None = None) -> Flag:
        kinds = {
            bool: "boolean",
            str: "string",
            int: "integer",
            float: "float",
            dict: "object",
            list: "object",
        }
        ask = getattr(self.provider, f"resolve_{kinds[type(default)]}_details")
        attributes = dict(context or {})
        targeting_key = attributes.pop("targetingKey", None)
        try:
            details = ask(key, default, EvaluationContext(targeting_key, attributes))
        except OpenFeatureError as error:
            return Flag(default, "ERROR", None, error.error_code.value)
        return Flag(details.value, details.reason, details.variant, None)

    def flags(self, defaults: dict[str, Any], context: dict[str, Any] | None = None) -> dict[str, Flag]:
        return {key: self.flag(key, default, context) for key, default in defaults.items()}

    def stop(self) -> None:
        self.provider.session.close()


@contextmanager
def web(url: str, headers: dict[str, str] | None = None, poll: int = POLL) -> Iterator[NodeSdk]:
    """The provider of browsers, which polls so often."""
    yield from stopped(NodeSdk("web", url, headers or {}, poll))


@contextmanager
def server(name: str, url: str, headers: dict[str, str] | None = None) -> Iterator[NodeSdk | PythonSdk]:
    """A provider of servers, which asks for each flag: `node` or `python`."""
    if name == "python":
        yield from stopped(PythonSdk(url, headers or {}))
        return
    node = NodeSdk("server", url, headers or {}, 0)
    node.context()
    yield from stopped(node)


def stopped(running: Any) -> Iterator[Any]:
    try:
        yield running
    finally:
        running.stop()
