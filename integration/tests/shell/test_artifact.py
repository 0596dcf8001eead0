"""What is shipped, and what the README says of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from stack.paths import POSTHOG_WASM, ROOT, WASM

LARGEST_WASM = 1_800_000  # bytes, with all surfaces
LARGEST_OF_POSTHOG = 1_000_000  # with PostHog's alone


def test_the_filter_is_small() -> None:
    size = WASM.stat().st_size
    print(f"{size} bytes")
    assert size <= LARGEST_WASM


def test_the_filter_of_one_surface_is_smaller_and_knows_no_other() -> None:
    wasm = POSTHOG_WASM.read_bytes()
    print(f"{len(wasm)} bytes")
    assert len(wasm) <= LARGEST_OF_POSTHOG
    whole = WASM.read_bytes()
    for word in (b"Environment not loaded", b"INVALID_CONTEXT"):
        assert word in whole and word not in wasm


def test_envoy_enters_the_vm_for_nothing_that_the_filter_does_not_do() -> None:
    exported = set(re.findall(rb"proxy_on_\w+", WASM.read_bytes()))
    assert exported == {
        b"proxy_on_vm_start",
        b"proxy_on_configure",
        b"proxy_on_tick",
        b"proxy_on_context_create",
        b"proxy_on_memory_allocate",
        b"proxy_on_request_headers",
        b"proxy_on_request_body",
        b"proxy_on_request_trailers",
        b"proxy_on_http_call_response",
        b"proxy_on_response_headers",
        b"proxy_on_delete",
    }


def test_the_filter_carries_no_test_fault() -> None:
    assert b"x-flag-definitions-trap" not in WASM.read_bytes()


def test_the_filter_names_no_place_of_the_machine_that_built_it() -> None:
    wasm = WASM.read_bytes()
    for place in (ROOT, Path.home(), Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")):
        assert os.fsencode(f"{place}/") not in wasm, f"{place}: build it with make"


def test_its_digest_lies_beside_it() -> None:
    digest, name = WASM.with_name(WASM.name + ".sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(WASM.read_bytes()).hexdigest(), WASM.name)


def test_the_figures_of_the_readme_are_those_of_the_benchmark() -> None:
    ratio = json.loads((ROOT / "bench/results.json").read_text())["ratios"]["304_of_bare"]
    readme = (ROOT / "README.md").read_text()
    stated = re.search(r"confirmed 304 reaches ([\d.]+) of the rate", readme)
    assert stated and float(stated[1]) == round(ratio, 2)
