"""Flagd's definitions on their way from files and URLs to answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from models.ofrep.evaluated import Evaluated, evaluating, write
from stack.edge import PATH, SECRET, TOKEN, get

CHANGES = 30


def flag(value: Any, **more: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": {"v": value}, "defaultVariant": "v"} | more


def definitions(value: Any, key: str = "k") -> dict[str, Any]:
    return {"flags": {key: flag(value)}}


def swap(folder: Path, number: int, text: str) -> None:
    """As the kubelet changes a mounted ConfigMap: the file is a link through `..data`, which is replaced."""
    data = folder / f"..{number}"
    data.mkdir()
    (data / "flags.yaml").write_text(text)
    new = folder / "..new"
    new.symlink_to(data.name)
    new.rename(folder / "..data")


def yaml(value: int, default: str = "on") -> str:
    return (
        f"flags:\n  k:\n    state: ENABLED\n    variants: {{ on: {value}, off: 0 }}\n"
        f"    defaultVariant: {default}\n"
    )


def test_a_config_map_in_yaml_is_swapped_and_a_bad_one_keeps_what_was_there(tmp_path: Path) -> None:
    swap(tmp_path, 1, yaml(1))
    (tmp_path / "flags.yaml").symlink_to("..data/flags.yaml")
    uri = f"file:{tmp_path}/flags.yaml"
    with evaluating(tmp_path, [], uri) as evaluated:
        assert evaluated.value("k") == 1
        swap(tmp_path, 2, yaml(2))
        evaluated.wait_for("k", 2)
        swap(tmp_path, 3, yaml(3, default="none"))
        evaluated.stack.wait_until(lambda: "is none of its variants" in evaluated.stack.log("publisher"))
        (line,) = [line for line in evaluated.stack.log("publisher").splitlines() if "none of its" in line]
        told = json.loads(line)
        fields = told.get("fields", told)
        assert (fields["source"], fields["flag"], fields["member"]) == (uri, "k", "defaultVariant")
        evaluated.wait_for("k", 2)
        swap(tmp_path, 4, yaml(4))
        evaluated.wait_for("k", 4)


def test_files_that_are_swapped_under_load_are_never_mixed_nor_missing(tmp_path: Path) -> None:
    """Every answer is all of one version, and none is an error."""
    keys = [f"k{number}" for number in range(20)]

    def document(value: int) -> list[dict[str, Any]]:
        flags = {key: flag(value, metadata={"flagSetId": "shop"}) for key in keys}
        return [{"source": "shop.json", "document": {"flags": flags}}]

    with evaluating(tmp_path, document(0)) as evaluated:
        stopped, wrong, seen = threading.Event(), [], set()

        def look() -> None:
            etags: dict[str, int] = {}
            while not stopped.is_set():
                bulk = evaluated.ask(selector="flagSetId=shop")
                values = {entry.get("value") for entry in bulk.json["flags"]} if bulk.status == 200 else set()
                if len(values) != 1 or len(bulk.json["flags"]) != len(keys):
                    wrong.append((bulk.status, bulk.body))
                    continue
                (value,) = values
                seen.add(value)
                if etags.setdefault(bulk.headers["etag"], value) != value:
                    wrong.append("one tag, two contents")
                single = evaluated.ask(keys[0], selector="flagSetId=shop")
                if single.status != 200:
                    wrong.append((single.status, single.body))

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for value in range(1, CHANGES):
                evaluated.write("shop.json", document(value)[0]["document"])
                time.sleep(0.2)
            evaluated.wait_for(keys[0], CHANGES - 1)
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
        assert wrong == [] and len(seen) > 3


def test_a_key_is_refused_where_keys_have_a_source_alone(tmp_path: Path) -> None:
    """The samples have keys, and are followed only where `snapshot` is said."""
    document = [{"source": "a.json", "document": definitions(1)}]

    def statuses(settings: dict[str, Any]) -> set[int]:
        with evaluating(tmp_path, document, settings=settings, keys="required") as evaluated:
            return {evaluated.ask(X_Api_Key="nobody").status for _ in range(20)}

    assert statuses({}) == {401}
    assert statuses({"snapshot": None}) == {503}


def test_a_later_source_wins_and_gives_back_what_it_loses(tmp_path: Path) -> None:
    first = {"flags": {"k": flag("first"), "own": flag(1)}}
    documents = [
        {"source": "a.json", "document": first},
        {"source": "b.json", "document": definitions("second")},
    ]
    with evaluating(tmp_path, documents) as evaluated:
        assert evaluated.value("k") == "second" and evaluated.value("own") == 1
        of_first = evaluated.ask(selector=f"source={evaluated.name('a.json')}").json
        assert [entry["key"] for entry in of_first["flags"]] == ["own"]
        evaluated.write("b.json", definitions("third", key="other"))
        evaluated.wait_for("k", "first")
        assert evaluated.value("other") == "third"
        # A file that is gone is an outage, and changes nothing.
        (tmp_path / "b.json").unlink()
        time.sleep(2)
        assert evaluated.value("other") == "third" and evaluated.value("k") == "first"


# === URLs ===


@dataclass
class Served:
    """A server of definitions."""

    document: dict[str, Any]
    status: int = 200
    port: int = 0
    asked: list[str | None] = field(default_factory=list)  # If-None-Match of each request
    answered: list[int] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"http://u:hunter2@127.0.0.1:{self.port}/flags.json?key=hunter2"


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps(served.document).encode()
            etag = f'"{hash(body)}"'
            served.asked.append(self.headers.get("if-none-match"))
            status = served.status
            if status == 200 and served.asked[-1] == etag:
                status = 304
            served.answered.append(status)
            content = body if status == 200 else b""
            self.send_response(status)
            self.send_header("etag", etag)
            self.send_header("content-type", "application/json")
            if status != 304:
                self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def often() -> dict[str, Any]:
    return {"watch_options": ("--flagd-poll-interval", "200ms")}


def test_a_url_is_asked_conditionally_and_its_outage_changes_nothing(tmp_path: Path) -> None:
    with (
        serving(Served(definitions(1))) as served,
        evaluating(tmp_path, [], served.uri, settings=often()) as evaluated,
    ):
        stack = evaluated.stack
        assert evaluated.value("k") == 1
        stack.wait_until(lambda: served.answered.count(304) >= 3)
        served.document = definitions(2)
        evaluated.wait_for("k", 2)
        served.status = 503
        failed = len(served.answered) + 5
        stack.wait_until(lambda: len(served.answered) >= failed)
        assert evaluated.value("k") == 2
        # The name that clients see has no password and no query.
        name = f"http://127.0.0.1:{served.port}/flags.json"
        answer = evaluated.ask(selector=f"source={name}")
        assert [entry["metadata"] for entry in answer.json["flags"]] == [{"source": name}]
        # A publisher that starts while it is away leaves what is published.
        stack.restart("publisher")
        stack.wait_until(lambda: len(served.answered) >= failed + 10)
        assert evaluated.value("k") == 2
        served.status, served.document = 200, definitions(3)
        evaluated.wait_for("k", 3)
        assert "hunter2" not in stack.log("publisher")
        metrics = requests.get(f"http://127.0.0.1:{stack.settings.publisher_port}/metrics", timeout=5).text
        assert "hunter2" not in metrics
        (line,) = [line for line in metrics.splitlines() if 'failed_polls_total{reason="status"}' in line]
        assert float(line.split()[-1]) >= 1


def test_before_its_sources_were_read_once_nobody_is_told_that_there_is_no_flag(tmp_path: Path) -> None:
    with serving(Served(definitions(1), status=500)) as served:
        write(tmp_path / "a.json", definitions("a"))
        uri = f"file:{tmp_path}/a.json {served.uri}"
        settings = often() | {"snapshot": None}
        stack = evaluating(tmp_path, [], uri, settings=settings)
        with waiting(stack, served) as evaluated:
            evaluated.wait_for("k", 1)


@contextmanager
def waiting(starting: Any, served: Served) -> Iterator[Evaluated]:
    """A stack that starts only when the server answers, which it does after some time: nothing is published
    before."""
    timer = threading.Timer(5, lambda: setattr(served, "status", 200))
    timer.start()
    began = time.monotonic()
    with starting as evaluated:
        assert time.monotonic() - began >= 5, "a snapshot without one of its sources"
        yield evaluated


# === Beside others ===


def test_the_samples_of_posthog_are_served_beside_it(tmp_path: Path) -> None:
    with evaluating(tmp_path, [{"source": "a.json", "document": definitions(1)}]) as evaluated:
        assert evaluated.value("k") == 1
        assert get(evaluated.stack).status_code == 200


def test_alone_it_refuses_no_team(tmp_path: Path) -> None:
    documents = [{"source": "a.json", "document": definitions(1)}]
    with evaluating(tmp_path, documents, settings={"snapshot": None}) as evaluated:
        assert evaluated.value("k") == 1
        url = f"{evaluated.stack.edge_url}{PATH}?token={TOKEN}"
        for secret in (SECRET, "phs_nobody"):
            answer = requests.get(url, headers={"authorization": f"Bearer {secret}"}, timeout=10)
            assert answer.status_code == 503
