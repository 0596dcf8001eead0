"""Random documents and identities about which the filter and the SDKs agree.

Conditions and values of traits are those that mean the same to all of them; differences.py has the others.
What stands around conditions is of all kinds: nesting, priorities and their ties, variants, overrides.
"""

from __future__ import annotations

import random
import uuid
from typing import Any, NamedTuple

from models.flagsmith.documents import Json, condition, environment, identity, rule, segment, state

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -7,
    9007199254740991,
    0.5,
    2.5,
    "",
    "on",
    "zażółć",
    "18",
    "a b",
    "{}",
]
PLANS = ["pro", "basic", "team", "pro plus"]
ORDER = ["GREATER_THAN", "GREATER_THAN_INCLUSIVE", "LESS_THAN", "LESS_THAN_INCLUSIVE"]
EQUALITY = ["EQUAL", "NOT_EQUAL"]

# Property, operators, operands.
CONDITIONS: list[tuple[str | None, list[str], list[str | None]]] = [
    ("plan", EQUALITY + ORDER, PLANS),
    ("plan", ["IN"], ["pro,team", "basic", "free,pro plus"]),
    ("plan", ["CONTAINS", "NOT_CONTAINS"], ["ro", "a", "pro "]),
    ("plan", ["REGEX"], ["^p", "^(pro|team)$", "^[a-m]+$"]),
    ("age", EQUALITY + ORDER, ["17", "18", "40", "100"]),
    ("age", ["IN"], ["18,40", "17"]),
    ("age", ["MODULO"], ["2|0", "3|1", "5|2"]),
    ("score", EQUALITY + ORDER, ["1.5", "0.25", "7.75"]),
    ("score", ["MODULO"], ["0.5|0", "1|0.25"]),
    ("staff", EQUALITY, ["true", "false"]),
    ("app", ["EQUAL", *ORDER], ["1.2.3:semver", "1.10.0:semver", "2.0.0-rc.1:semver"]),
    *((name, ["IS_SET", "IS_NOT_SET"], [None]) for name in ("plan", "age", "score", "staff", "app")),
    ("", ["PERCENTAGE_SPLIT"], ["0", "10", "33.3", "50", "99.9", "100"]),
    (None, ["PERCENTAGE_SPLIT"], ["50"]),
    ("$.identity.key", ["PERCENTAGE_SPLIT"], ["25", "75"]),
    ("$.identity.traits.plan", ["PERCENTAGE_SPLIT"], ["25", "75"]),
    ("$.identity.traits.age", ["PERCENTAGE_SPLIT"], ["50"]),
    ("$.identity.identifier", ["CONTAINS", "NOT_CONTAINS"], ["1", "user"]),
    ("$.identity.identifier", ["IN"], ["user-1,user-2,zoë", "somebody else"]),
    ("$.identity.identifier", ["REGEX"], ["^user-[0-4]$"]),
    ("$.environment.name", EQUALITY, ["Production", "Staging"]),
    ("$.features.f1.enabled", EQUALITY, ["true", "false"]),
]

# Values of traits. What is no trait of these is tried in differences.py.
TRAITS: dict[str, list[Any]] = {
    "plan": PLANS,
    "age": [1, 17, 18, 19, 40, 41, 100, 123456],
    "score": [0.25, 1.25, 1.5, 7.75, -0.5],
    "staff": [True, False],
    "app": ["1.2.3", "1.2.4", "1.9.0", "1.10.0", "2.0.0-rc.1", "2.0.0", "none"],
    "unknown to all": ["x", 1, None],
}
IDENTIFIERS = [*(f"user-{n}" for n in range(12)), "zoë", "a b", "x@example.test", "0a", "UPPER"]


class Identity(NamedTuple):
    identifier: str
    traits: dict[str, Any]


def some_document(rng: random.Random, key: str) -> Json:
    """A document with up to 10 features, 8 segments and 4 identities that have overrides."""
    features = rng.sample(range(1, 100), rng.randint(3, 9)) + [1]
    features = list(dict.fromkeys(features))
    states = [some_state(rng, number) for number in features]
    # Ids whose order as text is that of numbers and of the document: ties are decided the same then.
    segments = [some_segment(rng, 100 + number, features) for number in range(rng.randint(1, 8))]
    overridden = rng.sample(IDENTIFIERS, rng.randint(0, 4))
    identities = [some_overrides(rng, identifier, features) for identifier in overridden]
    document = environment(key, states, segments, identities)
    document["project"]["server_key_only_feature_ids"] = rng.sample(features, rng.randint(0, 2))
    return document


def some_state(rng: random.Random, number: int, **fields: Any) -> Json:
    """A feature's state, with or without variants, whose hash is by number or by UUID."""
    fields["django_id"] = rng.choice([None, rng.randint(1, 5000)])
    fields["featurestate_uuid"] = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    if rng.random() < 0.4:
        fields["multivariate_feature_state_values"] = some_variants(rng)
    return state(number, rng.choice(VALUES), rng.random() < 0.7, **fields)


def some_variants(rng: random.Random) -> list[Json]:
    """Variants in any order; their ids decide, or their UUIDs where there are none."""
    with_ids = rng.random() < 0.7
    count = rng.randint(1, 4)
    ids = rng.sample(range(1, 1000), count)
    return [
        {
            "id": number if with_ids else None,
            "percentage_allocation": rng.choice([0, 5.5, 10, 20.0, 25, 100 / 3, 100.0 / count]),
            "multivariate_feature_option": {
                "id": number,
                "value": rng.choice([*VALUES, f"variant {number}"]),
            },
            "mv_fs_value_uuid": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        }
        for number in ids
    ]


def some_segment(rng: random.Random, number: int, features: list[int]) -> Json:
    rules = [some_rule(rng, 2) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    overridden = rng.sample(features, rng.randint(0, min(3, len(features))))
    priorities = [{"priority": rng.randint(0, 3)}, None]
    states = [
        some_state(rng, feature, feature_segment=rng.choices(priorities, [5, 1])[0]) for feature in overridden
    ]
    return segment(number, rules, states)


def some_rule(rng: random.Random, depth: int) -> Json:
    """A rule that nests so deep at most."""
    subrules = rng.choice([0, 0, 1, 2]) if depth else 0
    return rule(
        rng.choice(["ALL", "ANY", "ANY", "NONE"]),
        [some_condition(rng) for _ in range(rng.choice([0, 1, 1, 2, 3]))],
        [some_rule(rng, depth - 1) for _ in range(subrules)],
    )


def some_condition(rng: random.Random) -> Json:
    name, operators, operands = rng.choice(CONDITIONS)
    return condition(rng.choice(operators), name, rng.choice(operands))


def some_overrides(rng: random.Random, identifier: str, features: list[int]) -> Json:
    states = []
    for feature in rng.sample(features, rng.randint(0, min(3, len(features)))):
        # One that is neither a whole number nor a truth, which the Python SDK takes for each other.
        value = rng.choice([None, "", "mine", 0.5, 2.5])
        states.append(state(feature, value, rng.random() < 0.7))
    return identity(identifier, states)


def some_identities(rng: random.Random, document: Json, count: int) -> list[Identity]:
    """Identities, each of them once. Those with an override have no trait that is false, which Node drops."""
    special = {override["identifier"] for override in document["identity_overrides"]}
    names = rng.sample(IDENTIFIERS, min(count // 2, len(IDENTIFIERS)))
    names += [name for name in special if name not in names]
    names += [f"id-{rng.randint(0, 10**6)}-{n}" for n in range(count - len(names))]
    found = []
    for name in names:
        known = rng.sample(list(TRAITS), rng.randint(0, len(TRAITS)))
        traits = {key: rng.choice(TRAITS[key]) for key in known}
        if name in special:
            traits = {key: value for key, value in traits.items() if value is not False}
        found.append(Identity(name, traits))
    return found
