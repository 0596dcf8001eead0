"""Where things are. Imported before the modules of integration/, which it lets be found."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results.json"
PICTURES = ROOT / "docs"
# Of runs that prove nothing: shortened ones, or of a few subjects.
SCRATCH = ROOT / ".run/bench"
FILTERS = ROOT / "target/wasm32-wasip1/release/bench_filters.wasm"
SERVICE = ROOT / "target/release/bench-service"
EDGE_PROXY = ROOT / "target/release/bench-edge-proxy"
FLAGD = ROOT / "target/peers/flagd/flagd"
OHA = ROOT / ".tools/bin/oha"

sys.path.insert(0, str(ROOT / "integration"))
