"""flagd's own engine, in Go, gives the same answers as the filter, but for what is agreed.

The seed is fixed, so that a failure can be repeated; FLAG_DEFINITIONS_SEED tries another one. `make
compare-peers` builds the program that has the engine.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from models.ofrep.engines import Asked, FlagdEngine, doubles, flagd
from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.random_definitions import plain_context, plain_document, wild_context, wild_document
from models.ofrep.recorded import same

SEED = int(os.environ.get("FLAG_DEFINITIONS_SEED", "20261130"))
PLAIN, WILD, RULES, CONTEXTS = 10, 6, 120, 30


class Peers:
    """The filter and flagd's engine with the same documents."""

    def __init__(self, filter: Evaluated, engine: FlagdEngine, documents: list[dict[str, Any]]) -> None:
        self.filter, self.engine, self.documents = filter, engine, documents

    def of_filter(self, asked: Asked) -> tuple[int, Any]:
        answer = self.filter.ask(quote(asked.key or "", ""), asked.context, asked.selector)
        return answer.status, answer.json


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    rng = random.Random(SEED)
    documents = [
        *(
            {"source": f"plain{n}.json", "document": plain_document(rng, f"plain{n}", prefix=f"plain{n}.")}
            for n in range(PLAIN)
        ),
        *(
            {"source": f"wild{n}.json", "document": wild_document(rng, f"wild{n}", RULES, prefix=f"wild{n}.")}
            for n in range(WILD)
        ),
    ]
    folder = tmp_path_factory.mktemp("flagd")
    with evaluating(folder, documents) as filter, flagd() as engine:
        named = [one | {"source": filter.name(one["source"])} for one in documents]
        assert engine.read(named) == {}
        yield Peers(filter, engine, documents)


def test_random_rules(peers: Peers) -> None:
    rng = random.Random(SEED + 1)
    unlisted = []
    for number in range(WILD):
        asked = [Asked(wild_context(rng), f"flagSetId=wild{number}") for _ in range(CONTEXTS)]
        for one, (status, theirs) in zip(asked, peers.engine.answers(asked), strict=True):
            our_status, ours = peers.of_filter(one)
            assert our_status == status
            for our, their in zip(ours["flags"], theirs["flags"], strict=True):
                if not same(doubles(our), doubles(their)):
                    key = our["key"]
                    rule = peers.documents[PLAIN + number]["document"]["flags"][key]["targeting"]
                    unlisted.append((rule, one.context, our, their))
    for x in unlisted[:30]: print(x)
    assert not unlisted, len(unlisted)
