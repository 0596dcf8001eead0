"""Stacks whose publishers follow a stand-in for Flagsmith."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.flagsmith.followed import Followed, following


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    """A stack of the test's own."""
    with following(tmp_path) as followed:
        yield followed


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """A stack that tests share which leave all as it is."""
    with following(tmp_path_factory.mktemp("flagsmith")) as followed:
        yield followed
