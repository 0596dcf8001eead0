"""What else evaluates flagd's definitions: its engine in Go, and its providers' in JavaScript and Python."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

from models.ofrep.differences import ERROR, NULL
from stack.lines import LineProgram, answering
from stack.paths import INTEGRATION, ROOT
from stack.ports import free_port

Json = Any
FLAGD = ROOT / "target/peers/flagd/flagd"


class Outcome(NamedTuple):
    """What a flag is for somebody. Without a value the client's own default holds."""

    reason: str | None
    variant: str | None = None
    value: Json = None
    error: str | None = None
    metadata: Json = None


def outcome_of(entry: dict[str, Json]) -> Outcome:
    """The same of a flag in an answer."""
    error = entry.get("errorCode")
    variant = entry.get("variant", "" if "value" in entry else None)  # an empty name is left out
    reason = "ERROR" if error else entry["reason"]
    return Outcome(reason, variant, entry.get("value"), error, entry["metadata"])


def given(outcome: Outcome) -> str | None:
    """What a flag's rule gives, by the name of the variant."""
    if outcome.error:
        return ERROR
    return outcome.variant if outcome.reason == "TARGETING_MATCH" else NULL


# === Python ===


class PythonEngine:
    """openfeature-flagd-core, in this process."""

    def __init__(self) -> None:
        # It logs each rule that says nothing.
        logging.getLogger("openfeature.contrib").setLevel(logging.CRITICAL + 1)
        self.core = FlagdCore()
        self.document: Json = {}

    def read(self, document: Json) -> None:
        self.document = document
        self.core.set_flags(copy.deepcopy(document))

    def outcomes(self, asked: Iterable[tuple[str, Json]]) -> list[Outcome]:
        return [self.outcome(key, context) for key, context in asked]

    def outcome(self, key: str, context: dict[str, Json]) -> Outcome:
        # A type has to be asked for: that of the variants, which all have the same.
        value = next(iter(self.document["flags"][key]["variants"].values()))
        kinds = {bool: "boolean", str: "string", int: "float", float: "float", dict: "object", list: "object"}
        ask = getattr(self.core, f"resolve_{kinds[type(value)]}_value")
        attributes = dict(context)
        targeting_key = attributes.pop("targetingKey", None)
        try:
            found = ask(key, None, EvaluationContext(targeting_key, attributes))
        except OpenFeatureError as error:
            return Outcome("ERROR", error=error.error_code.value)
        except Exception as error:  # what a client is told is GENERAL
            return Outcome("ERROR", error=f"GENERAL {type(error).__name__}")
        return Outcome(found.reason, found.variant, found.value, None, dict(found.flag_metadata))


# === JavaScript ===


class NodeEngine:
    """@openfeature/flagd-core."""

    def __init__(self, program: LineProgram) -> None:
        self.program = program

    def read(self, document: Json) -> None:
        assert self.program.line({"document": document}) == {}

    def outcomes(self, asked: Iterable[tuple[str, Json]]) -> list[Outcome]:
        questions = [{"key": key, "context": context} for key, context in asked]
        return [Outcome(**outcome) for outcome in self.program.line({"ask": questions})["outcomes"]]


@contextmanager
def node() -> Iterator[NodeEngine]:
    with answering(["node", str(INTEGRATION / "node/flagd-core.mjs")]) as program:
        yield NodeEngine(program)


# === Go ===


class Asked(NamedTuple):
    """A request of OFREP: of all flags, or of the one with this key."""

    context: Json
    selector: str = ""
    key: str | None = None


class FlagdEngine:
    """flagd's own engine, with answers as flagd gives them."""

    def __init__(self, program: LineProgram) -> None:
        self.program = program

    def read(self, documents: list[dict[str, Json]]) -> dict[str, str]:
        """From now on these are evaluated; why some are refused."""
        return self.program.line({"documents": documents})["refused"]

    def answers(self, asked: Iterable[Asked]) -> list[tuple[int, Json]]:
        questions = [one._asdict() for one in asked]
        given = self.program.line({"ask": questions})["answers"]
        return [(answer["status"], answer["body"]) for answer in given]


@contextmanager
def flagd() -> Iterator[FlagdEngine]:
    with answering([str(FLAGD), "lines"]) as program:
        yield FlagdEngine(program)


@contextmanager
def serving(folder: Path, documents: list[dict[str, Json]]) -> Iterator[int]:
    """The same behind HTTP, following these documents in files, which are its sources: the port."""
    for one in documents:
        (folder / one["source"]).write_text(json.dumps(one["document"]))
    port = free_port()
    files = [part for one in documents for part in ("--file", one["source"])]
    command = [str(FLAGD), "serve", "--port", str(port), *files]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout and process.stdout.readline() == b"ready\n"
            yield port
        finally:
            process.terminate()
    assert process.returncode == 0


# === Comparison ===


def doubles(value: Json) -> Json:
    """The same with all numbers as IEEE doubles, as JSON's are."""
    return json.loads(json.dumps(value), parse_int=float)
