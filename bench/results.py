"""bench/results.json: each benchmark writes its own keys and leaves those of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results.json"


def write(results: dict[str, Any]) -> None:
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(before | results, indent=2) + "\n")
    print(f"written to {RESULTS.relative_to(ROOT)}")
