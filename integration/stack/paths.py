"""Where things are in the working copy."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INTEGRATION = ROOT / "integration"
SAMPLES = ROOT / "envoy/samples"
SAMPLE_SNAPSHOT = SAMPLES / "snapshot.json"
SAMPLE_FLAGSMITH_CONFIG = SAMPLES / "flagsmith/config.json"
SAMPLE_FLAGS = SAMPLES / "ofrep/flags.json"
LOCAL_CONFIG = ROOT / "filter-config/examples/local.json"
WASM = ROOT / "target/wasm32-wasip1/release/flag_definitions_filter.wasm"
FAULTS_WASM = ROOT / "target/faults/wasm32-wasip1/release/flag_definitions_filter.wasm"
POSTHOG_WASM = ROOT / "target/posthog/wasm32-wasip1/release/flag_definitions_filter.wasm"
PUBLISHER = ROOT / "target/release/flag-definitions-publisher"
