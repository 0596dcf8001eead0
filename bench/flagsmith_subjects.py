"""Flagsmith's surface, and what it is compared with: filters, and its Edge Proxy as a service behind Envoy.

The publisher follows a stand-in for Flagsmith with the environment of which the real Edge Proxy's answers
were recorded: 17 features and 15 segments. No figure counts where filter and service do not say the same.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_stack
import surface_subjects
from bench_stack import BenchStack
from load import UNIQUE, Request
from models.flagsmith.followed import CLIENT_KEY, FLAGS, IDENTITIES, SERVER_KEY, WHOLE
from models.flagsmith.recorded import DOCUMENT, same
from models.flagsmith.upstream import Upstream, running, write_configuration
from paths import EDGE_PROXY
from stack.ports import accepts_connections, free_port
from stack.processes import StackError
from stack.programs import require
from stack.render import built_in_config
from stack.settings import Settings
from subjects import ACCEPT_GZIP, Answer, Subject, ask, wait_until_it_answers
from surface_subjects import plain

SECTION = "flagsmith"  # of the plugin configuration
SERVICE = "edge_proxy"
KEY_HEADER = "X-Environment-Key"
AGENT = "User-Agent: flagsmith-python-sdk/6.3.0"
# Each request is for an identity that nobody asked for before.
IDENTITY = {
    "identifier": f"user-{UNIQUE}",
    "traits": [{"trait_key": "plan", "trait_value": "pro"}, {"trait_key": "age", "trait_value": 42}],
}
NAMES = {
    "reply_only_flags",
    "host_calls_flags",
    "flagsmith_flags",
    "edge_proxy_flags",
    "reply_only_flags_gzip",
    "host_calls_flags_gzip",
    "flagsmith_flags_gzip",
    "edge_proxy_flags_gzip",
    "flagsmith_flags_304",
    "flagsmith_identity",
    "edge_proxy_identity",
    "flagsmith_document_gzip",
    "edge_proxy_document_gzip",
}
COMPARED = 50  # identities for which filter and service have to say the same


def document() -> dict[str, Any]:
    """The recorded environment, with variants in the order of their ids, as Flagsmith has them: in another
    order the Edge Proxy chooses others than the SDKs and the filter."""
    sorted_document = copy.deepcopy(DOCUMENT)
    for state in sorted_document["feature_states"]:
        state["multivariate_feature_state_values"].sort(key=lambda variant: variant["id"])
    return sorted_document


@dataclass
class FlagsmithStack(BenchStack):
    """A stack that follows a Flagsmith, with an Edge Proxy behind its Envoy that knows the same
    `environments`."""

    environments: Path = Path()

    def _start_behind(self, name: str, port: int) -> None:
        listen: list[object] = ["--listen", f"127.0.0.1:{port}", "--environments", self.environments]
        self._start(name, [require(EDGE_PROXY, "make bench"), *listen])
        self._wait_for(name, lambda: accepts_connections(port))


@contextmanager
def stack_for(
    directory: Path,
    kind: type[FlagsmithStack] = FlagsmithStack,
    listeners: dict[str, Callable[[bench_stack.Document], None]] | None = None,
) -> Iterator[FlagsmithStack]:
    """A stack that is up, with these further listeners. Its files are put into `directory`."""
    environments = directory / "environments.json"
    one = {"client_side_key": CLIENT_KEY, "server_side_key": SERVER_KEY, "document": document()}
    environments.write_text(json.dumps([one]))
    upstream = Upstream({SERVER_KEY: one["document"]})
    with running(upstream):
        pairs = {SERVER_KEY: CLIENT_KEY}
        # As often as the Edge Proxy does.
        followed = upstream.configuration(pairs, api_poll_frequency_seconds=60, api_poll_timeout_seconds=5)
        config = write_configuration(directory / "edge.json", followed)
        settings = Settings.on_free_ports(
            callout_timeout=None, concurrency=1, log_level="error", snapshot=None, flagsmith_config=config
        )
        plugin = built_in_config(settings) | {"posthog": {"enabled": False}}
        stack = kind(
            replace(settings, config=plugin),
            listeners={SERVICE: bench_stack.cluster(SERVICE)} | (listeners or {}),
            behind={SERVICE: free_port()},
            environments=environments,
        )
        with stack:
            yield stack


def request(path: str, *headers: str, key: str = CLIENT_KEY) -> Request:
    return Request(path, (f"{KEY_HEADER}: {key}", AGENT, *headers))


def identity(identifier: str | None = None) -> Request:
    body = IDENTITY if identifier is None else IDENTITY | {"identifier": identifier}
    asked = request(IDENTITIES, "Content-Type: application/json")
    return replace(asked, method="POST", body=json.dumps(body))


def of_this_filter(stack: BenchStack) -> list[Subject]:
    """What the filter answers, once it does."""
    text = b'"feature_state_value"'
    gzip, whole = request(FLAGS, ACCEPT_GZIP), request(WHOLE, ACCEPT_GZIP, key=SERVER_KEY)
    found = [
        Subject("flagsmith_flags", "edge", 200, (request(FLAGS),), text),
        Subject("flagsmith_flags_gzip", "edge", 200, (gzip,), text, gzipped=True),
        Subject("flagsmith_identity", "edge", 200, (identity(),), text),
        Subject("flagsmith_document_gzip", "edge", 200, (whole,), text, gzipped=True),
    ]
    for subject in found:
        wait_until_it_answers(stack, subject)
    etag = dict(ask(stack, "edge", request(FLAGS)).headers)["etag"]
    unchanged = request(FLAGS, f"If-None-Match: {etag}")
    return [*found, Subject("flagsmith_flags_304", "edge", 304, (unchanged,))]


def subjects(stack: BenchStack) -> list[Subject]:
    """Has the filters that only reply say what this filter says, and fails where the service says
    otherwise."""
    flags, gzip, one, whole, unchanged = of_this_filter(stack)
    compare(stack, [flags.requests[0], gzip.requests[0], whole.requests[0]])
    compare(stack, [identity(f"user-{number}") for number in range(COMPARED)])
    # A kept answer needs nothing else (src/wasm/tests/calls.rs).
    stand_ins = surface_subjects.stand_ins(stack, {"flags": flags, "flags_gzip": gzip})

    def of_service(model: Subject) -> Subject:
        return replace(model, name=model.name.replace("flagsmith", SERVICE), listener=SERVICE)

    return [
        *(one for one in stand_ins if not one.gzipped),
        flags,
        of_service(flags),
        *(one for one in stand_ins if one.gzipped),
        gzip,
        of_service(gzip),
        unchanged,
        one,
        of_service(one),
        whole,
        of_service(whole),
    ]


def compare(stack: BenchStack, requests: list[Request]) -> None:
    """Fails where filter and service do not say the same, but for the order of flags, which is random
    there."""
    for asked in requests:
        ours, theirs = (ask(stack, listener, asked) for listener in ("edge", SERVICE))
        texts = [plain(answer) for answer in (ours, theirs)]
        is_same = ours.status == theirs.status == 200 and ours.gzipped == theirs.gzipped
        is_same = is_same and len(texts[0]) == len(texts[1]) and same(*map(json.loads, texts))
        shared = {name for name, _ in theirs.headers}
        if not is_same or [one for one in ours.headers if one[0] in shared] != sorted_as(ours, theirs):
            raise StackError(f"filter and service differ at {asked.path}: {ours}\n{theirs}")


def sorted_as(ours: Answer, theirs: Answer) -> list[tuple[str, str]]:
    """The fields of `theirs`, in the order that they have in `ours`."""
    order = [name for name, _ in ours.headers]
    return sorted(theirs.headers, key=lambda field: order.index(field[0]) if field[0] in order else -1)


def prove_evaluated(stack: BenchStack, directory: Path) -> dict[str, Any]:
    """That each request for an identity is evaluated."""
    asked = Subject("flagsmith_identity", "edge", 200, (identity(),))
    return surface_subjects.prove(stack, SECTION, asked, "evaluated", directory)
