"""The filter evaluates definitions as the libraries of flagd's own providers do, but for what is agreed. The
one of JavaScript has the second generation of `fractional`, the one of Python the third.

The seed is fixed, so that a failure can be repeated; FLAG_DEFINITIONS_SEED tries another one.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

from models.ofrep.differences import (
    ABOUT,
    GRID,
    OPERATORS,
    PLACES,
    VALUES,
    VERSIONS,
    grid,
    places,
)
from models.ofrep.engines import NodeEngine, Outcome, PythonEngine, doubles, given, node, outcome_of
from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.random_definitions import plain_context, plain_document, some_text, some_value
from models.ofrep.recorded import same
from stack.paths import INTEGRATION

SEED = int(os.environ.get("FLAG_DEFINITIONS_SEED", "20261130"))
DOCUMENTS, CONTEXTS, BUCKETED = 24, 20, 300
ENGINES = pytest.mark.parametrize("name", ["node", "python"])
BUCKETS = {
    "state": "ENABLED",
    "variants": {f"b{number}": number for number in range(200)},
    "targeting": {"fractional": [{"var": "v"}, *([f"b{number}", 1] for number in range(200))]},
}


class Engines:
    """Filters with all the documents, and what else evaluates them."""

    def __init__(
        self, documents: dict[str, Any], filters: dict[str, Evaluated], others: dict[str, Any]
    ) -> None:
        self.documents, self.filters, self.others = documents, filters, others

    def of_filter(self, name: str, document: str, context: dict[str, Any]) -> dict[str, Outcome]:
        """The flags in the answer of the filter that has this library's generation of `fractional`."""
        answer = self.filters[name].ask(context=context, selector=f"flagSetId={document}")
        assert answer.status == 200
        return {entry["key"]: outcome_of(entry) for entry in answer.json["flags"]}

    def reading(self, name: str, document: str) -> NodeEngine | PythonEngine:
        """The library with this document."""
        engine = self.others[name]
        engine.read(self.documents[document])
        return engine


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    rng = random.Random(SEED)
    documents = {"grid": grid(), "places": places(PLACES), "buckets": {"flags": {"f": BUCKETS}}}
    documents |= {f"random{number}": plain_document(rng) for number in range(DOCUMENTS)}
    for name, document in documents.items():
        document["metadata"] = document.get("metadata", {}) | {"flagSetId": name}
    listed = [{"source": f"{name}.json", "document": document} for name, document in documents.items()]
    with (
        evaluating(tmp_path_factory.mktemp("v2"), listed) as v2,
        evaluating(tmp_path_factory.mktemp("v3"), listed, fractional="v3") as v3,
        node() as javascript,
    ):
        yield Engines(documents, {"node": v2, "python": v3}, {"node": javascript, "python": PythonEngine()})


def test_the_versions_are_those_that_are_installed() -> None:
    """The differences are listed for them."""
    packages = json.loads((INTEGRATION / "node/package.json").read_text())["dependencies"]
    assert VERSIONS["node"] == f"@openfeature/flagd-core {packages['@openfeature/flagd-core']}"
    assert VERSIONS["python"] == f"openfeature-flagd-core {version('openfeature-flagd-core')}"


@ENGINES
def test_each_operator_with_each_kind_of_value(engines: Engines, name: str) -> None:
    theirs_of = engines.reading(name, "grid")
    keys = [f"f{number}" for number in range(len(GRID))]
    unlisted, seen = [], set()
    for value in VALUES:
        context = {"v": value, "targetingKey": "u"}
        ours = engines.of_filter(name, "grid", context)
        theirs = theirs_of.outcomes([(key, context) for key in keys])
        for (operator, operand), key, their in zip(GRID, keys, theirs, strict=True):
            if given(ours[key]) == given(their):
                continue
            rows = [row for row in OPERATORS if row.names(name, operator, operand, value)]
            seen.update(rows)
            if not rows:
                unlisted.append((operator, operand, value, given(ours[key]), given(their)))
    assert unlisted == [], f"{VERSIONS[name]} differs in more than is listed"
    assert [row for row in OPERATORS if row.engine == name and row not in seen] == [], "not seen any more"


@ENGINES
def test_all_else_that_is_agreed(engines: Engines, name: str) -> None:
    ours = engines.of_filter(name, "places", ABOUT)
    theirs_of = engines.reading(name, "places")
    for number, place in enumerate(PLACES):
        [their] = theirs_of.outcomes([(f"f{number}", ABOUT)])
        found = given(ours[f"f{number}"]), given(their)
        assert found == (place.filter, getattr(place, name)), place.reason
        assert {place.node, place.python} != {place.filter}, place.reason


@ENGINES
def test_random_documents(engines: Engines, name: str) -> None:
    rng = random.Random(SEED + 1)
    matched = 0
    for number in range(DOCUMENTS):
        document = f"random{number}"
        theirs_of = engines.reading(name, document)
        for _ in range(CONTEXTS):
            context = plain_context(rng)
            ours = engines.of_filter(name, document, context)
            assert ours.keys() == engines.documents[document]["flags"].keys()
            theirs = theirs_of.outcomes([(key, context) for key in ours])
            for (key, our), their in zip(ours.items(), theirs, strict=True):
                told = (SEED, document, key, context, our, their)
                assert same(doubles(our), doubles(their)), told
                matched += our.reason == "TARGETING_MATCH"
            # One flag alone is what it is among all.
            key = rng.choice(list(ours))
            single = engines.filters[name].ask(key, context, f"flagSetId={document}")
            assert outcome_of(single.json) == ours[key]
    assert matched > DOCUMENTS * CONTEXTS * 4, "hardly a rule says something"


@ENGINES
def test_everybody_is_in_the_same_bucket(engines: Engines, name: str) -> None:
    rng = random.Random(SEED + 2)
    theirs_of = engines.reading(name, "buckets")
    seen = set()
    for _ in range(BUCKETED):
        # The second generation hashes texts alone, and JavaScript other bytes where they are not ASCII.
        value = some_value(rng, 3) if name == "python" else some_text(rng, ascii_only=True)
        our = engines.of_filter(name, "buckets", {"v": value})["f"]
        [their] = theirs_of.outcomes([("f", {"v": value})])
        assert given(our) == given(their), (SEED, value)
        seen.add(our.variant)
    assert len(seen) > 100, "hardly a bucket is hit"
