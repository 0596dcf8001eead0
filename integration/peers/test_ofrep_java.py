"""OpenFeature's OFREP provider for the JVM gets its flags from the filter, one by one.

Each of its requests offers HTTP/2 (`Upgrade: h2c`), and is answered in HTTP/1.1. `make compare-peers` builds
the program that has the provider.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.ofrep.asked import (
    DEFAULTS,
    LET_IN,
    PERSON,
    SHUT_OUT,
    answered,
    documents,
    has_each_flag,
    locked,
    sees_a_change,
    waits_when_it_is_told,
)
from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.sdks import ProgramSdk, stopped
from stack.paths import ROOT

PROGRAM = ROOT / "target/peers/ofrep-java"


@contextmanager
def java(url: str, headers: dict[str, str] | None = None) -> Iterator[ProgramSdk]:
    classes = f"{PROGRAM}/classes:{PROGRAM}/dependency/*"
    yield from stopped(ProgramSdk(["java", "-cp", classes, "Driver", url, json.dumps(headers or {})]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    """A stack that tests share; one that changes something puts it back."""
    with evaluating(tmp_path_factory.mktemp("ofrep"), documents()) as evaluated:
        yield evaluated


def test_it_has_each_flag_as_it_is_in_the_answer(shared: Evaluated) -> None:
    with java(shared.stack.edge_url) as client:
        has_each_flag(shared, client)


def test_it_has_a_change_with_its_next_question(shared: Evaluated) -> None:
    with java(shared.stack.edge_url) as client:
        sees_a_change(shared, client)


def test_who_has_no_key_gets_no_flags(tmp_path: Path) -> None:
    with locked(tmp_path) as evaluated:
        url = evaluated.stack.edge_url
        for headers in LET_IN:
            with java(url, headers) as client:
                assert client.flag("title", "", PERSON).value == "Hello"
        for headers in SHUT_OUT:
            with java(url, headers) as client:
                assert client.flag("title", "mine", PERSON)[::3] == ("mine", "GENERAL")


def test_who_asks_too_often_waits(tmp_path: Path) -> None:
    with (
        evaluating(tmp_path, documents(), settings={"concurrency": 1}, rate_limit="30/minute") as evaluated,
        java(evaluated.stack.edge_url) as client,
    ):
        assert client.flag("title", "", PERSON).value == "Hello"
        waits_when_it_is_told(evaluated, client)


def test_defaults_hold_in_outages(tmp_path: Path) -> None:
    """It keeps no flags. Nobody is told that a flag is not there or that a key is wrong."""
    with evaluating(tmp_path, documents()) as evaluated, java(evaluated.stack.edge_url) as client:
        stack = evaluated.stack
        before = client.flags(DEFAULTS, PERSON)
        stack.stop_part("publisher")
        time.sleep(1)
        assert client.flags(DEFAULTS, PERSON) == before
        stack.stop_part("webdis")
        stack.wait_until(lambda: client.flag("title", "mine", PERSON)[::3] == ("mine", "GENERAL"))
        assert {key: flag.value for key, flag in client.flags(DEFAULTS, PERSON).items()} == DEFAULTS
        stack.restart("webdis")
        stack.restart("publisher")
        stack.wait_until(lambda: client.flags(DEFAULTS, PERSON) == before, 40)
        assert [answered(evaluated, status) for status in (401, 403, 404)] == [0, 0, 0]
