"""A stack whose publisher follows a stand-in for Flagsmith, and questions to it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.flagsmith.recorded import DOCUMENT
from models.flagsmith.upstream import PROXY_KEY, Upstream, running, write_configuration
from stack.asking import Answer, ask
from stack.launcher import Stack
from stack.render import built_in_config
from stack.settings import Settings

CLIENT_KEY, SERVER_KEY = "pub.client.7Qm2", "ser.pub.k9Rt"
FLAGS, IDENTITIES, WHOLE = "/api/v1/flags/", "/api/v1/identities/", "/api/v1/environment-document/"


@dataclass
class Followed:
    """A stack and the Flagsmith that it follows."""

    stack: Stack
    upstream: Upstream
    config: Path

    def ask(
        self,
        path: str = FLAGS,
        key: str = CLIENT_KEY,
        method: str = "GET",
        body: bytes | None = None,
        **headers: str,
    ) -> Answer:
        fields = {"X-Environment-Key": key} if key else {}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.stack.settings.edge_port, method, path, fields, body)

    def identify(self, body: bytes, **headers: str) -> Answer:
        return self.ask(
            IDENTITIES, method="POST", body=body, **{"Content_Type": "application/json"} | headers
        )

    def value(self, name: str) -> Any:
        """The value of a flag without an identity."""
        return self.ask(f"{FLAGS}?feature={name}").json["feature_state_value"]

    def change(self, name: str, value: Any) -> None:
        """Changes the value of a flag at the upstream."""
        document = copy.deepcopy(self.upstream.documents[SERVER_KEY])
        for state in document["feature_states"]:
            if state["feature"]["name"] == name:
                state["feature_state_value"] = value
        self.upstream.documents[SERVER_KEY] = document


@contextmanager
def following(folder: Path, **section: Any) -> Iterator[Followed]:
    """A stack that follows the recorded environment. `section`: of the plugin configuration's `flagsmith`."""
    upstream = Upstream({SERVER_KEY: copy.deepcopy(DOCUMENT)})
    with running(upstream):
        configuration = upstream.configuration({SERVER_KEY: CLIENT_KEY})
        with followed_by(folder, upstream, configuration, flagsmith=section) as followed:
            yield followed


@contextmanager
def reported(folder: Path, usage: dict[str, Any]) -> Iterator[Followed]:
    """A stack that follows the recorded environment because it is listed for a proxy key, and reports often.
    `usage`: section of the plugin configuration."""
    document = copy.deepcopy(DOCUMENT)
    upstream = Upstream({SERVER_KEY: document}, listed={SERVER_KEY: CLIENT_KEY})
    with running(upstream):
        fields = {"proxy_key": PROXY_KEY, "usage_flush_interval_seconds": 1}
        configuration = upstream.configuration({}, **fields)
        with followed_by(folder, upstream, configuration, usage=usage) as followed:
            yield followed


@contextmanager
def followed_by(
    folder: Path, upstream: Upstream, configuration: dict[str, Any], **sections: dict[str, Any]
) -> Iterator[Followed]:
    """A stack whose publisher has this configuration. `sections`: what differs in those of the plugin's."""
    config = write_configuration(folder / "edge.json", configuration)
    settings = Settings.on_free_ports(flagsmith_config=config)
    plugin = built_in_config(settings)
    for name, section in sections.items():
        plugin[name] = plugin.get(name, {}) | section
    with Stack(replace(settings, config=plugin)) as stack:
        followed = Followed(stack, upstream, config)
        stack.wait_until(lambda: followed.ask().status == 200)
        yield followed
