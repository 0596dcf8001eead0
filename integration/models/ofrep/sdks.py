"""OpenFeature's real OFREP providers, with one face: flags by key, and what each of them made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from stack.lines import LineProgram
from stack.paths import INTEGRATION

POLL = 200  # milliseconds between two polls of a browser


class Flag(NamedTuple):
    """What a caller is given."""

    value: Any
    reason: str | None
    variant: str | None
    error: str | None


class Client(Protocol):
    """A provider, as whoever uses it sees it."""

    def flag(self, key: str, default: Any, context: dict[str, Any] | None = None) -> Flag: ...

    def flags(self, defaults: dict[str, Any], context: dict[str, Any] | None = None) -> dict[str, Flag]: ...


class ProgramSdk(LineProgram):
    """A provider in a program of its own."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(command)
        self.seen: list[str] = []  # requests and events since they were looked at

    def context(self, **context: Any) -> None:
        """From now on it is asked for this context. The first one starts the provider."""
        self.line({"context": context})

    def flag(self, key: str, default: Any, context: dict[str, Any] | None = None) -> Flag:
        return flag_of(self.line({"key": key, "default": default, "context": context or {}})["flag"])

    def flags(self, defaults: dict[str, Any], context: dict[str, Any] | None = None) -> dict[str, Flag]:
        flags = self.line({"keys": defaults, "context": context or {}})["flags"]
        return {key: flag_of(flag) for key, flag in flags.items()}

    def wait(self, milliseconds: int) -> list[str]:
        """What was seen until then, since it was looked at last."""
        self.line({"wait": milliseconds})
        seen, self.seen = self.seen, []
        return seen

    def line(self, question: dict[str, Any]) -> dict[str, Any]:
        line = super().line(question)
        self.seen += line["seen"]
        return line


def node(mode: Literal["web", "server"], url: str, headers: dict[str, str], poll: int) -> ProgramSdk:
    """One of the JavaScript providers."""
    program = INTEGRATION / "node/ofrep.mjs"
    return ProgramSdk(["node", str(program), mode, url, json.dumps(headers), str(poll)])


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
def web(url: str, headers: dict[str, str] | None = None, poll: int = POLL) -> Iterator[ProgramSdk]:
    """The provider of browsers, which polls so often."""
    yield from stopped(node("web", url, headers or {}, poll))


@contextmanager
def server(name: str, url: str, headers: dict[str, str] | None = None) -> Iterator[ProgramSdk | PythonSdk]:
    """A provider of servers, which asks for each flag: `node` or `python`."""
    if name == "python":
        yield from stopped(PythonSdk(url, headers or {}))
        return
    program = node("server", url, headers or {}, 0)
    program.context()
    yield from stopped(program)


def stopped(running: Any) -> Iterator[Any]:
    try:
        yield running
    finally:
        running.stop()
