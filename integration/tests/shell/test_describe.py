"""What `make run` tells of the stack that it started."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from stack.launcher import Stack
from stack.paths import INTEGRATION, SAMPLE_FLAGS, SAMPLE_FLAGSMITH_CONFIG
from stack.settings import Settings, from_here


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


def test_flags_of_ofrep_are_asked_for_by_post_and_no_uri_is_shown(program: ModuleType) -> None:
    assert "/ofrep/" not in described(program, None)

    def text(uris: str) -> str:
        return program.describe(Stack(Settings.on_free_ports(snapshot=None, flagd_uri=uris)))

    sample = text(f"file:{SAMPLE_FLAGS}")
    assert "/ofrep/v1/evaluate/flags/new-checkout' --json '{" in sample
    other = text("https://u:hunter2@h/flags.json?key=hunter2")
    assert "/ofrep/v1/evaluate/flags/<key>'" in other and "hunter2" not in other


def test_a_file_is_found_whatever_folder_the_publisher_is_in() -> None:
    here = Path.cwd()
    assert (
        from_here("file:a/b.json  file:/c http://h/file:d")
        == f"file:{here}/a/b.json  file:/c http://h/file:d"
    )
    settings = Settings.from_environment({"FLAGD_URI": " file:a ", "OFREP_UPSTREAM": "h:8016"})
    assert (settings.flagd_uri, settings.ofrep_upstream) == (f"file:{here}/a", "h:8016")
    assert settings.follows and not Settings.from_environment({"FLAGD_URI": ""}).follows
