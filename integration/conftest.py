"""Fixtures that every integration test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pytest_timeout

import postgres as postgres_server
from stack.edge import trap_count
from stack.launcher import Stack
from stack.paths import FAULTS_WASM
from stack.settings import Settings


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The time limit of a second try: pytest-timeout sets one for all tries, and a failure ends it."""
    if getattr(item, "execution_count", 1) > 1:
        limit = pytest_timeout.get_env_settings(item.config)
        item.config.pluginmanager.hook.pytest_timeout_set_timer(item=item, settings=limit)


@pytest.fixture(scope="module")
def redis_and_webdis() -> Iterator[Stack]:
    """Redis with the project's users and webdis, without Envoy and without data."""
    stack = Stack(Settings.on_free_ports(snapshot=None))
    with stack.all_or_nothing():
        stack.start_redis()
        stack.start_webdis()
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def samples() -> Iterator[Stack]:
    """The stack of `make run`. Tests that change its data put it back."""
    with Stack(Settings.on_free_ports()) as stack:
        yield stack
        assert trap_count(stack) == 0, "the filter trapped"


@pytest.fixture
def faults() -> Iterator[Stack]:
    """A stack with the test build that traps on demand; callouts wait long enough to be watched."""
    config = {"redis": {"default": {"timeout": "20s"}}}
    with Stack(Settings.on_free_ports(wasm=FAULTS_WASM, config=config)) as stack:
        yield stack


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Server]:
    """An empty PostgreSQL."""
    with postgres_server.Server() as server:
        yield server
