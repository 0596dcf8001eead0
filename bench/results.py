"""bench/results.json: each benchmark writes its own keys, or into objects, and leaves those of the others."""

from __future__ import annotations

import json
from typing import Any

from paths import RESULTS, ROOT, SCRATCH


def write(results: dict[str, Any], proves: bool = True, adds: bool = False) -> None:
    """What does not prove anything, for it was done in a hurry or in part, goes into .run/bench. `adds`:
    members of objects that are there already stay."""
    path = RESULTS if proves else SCRATCH / RESULTS.name
    before = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    if adds:
        results = {name: merged(before.get(name), value) for name, value in results.items()}
    path.write_text(json.dumps(before | results, indent=2) + "\n")
    print(f"written to {path.relative_to(ROOT)}")


def merged(before: Any, value: Any) -> Any:
    return before | value if isinstance(before, dict) and isinstance(value, dict) else value
