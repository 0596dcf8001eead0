"""flagd's own engine, in Go, gives the same answers as the filter, but for what is agreed.

The seed is fixed, so that a failure can be repeated; FLAG_DEFINITIONS_SEED tries another one. `make
compare-peers` builds the program that has the engine; how flagd's server asks it is our own part of it.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from models.ofrep.differences import ABOUT, FLAGD_DOCUMENTS, FLAGD_RULES, places
from models.ofrep.engines import Asked, FlagdEngine, doubles, flagd, given, outcome_of, serving
from models.ofrep.evaluated import Evaluated, evaluating
from models.ofrep.random_definitions import plain_context, plain_document, wild_context, wild_document
from models.ofrep.recorded import CASES, Played, body_of, same
from models.ofrep.recorded import DOCUMENTS as RECORDED
from stack.asking import Answer, ask

SEED = int(os.environ.get("FLAG_DEFINITIONS_SEED", "20261130"))
PLAIN, WILD, RULES, CONTEXTS = 8, 6, 150, 40
# What each process of flagd calls flags of no set.
OF_NO_SET = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Documents = list[dict[str, Any]]


class Peers:
    """The filter and flagd's engine with the same documents."""

    def __init__(self, filter: Evaluated, engine: FlagdEngine, documents: Documents) -> None:
        self.filter, self.engine = filter, engine
        named = [one | {"source": filter.name(one["source"])} for one in documents]
        assert engine.read(named) == {}
        self.documents = {one["source"]: one["document"] for one in documents}

    def both(self, asked: Asked) -> tuple[Any, Any]:
        """What the filter answers, and what flagd does."""
        [(_, theirs)] = self.engine.answers([asked])
        return self.filter.ask(quote(asked.key or "", ""), asked.context, asked.selector).json, theirs

    def differences(self, asked: list[Asked]) -> list[tuple[Asked, Any, Any]]:
        """What is answered otherwise than agreed: to whom, by the filter and by flagd."""
        found = []
        for one, (status, theirs) in zip(asked, self.engine.answers(asked), strict=True):
            answer = self.filter.ask(quote(one.key or "", ""), one.context, one.selector)
            ours, theirs = doubles(answer.json), agreed(doubles(theirs))
            if answer.status != status:
                found.append((one, answer.status, status))
            elif "flags" not in ours:
                found += [] if same(ours, theirs) else [(one, ours, theirs)]
            else:
                assert [our["key"] for our in ours["flags"]] == [their["key"] for their in theirs["flags"]]
                assert same(ours["metadata"], theirs["metadata"])
                pairs = zip(ours["flags"], theirs["flags"], strict=True)
                found += [(one, our, their) for our, their in pairs if not same(agreed(our), their)]
        return found


def agreed(answer: Any) -> Any:
    """flagd's answer with what the filter gives instead, of what concerns more than one rule."""
    match answer:
        case {"variant": "-0"}:  # it has the value of 0 in these documents
            return agreed(answer | {"variant": "0"})
        case {"metadata": {"flagSetId": str(name), **others}} if OF_NO_SET.fullmatch(name):
            return agreed(answer | {"metadata": others})
        case {"flags": list(entries)}:
            entries = [agreed(entry) for entry in entries]
            # Flags of no set come first. One key comes once: flagd evaluates the one that wins for the other
            # sets, too, and takes another type of values there for an error.
            entries.sort(
                key=lambda one: ((one["metadata"] or {}).get("flagSetId", ""), one["key"], "errorCode" in one)
            )
            first = {entry["key"]: entry for entry in reversed(entries)}
            return answer | {"flags": [entry for entry in entries if first[entry["key"]] is entry]}
        case _:
            return answer


def following(folder: Path, documents: Documents) -> Iterator[Peers]:
    with evaluating(folder, documents) as filter, flagd() as engine:
        yield Peers(filter, engine, documents)


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    rng = random.Random(SEED)
    documents = {f"plain{n}": plain_document(rng, f"plain{n}", prefix=f"p{n}.") for n in range(PLAIN)}
    documents |= {f"wild{n}": wild_document(rng, f"wild{n}", RULES, prefix=f"w{n}.") for n in range(WILD)}
    # One set in two sources, with some keys in both; and flags of no set.
    documents["more"] = plain_document(rng, "plain0", flags=16, prefix="p0.")
    documents["none"] = plain_document(rng, prefix="n.")
    documents["twice"] = plain_document(rng, "zzz", flags=4, prefix="p1.")  # keys of another set
    listed = [{"source": f"{name}.json", "document": document} for name, document in documents.items()]
    yield from following(tmp_path_factory.mktemp("flagd"), listed)


def test_random_rules(peers: Peers) -> None:
    rng = random.Random(SEED + 1)
    for number in range(WILD):
        asked = [Asked(wild_context(rng), f"flagSetId=wild{number}") for _ in range(CONTEXTS)]
        flags = peers.documents[f"wild{number}.json"]["flags"]
        found = peers.differences(asked)
        assert [(flags[our["key"]]["targeting"], one.context, our, their) for one, our, their in found] == []


def test_random_documents_by_selectors(peers: Peers) -> None:
    rng = random.Random(SEED + 2)
    sets = [
        f"flagSetId={name}" for name in ("plain0", "plain1", "plain2", "", "zzz", "nobody", "PLAIN1", "a,b=c")
    ]
    sources = ["plain0.json", "more.json", "none.json", "plain3.json", "nothing.json"]
    named = [peers.filter.name(source) for source in sources]
    others = ["source=", "team=x", "=x", "flagsetid=plain0", "key=x"]
    selectors = ["", *sets, *named, *(f"source={name}" for name in named), *others]
    keys = [f"{prefix}.f{number}" for prefix in ("p0", "p1", "n") for number in range(16)]
    asked = []
    for selector in selectors:
        for _ in range(6):
            context = plain_context(rng)
            asked.append(Asked(context, selector))
            asked += [Asked(context, selector, key) for key in rng.sample(keys, 3)]
    asked += [Asked(plain_context(rng), "", key) for key in keys]
    nobodies = (None, [], "text", 5, {}, {"$flagd": {"flagKey": "p0.f1"}})
    asked += [Asked(context, "flagSetId=plain1") for context in nobodies]
    assert peers.differences(asked) == []


def test_all_else_that_is_agreed(tmp_path: Path) -> None:
    rules = places(FLAGD_RULES) | {"metadata": {"flagSetId": "rules"}}
    listed = [{"source": "rules.json", "document": rules}]
    for number, row in enumerate(FLAGD_DOCUMENTS):
        document = row.document | {"metadata": {"flagSetId": f"set{number}"}}
        listed.append({"source": f"{number}.json", "document": document})
    for peers in following(tmp_path, listed):
        for number, row in enumerate(FLAGD_RULES):
            ours, theirs = peers.both(Asked(ABOUT, "flagSetId=rules", f"f{number}"))
            assert (given(outcome_of(ours)), given(outcome_of(theirs))) == (row.filter, row.flagd), row.reason
        for number, row in enumerate(FLAGD_DOCUMENTS):
            ours, theirs = peers.both(Asked({}, f"flagSetId=set{number}", "f"))
            assert (ours["value"], theirs["value"]) == (row.filter, row.flagd), row.reason


def test_the_program_answers_as_flagd_s_server_did(tmp_path: Path) -> None:
    """Its HTTP side is ours. Left out are cases of what is switched on, and of what is decided anew."""
    cases = [
        case
        for case in CASES
        if case["obtained"].startswith("run: flagd main") and not {"config", "documents"} & case.keys()
    ]
    assert len(cases) > 70
    with serving(tmp_path, RECORDED) as port:

        def send(request: dict[str, Any], _: str) -> Answer:
            given = ask(port, request["method"], request["path"], request["headers"], body_of(request))
            is_json = given.headers.get("content-type") == "application/json"
            return replace(given, body=json.dumps(agreed(given.json)).encode()) if is_json else given

        played = Played(send, lambda _: None)
        assert {case["id"]: found for case in cases if (found := played.differences(case))} == {}


def test_the_recorded_documents(tmp_path: Path) -> None:
    rng = random.Random(SEED + 3)
    for peers in following(tmp_path, RECORDED):
        contexts = [{}, {"targetingKey": "ann"}, *(plain_context(rng) for _ in range(20))]
        assert peers.differences([Asked(context) for context in contexts]) == []
