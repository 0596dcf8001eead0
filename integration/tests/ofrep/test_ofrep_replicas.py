"""Envoys of different age, whose definitions arrived in different order, say the same."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from models.ofrep.evaluated import Evaluated, evaluating

SELECTORS = ["", "flagSetId=shop", "flagSetId=", "flagSetId=nobody"]
CONTEXTS = [{}, {"targetingKey": "ann"}, {"targetingKey": "bob", "plan": "gold", "n": 1.0}]
KEYS = [f"k{number}" for number in range(20)]
SWAPS = 12


def flag(value: Any, **more: Any) -> dict[str, Any]:
    rule = {"if": [{"==": [{"var": "plan"}, "gold"]}, {"fractional": [["a", 1], ["b", 1]]}]}
    variants = {"a": value, "b": f"{value} b"}
    return {"state": "ENABLED", "variants": variants, "defaultVariant": "a", "targeting": rule} | more


def first(value: str) -> dict[str, Any]:
    """Members in one order."""
    return {
        "metadata": {"owner": "x"},
        "flags": {"both": flag(f"first {value}", metadata={"flagSetId": "shop"}), "own": flag(value)},
    }


def second(value: str) -> dict[str, Any]:
    return {"flags": {"both": flag(value, metadata={"flagSetId": "shop"}), "other": flag(value)}}


def said(evaluated: Evaluated, worker_tries: int = 2) -> dict[Any, set[Any]]:
    """What is answered, by the question: one answer each where all workers agree."""
    answers: dict[Any, set[Any]] = {}
    for selector in SELECTORS:
        for context in CONTEXTS:
            for key in ["", "both", "other", "none"]:
                for coding in ["identity", "gzip"]:
                    question = (selector, str(context), key, coding)
                    for _ in range(worker_tries):
                        answer = evaluated.ask(key, context, selector, accept_encoding=coding)
                        content = (answer.status, answer.headers.get("etag"), answer.body)
                        answers.setdefault(question, set()).add(content)
    return answers


def settled(evaluated: Evaluated) -> None:
    """Returns when each selection has the last definitions on every worker."""
    evaluated.wait_for("both", "last", selector="flagSetId=shop")
    evaluated.wait_for("own", "last", selector="flagSetId=")
    evaluated.wait_for("other", "last", selector="flagSetId=")
    for key in ["both", "own", "other"]:
        evaluated.wait_for(key, "last")


def test_equal_definitions_have_equal_tags_and_bytes_whatever_came_first(tmp_path: Path) -> None:
    def starting(name: str, one: str, other: str) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        documents = [
            {"source": "a.json", "document": first(one)},
            {"source": "b.json", "document": second(other)},
        ]
        return evaluating(folder, documents, settings={"snapshot": None})

    with ExitStack() as stacks:
        old = stacks.enter_context(starting("old", "v1", "v1"))
        other = stacks.enter_context(starting("other", "v2", "last"))
        for value in ["v2", "last"]:
            old.write("a.json", first(value))
            old.wait_for("own", value)
        old.write("b.json", second("last"))
        other.write("b.json", second("v3"))
        other.wait_for("other", "v3")
        other.write("b.json", second("last"))
        other.write("a.json", first("last"))
        new = stacks.enter_context(starting("new", "last", "last"))
        for evaluated in (old, other, new):
            settled(evaluated)
        expected = said(new)
        assert all(len(answers) == 1 for answers in expected.values()), expected
        assert said(old) == expected and said(other) == expected
        # A tag of one Envoy is current on each of them.
        tag = new.ask(selector="flagSetId=shop").headers["etag"]
        assert {old.ask(selector="flagSetId=shop", etag=tag).status for _ in range(8)} == {304}
        # One is started again, and its publisher, too.
        other.stack.restart("envoy")
        other.stack.restart("publisher")
        settled(other)
        assert said(other) == expected


def swap(folder: Path, number: int, texts: dict[str, str]) -> None:
    """As the kubelet changes a mounted ConfigMap: files are links through `..data`, which is replaced."""
    data = folder / f"..{number}"
    data.mkdir()
    for name, text in texts.items():
        (data / name).write_text(text)
    new = folder / "..new"
    new.symlink_to(data.name)
    new.rename(folder / "..data")


def yaml(value: int) -> str:
    flags = "".join(
        f"  {key}: {{state: ENABLED, variants: {{v: {value}}}, defaultVariant: v}}\n" for key in KEYS
    )
    return f"metadata: {{flagSetId: shop, version: {value}}}\nflags:\n{flags}"


def test_a_config_map_that_is_swapped_under_load_gives_no_mix_and_no_lack(tmp_path: Path) -> None:
    """While bulk and single requests run, a broken version and a missing file come in between as well."""
    swap(tmp_path, 0, {"flags.yaml": yaml(0)})
    (tmp_path / "flags.yaml").symlink_to("..data/flags.yaml")
    with evaluating(tmp_path, [], f"file:{tmp_path}/flags.yaml", settings={"snapshot": None}) as evaluated:
        evaluated.wait_for(KEYS[0], 0)
        stopped = threading.Event()
        wrong: list[Any] = []
        seen: set[int] = set()

        def look() -> None:
            contents: dict[str, bytes] = {}
            etag = ""
            while not stopped.is_set():
                bulk = evaluated.ask(selector="flagSetId=shop", etag=etag)
                if bulk.status == 304:
                    etag = ""
                elif bulk.status == 200:
                    flags = bulk.json["flags"]
                    versions = {(entry["value"], entry["metadata"]["version"]) for entry in flags}
                    if len(flags) != len(KEYS) or len(versions) != 1 or len(set(versions.pop())) != 1:
                        wrong.append(bulk.body)
                    etag = bulk.headers["etag"]
                    if contents.setdefault(etag, bulk.body) != bulk.body:
                        wrong.append("one tag, two contents")
                    seen.add(flags[0]["value"])
                else:
                    wrong.append((bulk.status, bulk.body))
                single = evaluated.ask(KEYS[3], selector="flagSetId=shop")
                if single.status != 200 or single.json["value"] != single.json["metadata"]["version"]:
                    wrong.append((single.status, single.body))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for value in range(1, SWAPS):
                text = yaml(value)
                cut = text[: text.rindex("}", 0, len(text) // 2)]
                between = {} if value % 3 == 0 else {"flags.yaml": cut}
                if value % 2 == 0:
                    swap(tmp_path, 1000 + value, between)
                    time.sleep(0.1)
                swap(tmp_path, value, {"flags.yaml": text})
                time.sleep(0.3)
            evaluated.wait_for(KEYS[0], SWAPS - 1)
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
        assert wrong == [] and len(seen) > 3


def test_a_source_that_is_broken_when_the_publisher_starts_holds_no_other_up(tmp_path: Path) -> None:
    documents = [
        {"source": "a.json", "document": first("v1")},
        {"source": "b.json", "document": second("v1")},
    ]
    with evaluating(tmp_path, documents, settings={"snapshot": None}) as evaluated:
        evaluated.wait_for("other", "v1")
        evaluated.write("b.json", "<!doctype html>")
        evaluated.stack.restart("publisher")
        evaluated.write("a.json", first("v2"))
        evaluated.wait_for("own", "v2")
        assert evaluated.value("other") == "v1"
        assert evaluated.ask("none", selector="flagSetId=shop").status == 404
