#!/usr/bin/env bash
# flagsmith 6.3.0 with flagsmith-flag-engine 11.1.1 (PyPI), Python 3.11, Linux x86-64.
#
# Identities have an override each, and evaluation is local. Where an identifier is written like a number with zeros before it, or
# with a fraction, its override is never applied: "007", "0171234567", "1.5". "007" gets the one of "7" instead. Overrides are found
# by a condition IN on `$.identity.identifier`, whose value becomes int or float first, and 7 as text is not "007".
# flagsmith-nodejs 8.1.2 applies all of them.
#
# Seen: override by identity: a7 a7, 7 7, 007 7, 0171234567 none, 1.5 none, 1.50 none
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flagsmith==6.3.0 flagsmith-flag-engine==11.1.1
cat > try.py <<'END'
from flagsmith import Flagsmith
from flagsmith.offline_handlers import OfflineHandler

IDENTIFIERS = ["a7", "7", "007", "0171234567", "1.5", "1.50"]


def state(value):
    uuid = "00000000-0000-4000-8000-000000000001"
    return {
        "feature": {"id": 1, "name": "f", "type": "STANDARD"},
        "enabled": True,
        "feature_state_value": value,
        "featurestate_uuid": uuid,
        "multivariate_feature_state_values": [],
    }


class Handler(OfflineHandler):
    def get_environment(self):
        return {
            "api_key": "k",
            "name": "n",
            "updated_at": "2026-01-01T00:00:00Z",
            "project": {"segments": []},
            "feature_states": [state("none")],
            "identity_overrides": [
                {"identifier": identifier, "identity_features": [state(identifier)]} for identifier in IDENTIFIERS
            ],
        }


client = Flagsmith(offline_mode=True, offline_handler=Handler())
values = {i: client.get_identity_flags(i).get_feature_value("f") for i in IDENTIFIERS}
print(", ".join(f"{i} {value}" for i, value in values.items()))
END
seen=$(venv/bin/python try.py)
echo "override by identity: $seen"
[[ $seen == 'a7 a7, 7 7, 007 7, 0171234567 none, 1.5 none, 1.50 none' ]] || {
  echo 'changed' >&2
  exit 1
}
