#!/usr/bin/env bash
# flagsmith 6.3.0 with flagsmith-flag-engine 11.1.1 (PyPI), Python 3.11, Linux x86-64.
#
# Two identities override the same feature, one with the number 1, the other with true. In local evaluation both get the
# value of whichever comes first in the document: identities are grouped by a tuple that has the value, and in Python
# 1 == True == 1.0. The same with 0 and false. flagsmith-nodejs 8.1.2 gives each its own value.
#
# Seen: number: 1, truth: 1; in the other order number: True, truth: True
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flagsmith==6.3.0 flagsmith-flag-engine==11.1.1
cat > try.py <<'END'
from flagsmith import Flagsmith
from flagsmith.offline_handlers import OfflineHandler


def state(value):
    return {
        "feature": {"id": 1, "name": "f", "type": "STANDARD"},
        "enabled": True,
        "feature_state_value": value,
        "featurestate_uuid": "00000000-0000-4000-8000-000000000001",
        "multivariate_feature_state_values": [],
    }


class Handler(OfflineHandler):
    def __init__(self, overrides):
        self.overrides = overrides

    def get_environment(self):
        return {
            "api_key": "k",
            "name": "n",
            "updated_at": "2026-01-01T00:00:00Z",
            "project": {"segments": []},
            "feature_states": [state("default")],
            "identity_overrides": [
                {"identifier": identifier, "identity_features": [state(value)]} for identifier, value in self.overrides
            ],
        }


def seen(*overrides):
    client = Flagsmith(offline_mode=True, offline_handler=Handler(overrides))
    values = {i: client.get_identity_flags(i).get_feature_value("f") for i in ("number", "truth")}
    return ", ".join(f"{identifier}: {value!r}" for identifier, value in values.items())


number, truth = ("number", 1), ("truth", True)
print(f"{seen(number, truth)}; in the other order {seen(truth, number)}")
END
seen=$(venv/bin/python try.py)
echo "$seen"
[[ $seen == 'number: 1, truth: 1; in the other order number: True, truth: True' ]] || {
  echo 'changed' >&2
  exit 1
}
