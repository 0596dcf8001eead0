"""A stack whose publisher follows flagd's definitions in files, and questions to it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.ofrep.recorded import DOCUMENTS, FLAGS
from stack.asking import Answer, ask
from stack.launcher import Stack
from stack.render import built_in_config
from stack.settings import Settings

# As many as a change needs to be seen by each worker, whoever gets which connection.
ASKED_IN_A_ROW = 12


@dataclass
class Evaluated:
    """A stack and the files that it follows."""

    stack: Stack
    folder: Path

    def name(self, source: str) -> str:
        """What a source is called by clients."""
        return str(self.folder / source)

    def ask(
        self,
        key: str = "",
        context: dict[str, Any] | None = None,
        selector: str = "",
        etag: str = "",
        **headers: str,
    ) -> Answer:
        """The answer to an evaluation: of all flags, or of the one with this key."""
        fields = {"content-type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        if selector:
            fields["flagd-selector"] = selector
        if etag:
            fields["if-none-match"] = etag
        body = json.dumps({"context": context or {}}).encode()
        return ask(self.stack.settings.edge_port, "POST", f"{FLAGS}/{key}" if key else FLAGS, fields, body)

    def value(self, key: str, context: dict[str, Any] | None = None, selector: str = "") -> Any:
        """A flag's value."""
        return self.ask(key, context, selector).json.get("value")

    def write(self, source: str, document: dict[str, Any] | str) -> None:
        """Puts a document in the place of the one that is there, at once."""
        write(self.folder / source, document)

    def replace(self, documents: list[dict[str, Any]]) -> None:
        """The same of all of them; returns when every worker knows. Something has to be different."""
        before = self.ask().headers["etag"]
        for document in documents:
            self.write(document["source"], document["document"])
        self.wait_for_change(before)

    def wait_for_change(self, before: str) -> None:
        """Returns when no worker has this tag for all flags any more."""

        def changed() -> bool:
            answers = (self.ask() for _ in range(ASKED_IN_A_ROW))
            return all(answer.headers.get("etag") not in (None, before) for answer in answers)

        self.stack.wait_until(changed)
        time.sleep(0.5)  # selections are published one after the other

    def wait_for(self, key: str, value: Any, selector: str = "") -> None:
        """Returns when every worker gives a flag this value."""

        def given() -> bool:
            return all(self.value(key, selector=selector) == value for _ in range(ASKED_IN_A_ROW))

        self.stack.wait_until(given)


def write(path: Path, document: dict[str, Any] | str) -> None:
    """Puts a document in the place of the one that is there, at once."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(document if isinstance(document, str) else json.dumps(document))
    os.replace(new, path)


def uri_of(folder: Path, sources: list[str]) -> str:
    return " ".join(f"file:{folder / source}" for source in sources)


@contextmanager
def evaluating(
    folder: Path,
    documents: list[dict[str, Any]] = DOCUMENTS,
    uri: str | None = None,
    settings: dict[str, Any] | None = None,
    **section: Any,
) -> Iterator[Evaluated]:
    """A stack that follows these documents. `uri`: instead of their files. `section`: of the plugin
    configuration's `ofrep`."""
    for document in documents:
        write(folder / document["source"], document["document"])
    uri = uri or uri_of(folder, [document["source"] for document in documents])
    chosen = Settings.on_free_ports(flagd_uri=uri, **(settings or {}))
    with Stack(replace(chosen, config=configured(chosen, **section))) as stack:
        yield Evaluated(stack, folder)


def configured(settings: Settings, **section: Any) -> dict[str, Any]:
    """The built-in plugin configuration with another section `ofrep`."""
    plugin = built_in_config(settings)
    return plugin | {"ofrep": plugin["ofrep"] | section}
