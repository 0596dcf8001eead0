"""Flagsmith's real SDKs, with one face: the flags that they give, and the status that they did not take."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, TypeVar

import flagsmith
import requests
from flagsmith.exceptions import FlagsmithAPIError

from stack.lines import LineProgram
from stack.paths import INTEGRATION

REFRESH = 0.2  # seconds between two polls of an SDK that evaluates locally

Started = TypeVar("Started", bound="PythonSdk | ProgramSdk")
# A flag's state by its name: whether it is on, and its value.
States = dict[str, tuple[bool, Any]]


class Refused(Exception):
    """An SDK got no flags: the status of the answer that it did not take."""

    def __init__(self, status: int) -> None:
        super().__init__(f"refused with {status}")
        self.status = status


class Sdk(Protocol):
    def flags(self) -> States:
        """The flags without an identity."""
        ...

    def identity(self, identifier: str, traits: dict[str, Any], transient: bool = False) -> States:
        """The flags of an identity."""
        ...

    def identities(self, asked: Iterable[tuple[str, dict[str, Any]]]) -> list[States]:
        """The flags of many, in the order in which they are asked for."""
        ...


def states_of(answer: list[dict[str, Any]]) -> States:
    """The same of what the filter answers."""
    return {flag["feature"]["name"]: (flag["enabled"], flag["feature_state_value"]) for flag in answer}


def alike(name: str, states: States) -> States:
    """States as this SDK can tell them apart: Node has one kind of numbers, the filter has two."""

    def value(given: Any) -> Any:
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        return float(given) if name == "node" and is_number else given

    return {flag: (enabled, value(given)) for flag, (enabled, given) in states.items()}


# === Python ===


class PythonSdk:
    """flagsmith, in this process."""

    def __init__(self, url: str, key: str, local: bool) -> None:
        # What it logs of a failure is a traceback; the tests look at what comes of it.
        logging.getLogger("flagsmith").setLevel(logging.CRITICAL)
        self.client = flagsmith.Flagsmith(
            environment_key=key,
            api_url=url,
            enable_local_evaluation=local,
            environment_refresh_interval_seconds=REFRESH,
            application_metadata={"name": "integration", "version": "1"},
        )

    def flags(self) -> States:
        return self._states(lambda: self.client.get_environment_flags())

    def identity(self, identifier: str, traits: dict[str, Any], transient: bool = False) -> States:
        return self._states(
            lambda: self.client.get_identity_flags(identifier, dict(traits), transient=transient)
        )

    def identities(self, asked: Iterable[tuple[str, dict[str, Any]]]) -> list[States]:
        return [self.identity(identifier, traits) for identifier, traits in asked]

    def _states(self, ask: Any) -> States:
        try:
            flags = ask().all_flags()
        except FlagsmithAPIError as error:
            cause = error.__cause__
            if isinstance(cause, requests.HTTPError) and cause.response is not None:
                raise Refused(cause.response.status_code) from error
            raise
        return {flag.feature_name: (flag.enabled, flag.value) for flag in flags}

    def stop(self) -> None:
        if thread := getattr(self.client, "environment_data_polling_manager_thread", None):
            thread.stop()
            thread.join(timeout=10)
        self.client.session.close()


# === Programs ===


class ProgramSdk(LineProgram):
    """An SDK in a program of its own."""

    # What starts it, and the seconds between two of its polls.
    command: ClassVar[list[str]]
    refresh: ClassVar[float] = REFRESH

    def __init__(self, url: str, key: str, local: bool) -> None:
        super().__init__([*self.command, url, key, "local" if local else "remote", str(self.refresh)])

    def flags(self) -> States:
        return self._ask([{}])[0]

    def identity(self, identifier: str, traits: dict[str, Any], transient: bool = False) -> States:
        return self._ask([{"identifier": identifier, "traits": traits, "transient": transient}])[0]

    def identities(self, asked: Iterable[tuple[str, dict[str, Any]]]) -> list[States]:
        return self._ask([{"identifier": identifier, "traits": traits} for identifier, traits in asked])

    def _ask(self, questions: list[dict[str, Any]]) -> list[States]:
        # One at a time: neither pipe fills up while the other one is not read.
        answers = [self.line(question)["flags"] for question in questions]
        return [{name: (on, value) for name, (on, value) in flags.items()} for flags in answers]

    def line(self, question: dict[str, Any]) -> dict[str, Any]:
        line = super().line(question)
        if "status" in line:
            raise Refused(line["status"])
        return line


class NodeSdk(ProgramSdk):
    """flagsmith-nodejs."""

    command = ["node", str(INTEGRATION / "node/flagsmith.mjs")]


CLASSES: dict[str, type[PythonSdk | ProgramSdk]] = {"python": PythonSdk, "node": NodeSdk}


@contextmanager
def sdk(name: str, edge_url: str, key: str, local: bool = False) -> Iterator[Sdk]:
    """An SDK that asks the filter at this URL with this key."""
    with started(CLASSES[name], edge_url, key, local) as running:
        yield running


@contextmanager
def started(kind: type[Started], edge_url: str, key: str, local: bool = False) -> Iterator[Started]:
    """The same of an SDK's class."""
    running = kind(f"{edge_url}/api/v1/", key, local)
    try:
        yield running
    finally:
        running.stop()
