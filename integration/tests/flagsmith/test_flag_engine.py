"""Documents that the SDKs evaluate by themselves: the filter evaluates them the same, but for what is agreed.

The seed is fixed, so that a failure can be repeated; FLAG_DEFINITIONS_SEED tries another one.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from flag_engine.engine import get_evaluation_result
from flagsmith.mappers import (
    map_context_and_identity_data_to_context,
    map_environment_document_to_context,
)

from models.flagsmith.differences import GRID, OPERATORS, PLACES, TRAITS, VERSIONS, grid, places
from models.flagsmith.random_documents import Identity, some_document, some_identities
from models.flagsmith.recorded import same
from models.flagsmith.sdks import CLASSES, NodeSdk, States, alike, sdk, started, states_of
from models.flagsmith.upstream import Upstream, running, write_configuration
from stack.asking import ask
from stack.launcher import Stack
from stack.paths import INTEGRATION
from stack.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:Equality comparisons between Version and strings")
SEED = int(os.environ.get("FLAG_DEFINITIONS_SEED", "20261130"))
DOCUMENTS, IDENTITIES = 32, 20


class PatientNodeSdk(NodeSdk):
    """One that reads its document once: what it is told of an identity is gone with the next one."""

    refresh = 600.0


class Engines:
    """One filter with all the documents, and what else evaluates them."""

    def __init__(self, stack: Stack, documents: dict[str, dict[str, Any]]) -> None:
        self.stack, self.documents = stack, documents

    def filter(self, name: str, identity: Identity | None, kind: str = "ser.") -> States:
        """The filter's answer for a server-side key (`ser.`) or a client-side one (`pub.`)."""
        port, headers = self.stack.settings.edge_port, {"X-Environment-Key": kind + name}
        if identity is None:
            answer = ask(port, "GET", "/api/v1/flags/", headers)
            assert answer.status == 200
            return states_of(answer.json)
        traits = [{"trait_key": key, "trait_value": value} for key, value in identity.traits.items()]
        body = json.dumps({"identifier": identity.identifier, "traits": traits}).encode()
        answer = ask(
            port, "POST", "/api/v1/identities/", headers | {"Content-Type": "application/json"}, body
        )
        assert answer.status == 200
        return states_of(answer.json["flags"])


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    documents = {"grid": grid("pub.grid"), "places": places("pub.places")}
    rng = random.Random(SEED)
    documents |= {f"random{n}": some_document(rng, f"pub.random{n}") for n in range(DOCUMENTS)}
    upstream = Upstream({f"ser.{name}": document for name, document in documents.items()})
    folder: Path = tmp_path_factory.mktemp("flagsmith")
    with running(upstream):
        configuration = upstream.configuration({f"ser.{name}": f"pub.{name}" for name in documents})
        config = write_configuration(folder / "edge.json", configuration)
        with Stack(Settings.on_free_ports(flagsmith_config=config)) as stack:
            for name in documents:
                stack.wait_until(lambda name=name: is_served(stack, name))
            yield Engines(stack, documents)


def is_served(stack: Stack, name: str) -> bool:
    headers = {"X-Environment-Key": f"pub.{name}"}
    return ask(stack.settings.edge_port, "GET", "/api/v1/flags/", headers).status == 200


@pytest.mark.parametrize("name", CLASSES)
def test_each_operator_with_each_kind_of_value(engines: Engines, name: str) -> None:
    asked = [Identity("i", {})] + [Identity("i", {"t": value}) for value in TRAITS]
    ours = [engines.filter("grid", identity) for identity in asked]
    with sdk(name, engines.stack.edge_url, "ser.grid", local=True) as running_sdk:
        theirs = running_sdk.identities(asked)
    unlisted, seen = [], set()
    for identity, our, their in zip(asked, ours, theirs, strict=True):
        for number, (operator, operand) in enumerate(GRID, 1000):
            if same(our[f"f{number}"], their[f"f{number}"]):
                continue
            assert identity.traits, f"{operator} {operand!r} without a trait"
            value = identity.traits["t"]
            rows = [row for row in OPERATORS if row.names(name, operator, operand, value)]
            seen.update(rows)
            if not rows:
                unlisted.append((operator, operand, value, our[f"f{number}"], their[f"f{number}"]))
    assert unlisted == [], f"{VERSIONS[name]} differs in more than is listed"
    assert [row for row in OPERATORS if row.sdk == name and row not in seen] == [], "not seen any more"


def test_the_versions_are_those_that_are_installed() -> None:
    """The differences are listed for them."""
    python = f"flagsmith {version('flagsmith')}, flagsmith-flag-engine {version('flagsmith-flag-engine')}"
    packages = json.loads((INTEGRATION / "node/package.json").read_text())["dependencies"]
    assert VERSIONS["python"] == python
    assert VERSIONS["node"] == f"flagsmith-nodejs {packages['flagsmith-nodejs']}"


def test_all_else_that_is_agreed(engines: Engines) -> None:
    url = engines.stack.edge_url
    with (
        sdk("python", url, "ser.places", local=True) as python,
        started(PatientNodeSdk, url, "ser.places", local=True) as node,
    ):
        for place in PLACES:
            traits, feature = dict(place.traits), place.feature
            if place.identity is None:
                found = engines.filter("places", None), python.flags(), node.flags()
            else:
                asked = Identity(place.identity, traits)
                ours = engines.filter("places", asked)
                found = ours, python.identity(*asked), node.identity(*asked)
            values = [flags[feature][1] for flags in found]
            assert same(values, [place.filter, place.python, place.node]), (place, values)


def engine(document: dict[str, Any], identity: Identity | None) -> States:
    """What Flagsmith's Python engine says of a document, as the Python SDK hands it over."""
    context = map_environment_document_to_context(document)
    if identity is None:
        context.pop("segments")  # as the SDK does: see PLACES
    else:
        context = map_context_and_identity_data_to_context(context, identity.identifier, identity.traits)
    flags = get_evaluation_result(context)["flags"]
    return {name: (flag["enabled"], flag["value"]) for name, flag in flags.items()}


def test_random_documents(engines: Engines) -> None:
    rng = random.Random(SEED)
    matched = 0
    for name, document in engines.documents.items():
        if not name.startswith("random"):
            continue
        hidden = {f"f{number}" for number in document["project"]["server_key_only_feature_ids"]}
        plain = engine(document, None)
        for identity in some_identities(rng, document, IDENTITIES):
            expected = engine(document, identity)
            found = engines.filter(name, identity)
            assert same(found, expected), (SEED, name, identity, changed(found, expected))
            public = {flag: state for flag, state in expected.items() if flag not in hidden}
            assert same(engines.filter(name, identity, "pub."), public), (SEED, name, identity)
            matched += not same(expected, plain)
    assert matched > DOCUMENTS * IDENTITIES / 4, "hardly a condition holds"


def changed(found: States, expected: States) -> dict[str, Any]:
    names = found.keys() | expected.keys()
    pairs = {name: (found.get(name), expected.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if not same(*pair)}


def test_random_documents_without_an_identity(engines: Engines) -> None:
    """Without segments: with them the filter evaluates more than the SDKs."""
    compared = 0
    for name, document in engines.documents.items():
        plain = engine(document, None)
        overridden = {
            state["feature"]["name"]
            for segment in document["project"]["segments"]
            for state in segment["feature_states"]
        }
        found = engines.filter(name, None)
        assert found.keys() == plain.keys()
        for flag in plain.keys() - overridden:
            assert same(found[flag], plain[flag]), (SEED, name, flag)
            compared += 1
    assert compared > DOCUMENTS


def test_random_documents_in_node(engines: Engines) -> None:
    rng = random.Random(SEED + 1)
    for number in range(0, DOCUMENTS, 6):
        name = f"random{number}"
        document = engines.documents[name]
        asked = some_identities(rng, document, IDENTITIES)
        with sdk("node", engines.stack.edge_url, f"ser.{name}", local=True) as node:
            theirs = node.identities(asked)
        for identity, expected in zip(asked, theirs, strict=True):
            found = alike("node", engines.filter(name, identity))
            expected = alike("node", expected)
            assert same(found, expected), (SEED, name, identity, changed(found, expected))
