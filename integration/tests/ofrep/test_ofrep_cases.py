"""All that flagd answered and all that was decided, through real Envoy, with the real publisher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.ofrep.evaluated import Evaluated, configured, evaluating
from models.ofrep.recorded import CASES, DOCUMENTS, Played, body_of, renamed, section
from stack.asking import Answer, ask
from stack.second_envoy import another_envoy

REPLICAS = "etag.replicas"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    """A stack with the documents of the recording. Tests that change one put it back."""
    with evaluating(tmp_path_factory.mktemp("ofrep")) as evaluated:
        yield evaluated


def send(port: int, request: dict[str, Any]) -> Answer:
    return ask(port, request["method"], request["path"], request["headers"], body_of(request))


def differences(evaluated: Evaluated, case: dict[str, Any], other: int = 0) -> list[str]:
    """In what the answers of a case differ. `other`: the port of instance B."""
    ports = {"A": evaluated.stack.settings.edge_port, "B": other}
    sources = [document["source"] for document in case.get("documents", DOCUMENTS)]
    names = {source: evaluated.name(source) for source in sources}
    played = Played(lambda request, instance: send(ports[instance], request), evaluated.replace)
    found = played.differences(renamed(case, names) | {"steps": steps(case, names)})
    if any("replace_documents" in step for step in case["steps"]):
        evaluated.replace(DOCUMENTS)
    return found


def steps(case: dict[str, Any], names: dict[str, str]) -> list[dict[str, Any]]:
    """With the names that sources have here, but not in the documents."""
    return [
        renamed({name: step[name] for name in ("request", "expect")}, names)
        | {name: step[name] for name in ("instance", "replace_documents") if name in step}
        for step in case["steps"]
    ]


def test_there_are_as_many_cases_as_were_recorded() -> None:
    assert len(CASES) == 107 and len({case["id"] for case in CASES}) == 107


CONFIGURED = sorted({str(sorted(case.get("config", {}).items())) for case in CASES})


@pytest.mark.parametrize("place", range(len(CONFIGURED)))
def test_cases_of_the_recorded_documents(recorded: Evaluated, place: int) -> None:
    cases = [
        case
        for case in CASES
        if str(sorted(case.get("config", {}).items())) == CONFIGURED[place]
        and "documents" not in case
        and case["id"] != REPLICAS
    ]
    own = section(cases[0].get("config", {}))
    assert recorded.stack.change_config(configured(recorded.stack.settings, **own))
    assert {case["id"]: found for case in cases if (found := differences(recorded, case))} == {}


@pytest.mark.parametrize("case", [case for case in CASES if "documents" in case], ids=lambda case: case["id"])
def test_cases_with_documents_of_their_own(tmp_path: Path, case: dict[str, Any]) -> None:
    with evaluating(tmp_path, case["documents"]) as evaluated:
        assert differences(evaluated, case) == []


def test_another_envoy_has_the_same_tag_whatever_came_before(recorded: Evaluated) -> None:
    assert recorded.stack.change_config(configured(recorded.stack.settings))
    (case,) = [case for case in CASES if case["id"] == REPLICAS]
    changed = [document for document in DOCUMENTS if document["source"] == "plain.json"]
    with another_envoy(recorded.stack) as other:
        recorded.replace([{"source": "plain.json", "document": {"flags": {}}}])
        recorded.replace(changed)
        assert differences(recorded, case, other.settings.edge_port) == []
