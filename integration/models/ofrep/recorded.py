"""What flagd answered and what was decided: the cases in tests/ofrep, and comparisons of answers with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stack.asking import Answer
from stack.paths import ROOT

FOLDER = ROOT / "tests/ofrep"
CASES: list[dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text())["cases"]
# In the order in which they are read: a later one wins.
DOCUMENTS: list[dict[str, Any]] = json.loads((FOLDER / "flags.json").read_text())["documents"]

FLAGS = "/ofrep/v1/evaluate/flags"


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same with the names of sources that they have here. Cases call them by short ones."""
    if isinstance(value, dict):
        return {key: renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner, names) for inner in value]
    if isinstance(value, str):
        prefix, name = ("source=", value[7:]) if value.startswith("source=") else ("", value)
        return prefix + names.get(name, name)
    return value


def section(config: dict[str, Any]) -> dict[str, Any]:
    """The section `ofrep` of the plugin configuration that a case wants."""
    known = {"context_values", "context_from_header", "cors_origins", "fractional"}
    assert config.keys() <= known
    context = {"static": "context_values", "headers": "context_from_header"}
    found: dict[str, Any] = {name: config[name] for name in ("cors_origins", "fractional") if name in config}
    added = {name: config[theirs] for name, theirs in context.items() if theirs in config}
    return found | ({"context": added} if added else {})


def body_of(request: dict[str, Any]) -> bytes:
    """What is sent."""
    if size := request.get("body_size"):
        frame = b'{"context":{"filler":"%b"}}'
        return frame % (b"a" * (size - len(frame % b"")))
    match request.get("body"):
        case None:
            return b""
        case str(text):
            return text.encode()
        case body:
            return json.dumps(body).encode()


def opaque(etag: str) -> str:
    return etag.removeprefix("W/")


@dataclass
class Played:
    """A case that is being asked, step by step."""

    send: Callable[[dict[str, Any], str], Answer]  # a request, and the instance that it is for
    replace: Callable[[list[dict[str, Any]]], None]  # what sources say from now on

    def differences(self, case: dict[str, Any]) -> list[str]:
        """In what the answers differ from those that are wanted."""
        answers: list[Answer] = []
        found: list[str] = []
        for number, step in enumerate(case["steps"]):
            if "replace_documents" in step:
                self.replace(step["replace_documents"])
            request = step["request"]
            headers = {name: with_tags(value, answers) for name, value in request.get("headers", {}).items()}
            answer = self.send(request | {"headers": headers}, step.get("instance", "A"))
            answers.append(answer)
            found += [f"step {number}: {what}" for what in wrong(answer, step["expect"], answers)]
        return found


def with_tags(value: str, answers: list[Answer]) -> str:
    """A header's value with the tags that it stands for."""

    def tag(match: re.Match[str]) -> str:
        etag = answers[int(match[2])].headers["etag"]
        return {"": etag, "-opaque": opaque(etag), "-unquoted": opaque(etag).strip('"')}[match[1]]

    return re.sub(r"\$etag(-opaque|-unquoted|):(\d+)", tag, value)


def wrong(answer: Answer, expected: dict[str, Any], answers: list[Answer]) -> list[str]:
    """In what an answer differs from the one that is wanted."""
    known = {"status", "headers", "headers_contain", "body", "body_subset", "body_empty", "etag", "note"}
    assert expected.keys() <= known
    found = [] if answer.status == expected["status"] else [f"status {answer.status}"]
    for name, value in expected.get("headers", {}).items():
        if answer.headers.get(name) != value:
            found.append(f"{name}: {answer.headers.get(name)}")
    for name, value in expected.get("headers_contain", {}).items():
        if value not in answer.headers.get(name, ""):
            found.append(f"{name}: {answer.headers.get(name)}")
    etag = answer.headers.get("etag")
    if wanted := expected.get("etag"):
        kind, _, of = wanted.partition(":")
        other = opaque(answers[int(of)].headers["etag"]) if of else None
        is_tag = etag is not None and re.fullmatch(r'(W/)?"[!#-~]+"', etag) is not None
        is_same = is_tag and opaque(etag or "") == other
        fits = {"absent": etag is None, "present": is_tag, "same": is_same, "differs": is_tag and not is_same}
        if not fits[kind]:
            found.append(f"etag: {etag}")
    if expected.get("body_empty") and (answer.body or "content-type" in answer.headers):
        found.append(f"a body of {len(answer.body)} bytes")
    if not {"body", "body_subset"} & expected.keys():
        return found
    try:
        body = answer.json
    except ValueError:
        return [*found, f"no JSON: {answer.body[:300]!r}"]
    if "body" in expected and not same(body, expected["body"]):
        found.append(f"body {json.dumps(body)}")
    for name, value in expected.get("body_subset", {}).items():
        if name not in body or not same(body[name], value):
            found.append(f"body {json.dumps(body)}")
    return found


def same(found: Any, expected: Any) -> bool:
    """Equal as JSON: numbers by value, and none of them is a boolean."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in found)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return isinstance(found, bool) == isinstance(expected, bool) and found == expected
