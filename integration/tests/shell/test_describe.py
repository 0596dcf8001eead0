"""What `make run` tells of the stack that it started."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from stack.launcher import Stack
from stack.paths import INTEGRATION, SAMPLE_FLAGSMITH_CONFIG
from stack.settings import Settings


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """stack.py, which the package beside it hides from imports."""
    spec = importlib.util.spec_from_file_location("stack_program", INTEGRATION / "stack.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def described(program: ModuleType, config: Path | None) -> str:
    return program.describe(Stack(Settings.on_free_ports(snapshot=None, flagsmith_config=config)))


def test_without_a_flagsmith_nothing_is_said_of_it(program: ModuleType) -> None:
    assert "/api/v1/" not in described(program, None)


def test_keys_of_a_user_s_file_are_not_shown(program: ModuleType, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    pair = {"server_side_key": "ser.secret-one", "client_side_key": "secret-two"}
    config.write_text(json.dumps({"environment_key_pairs": [pair], "proxy_key": "secret-three"}))
    text = described(program, config)
    assert "X-Environment-Key: <client_side_key>" in text
    assert "secret" not in text and "# 200: and of an identity" in text


def test_the_sample_s_client_side_key_is_shown_and_no_server_side_key(program: ModuleType) -> None:
    text = described(program, SAMPLE_FLAGSMITH_CONFIG)
    (pair,) = json.loads(SAMPLE_FLAGSMITH_CONFIG.read_text())["environment_key_pairs"]
    assert text.count(pair["client_side_key"]) == 2 and pair["server_side_key"] not in text
    assert "# 503" in text, "the keys are made up"
    for path in ("/api/v1/flags/", "/api/v1/identities/", "/proxy/health/readiness"):
        assert path in text
