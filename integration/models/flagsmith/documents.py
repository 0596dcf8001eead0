"""Environment documents, and what they are made of."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]


def state(number: int, value: Any, enabled: bool = True, **fields: Any) -> Json:
    """A feature's state. `fields` replace or add members."""
    return {
        "feature": {"id": number, "name": f"f{number}", "type": "STANDARD"},
        "enabled": enabled,
        "feature_state_value": value,
        "multivariate_feature_state_values": [],
        "featurestate_uuid": str(uuid.UUID(int=number)),
        "django_id": None,
        "segment_id": None,
        "feature_segment": None,
    } | fields


def condition(operator: str, name: str | None, value: str | None) -> Json:
    return {"operator": operator, "property_": name, "value": value}


def rule(kind: str, conditions: Iterable[Json] = (), rules: Iterable[Json] = ()) -> Json:
    return {"type": kind, "conditions": list(conditions), "rules": list(rules)}


def segment(number: int, rules: list[Json], states: list[Json]) -> Json:
    return {"id": number, "name": f"segment {number}", "rules": rules, "feature_states": states}


def identity(identifier: str, states: list[Json], traits: Json | None = None) -> Json:
    """What a document has of an identity with overrides."""
    return {
        "identifier": identifier,
        "identity_uuid": str(uuid.UUID(int=len(identifier))),
        "created_date": "2026-01-02T03:04:05.678901+00:00",
        "environment_api_key": "pub",
        "django_id": None,
        "identity_traits": [{"trait_key": k, "trait_value": v} for k, v in (traits or {}).items()],
        "identity_features": states,
    }


def environment(key: str, states: list[Json], segments: list[Json], identities: list[Json] = []) -> Json:  # noqa: B006
    """A document. `key`: the client-side key."""
    organisation = {
        "id": 1,
        "name": "Acme",
        "feature_analytics": False,
        "stop_serving_flags": False,
        "persist_trait_data": True,
    }
    return {
        "id": 1,
        "api_key": key,
        "name": "Production",
        "updated_at": "2026-05-04T03:02:01.654321+00:00",
        "project": {
            "id": 1,
            "name": "Aurora",
            "organisation": organisation,
            "hide_disabled_flags": False,
            "server_key_only_feature_ids": [],
            "segments": segments,
        },
        "feature_states": states,
        "identity_overrides": identities,
    }
