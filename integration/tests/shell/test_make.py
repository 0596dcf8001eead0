"""The targets that people and CI call."""

from __future__ import annotations

import re
import subprocess

from stack.paths import ROOT

# What others outside of this repository rely on.
RELIED_ON = {"setup", "build", "run", "up", "down", "test", "lint", "bench", "fuzz", "clean", "compare-peers"}
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]


def test_help_lists_what_others_rely_on_and_each_of_it_can_be_made() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    listed = set(re.findall(r"^  ([a-z-]+)  +\S", shown, re.MULTILINE))
    assert listed >= RELIED_ON
    assert listed <= targets()


def test_continuous_integration_and_the_documents_call_targets_that_are_there() -> None:
    called = set(re.findall(r"^make (.+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert {word for line in called for word in line.split()} >= {"lint", "test", "compare-peers"}
    for page in [".ci/run", *PAGES]:
        lines = re.findall(r"(?:`|^ *)make ((?:[a-z-]+ ?)+)", (ROOT / page).read_text(), re.MULTILINE)
        unknown = {word for line in lines for word in line.split()} - targets()
        assert not unknown, page


def targets() -> set[str]:
    """What the Makefile says it can make."""
    return set(re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
