"""Keys rotate and documents of several pages change under load, while the upstream fails in each way."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.flagsmith.documents import environment, identity, segment, state
from models.flagsmith.followed import CLIENT_KEY, FLAGS, IDENTITIES, SERVER_KEY, WHOLE, Followed, followed_by
from models.flagsmith.upstream import PROXY_KEY, Trouble, Upstream, running
from stack.asking import Answer

LASTS_AT_MOST = 90.0  # seconds, until enough came about
VERSIONS, TURNS = 4, 8
FEATURES, OVERRIDES, PAGE = 8, 5, 2
REFUSED_WITHIN = 2.0  # seconds after the publisher was told
EXPIRES_AFTER = 8.0  # seconds
EXPIRING_KEY = "ser.pub.expires"

# What becomes of 24 pages, in any order.
TROUBLES = [
    *[Trouble.FAILED] * 2,
    *[Trouble.SLOW] * 2,
    *[Trouble.CUT, Trouble.NO_JSON, Trouble.UNFIT, Trouble.HANGING],
    *[Trouble.NONE] * 16,
]


def version(number: int) -> dict[str, Any]:
    """A document whose every part says which version it is of."""
    mark = f"version-{number}"
    states = [state(feature, mark) for feature in range(1, FEATURES + 1)]
    identities = [identity(f"user-{user}", [state(1, mark)]) for user in range(OVERRIDES)]
    segments = [segment(1, [], [state(2, mark)])]
    updated_at = datetime.now(UTC).isoformat(timespec="microseconds")
    return environment(CLIENT_KEY, states, segments, identities) | {"updated_at": updated_at, "name": mark}


def marks(answer: Answer) -> Counter[str]:
    return Counter(re.findall(rb"version-[0-9]+", answer.body))


@dataclass
class Seen:
    """What clients were answered."""

    wrong: list[object] = field(default_factory=list)
    bodies: dict[tuple[str, str], set[bytes]] = field(default_factory=lambda: defaultdict(set))  # by tag
    versions: dict[tuple[str, bytes], set[str]] = field(default_factory=lambda: defaultdict(set))  # tags
    statuses: Counter[int] = field(default_factory=Counter)

    def note(self, route: str, parts: int, ask: Callable[..., Answer], held: dict[str, str]) -> None:
        """Asks with the tag of the answer before, if there is one. `parts`: that name their version."""
        tag = held.get(route)
        answer = ask(**({"If_None_Match": tag} if tag else {}))
        self.statuses[answer.status] += 1
        own = answer.headers.get("etag", "")
        if answer.status == 304 and own == tag:
            return
        found = marks(answer)
        if answer.status != 200 or len(found) != 1 or found.total() != parts:
            self.wrong.append((route, answer.status, dict(found)))
            return
        (mark,) = found
        self.bodies[route, own].add(answer.body)
        self.versions[route, mark].add(own)
        held[route] = own


@dataclass
class Rotation:
    """Server-side keys come and go; one stays, and one expires."""

    upstream: Upstream
    number: int = 0
    version: int = 0
    is_due: bool = False  # a document changes between two of its pages

    def turn(self) -> None:
        """The next key is there besides the last one, and the one before that is not any more."""
        self.number += 1
        document = self.upstream.documents[SERVER_KEY]
        own = [f"ser.pub.{number}" for number in (self.number - 1, self.number) if number > 0]
        documents = dict.fromkeys([*own, SERVER_KEY, EXPIRING_KEY], document)
        self.upstream.documents.update(documents)
        # What is asked first goes first.
        self.upstream.listed = dict.fromkeys(documents, CLIENT_KEY)
        for gone in self.upstream.documents.keys() - documents.keys():
            del self.upstream.documents[gone]

    def change(self) -> None:
        self.is_due, self.version = False, self.version + 1
        document = version(self.version)
        self.upstream.documents.update(dict.fromkeys(self.upstream.documents, document))

    def told_without(self, key: str) -> float | None:
        """When the publisher was told last that a key is gone, after it had been told of it."""
        told = list(self.upstream.told)
        with_key = [at for at, keys in told if key in keys]
        if not with_key:
            return None
        return next((at for at, keys in told if at > with_key[-1] and key not in keys), None)


def in_parallel(is_enough: Callable[[], bool], *works: Callable[[], None]) -> list[BaseException]:
    """Does each again and again, in a thread of its own, and says what they ended with."""
    ends, problems = time.monotonic() + LASTS_AT_MOST, []

    def work(once: Callable[[], None]) -> None:
        try:
            while time.monotonic() < ends and not is_enough():
                once()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=[once]) for once in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


def served_by_worker(edge: Followed) -> list[int]:
    port = edge.stack.settings.edge_port
    pattern = re.compile(rf"listener\..*{port}\.worker_\d+\.downstream_cx_total")
    return [count for name, count in edge.stack.stats().items() if pattern.fullmatch(name)]


def test_keys_rotate_while_documents_change_and_the_upstream_is_in_trouble(tmp_path: Path) -> None:
    weather, chance, coming = {"on": False}, random.Random(7), list[Trouble]()

    def trouble(path: str) -> Trouble:
        if not weather["on"]:
            return Trouble.NONE
        if path.endswith("/proxy/config/"):
            return chance.choice([Trouble.FAILED, Trouble.NO_JSON, *[Trouble.NONE] * 6])
        if "page_id" in path and rotation.is_due:
            rotation.change()
            return Trouble.NONE
        if not coming:
            coming.extend(chance.sample(TROUBLES, len(TROUBLES)))
        return coming.pop()

    upstream = Upstream({SERVER_KEY: version(0)}, page=PAGE, knows_dates=True, trouble=trouble)
    rotation = Rotation(upstream)
    rotation.turn()
    with running(upstream):
        configuration = upstream.configuration({}, proxy_key=PROXY_KEY)
        with followed_by(tmp_path, upstream, configuration) as edge:
            weather["on"] = True
            under_load(edge, rotation)


def under_load(edge: Followed, rotation: Rotation) -> None:
    upstream, seen = rotation.upstream, Seen()
    body = json.dumps({"identifier": "user-3", "traits": []}).encode()
    # What answers, and how many parts of it name their version.
    routes: dict[str, tuple[int, Callable[..., Answer]]] = {
        FLAGS: (FEATURES, edge.ask),
        IDENTITIES: (FEATURES, lambda **headers: edge.identify(body, **headers)),
        WHOLE: (
            FEATURES + OVERRIDES + 2,
            lambda **headers: edge.ask(WHOLE, SERVER_KEY, Accept_Encoding="gzip", **headers),
        ),
    }

    def client(route: str, conditional: bool) -> Callable[[], None]:
        parts, ask = routes[route]
        held: dict[str, str] = {}
        return lambda: seen.note(route, parts, ask, held if conditional else {})

    expires_at = time.monotonic() + EXPIRES_AFTER
    upstream.expiring[EXPIRING_KEY] = (datetime.now(UTC) + timedelta(seconds=EXPIRES_AFTER)).isoformat()
    unknown: Counter[int] = Counter()
    keys: dict[str, list[tuple[float, int]]] = defaultdict(list)  # when each was asked with, and the status

    def rotating() -> None:
        own = [f"ser.pub.{number}" for number in range(1, rotation.number + 1)]
        for key in [EXPIRING_KEY, *own]:
            asked = time.monotonic()
            keys[key].append((asked, edge.ask(WHOLE, key).status))
        unknown[edge.ask(key="ser.pub.nobody").status] += 1

    def change() -> None:
        time.sleep(4)
        rotation.change()
        # Its pages are read next: it changes once more between them.
        rotation.is_due = True

    def turn() -> None:
        time.sleep(3.5)
        rotation.turn()

    clients = [client(route, conditional) for route in routes for conditional in (False, True)]
    all_kinds = {kind.value for kind in Trouble} | {"not modified"}

    def is_enough() -> bool:
        has_versions = len(seen.versions) >= VERSIONS * len(routes)
        return has_versions and rotation.number >= TURNS and upstream.answered.keys() == all_kinds

    assert in_parallel(is_enough, *clients, rotating, change, turn) == []
    assert is_enough(), (len(seen.versions), rotation.number, upstream.answered)
    assert seen.wrong == []
    assert seen.statuses.keys() == {200, 304}
    # A tag stands for its bytes, and a version for its tag, whichever worker answered.
    assert all(len(bodies) == 1 for bodies in seen.bodies.values())
    assert all(len(tags) == 1 for tags in seen.versions.values())
    assert {route for route, _ in seen.versions} == routes.keys()
    assert len(served := served_by_worker(edge)) == 2 and min(served) > 100
    assert unknown.keys() <= {401, 503} and unknown[401] > 0
    gone = 0
    for key, asked in keys.items():
        known = next((at for at, status in asked if status == 200), None)
        until = expires_at if key == EXPIRING_KEY else rotation.told_without(key) or float("inf")
        assert all(status == 200 for at, status in asked if known and known <= at < until - 1), key
        late = [status for at, status in asked if at > until + REFUSED_WITHIN]
        assert set(late) <= {401, 503}, (key, late)
        gone += bool(late)
    assert gone >= 4, "too few keys went"
