"""What the real Edge Proxy answered: the cases in tests/flagsmith, and how an answer is compared with one."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from stack.asking import Answer
from stack.paths import ROOT

FOLDER = ROOT / "tests/flagsmith"
CASES = json.loads((FOLDER / "cases.json").read_text())
DOCUMENT = json.loads((FOLDER / "environment.json").read_text())


def derived(description: dict[str, Any]) -> dict[str, Any]:
    """A document that differs from the recorded one in some places."""
    document = copy.deepcopy(DOCUMENT)
    for change in description["set"]:
        *parents, last = change["pointer"].strip("/").split("/")
        place: Any = document
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[int(last) if isinstance(place, list) else last] = change["value"]
    return document


def document_of(environment: dict[str, Any]) -> dict[str, Any] | None:
    if "document_derived" in environment:
        return derived(environment["document_derived"])
    return DOCUMENT if environment["document"] else None


def same(found: Any, expected: Any) -> bool:
    """Whether two JSON values are the same: 1 and 1.0 are not, lists of flags are sets."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in found)
    if isinstance(found, list) and isinstance(expected, list):
        if found and all(isinstance(item, dict) and "feature" in item for item in found + expected):
            found, expected = (sorted(x, key=lambda flag: flag["feature"]["id"]) for x in (found, expected))
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, str) and expected.startswith("<rfc3339"):
        return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", str(found)) is not None
    return type(found) is type(expected) and found == expected


def words(field: str | None) -> set[str]:
    return {word.strip() for word in (field or "").split(",") if word.strip()}


def differences(answer: Answer, expected: dict[str, Any]) -> list[str]:
    """In what an answer differs from the recorded one, entity tags aside: those are the filter's own."""
    found = [] if answer.status == expected["status"] else [f"status {answer.status}"]
    for name, value in expected["headers"].items():
        held = answer.headers.get(name)
        alike = words(held) == words(value) if name in ("vary", "allow") else held == value
        if not alike:
            found.append(f"{name}: {held}")
    absent = [name for name in expected["absent_headers"] if name not in ("etag", "last-modified")]
    found += [f"{name} is there" for name in absent if name in answer.headers]
    if "body_json" in expected:
        wanted = expected["body_json"]
    elif "body_json_file" in expected:
        wanted = DOCUMENT
    elif "body_json_derived" in expected:
        wanted = derived(expected["body_json_derived"])
    elif "body_text" in expected:
        text = answer.body.decode()
        prefix = expected["body_text"].split(": ")[0]
        return found if text.startswith(prefix) else [*found, f"text {text}"]
    else:
        return found if not answer.body else [*found, f"a body of {len(answer.body)} bytes"]
    try:
        alike = same(answer.json, wanted)
    except ValueError:
        alike = False
    return found if alike else [*found, f"body {answer.body[:300]!r}"]
