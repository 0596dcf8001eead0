"""Source documents with any number of credentials, and definitions of a given size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from paths import ROOT

HOT_TEAMS = 10  # whose definitions are in Redis, and whom the requests of bench/scale.py are for
KEYS_PER_ORGANIZATION = 9


def token(team: int) -> str:
    return f"phc_bench_{team}"


def secret(team: int) -> str:
    return f"phs_bench_{team}"


def personal_key(number: int) -> str:
    return f"phx_bench_{number}"


def definitions_of_size(size: int, seed: int = 1) -> str:
    """The text of definitions of about so many bytes. Names and values differ, as in real life: they
    compress about six times."""
    flag = json.loads((ROOT / "envoy/samples/definitions/1.json").read_text())["flags"][0]
    random = Random(seed)
    each = len(json.dumps(flag)) + 200
    flags = [
        flag | {"id": number, "key": f"flag-{random.randbytes(8).hex()}", "name": random.randbytes(80).hex()}
        for number in range(max(1, size // each))
    ]
    return json.dumps({"cohorts": {}, "flags": flags, "group_type_mapping": {}}, sort_keys=True)


def write_document(path: Path, teams: int, keys: int = 0, keys_of_hot_teams: int = 0) -> None:
    """Teams 1 to `teams` with a secret each, and so many personal keys: the first ones are of people in the
    organizations of the first `HOT_TEAMS` teams, which are numbered in turn."""
    with path.open("w") as out:
        out.write('{"format":1,"teams":[\n')
        out.writelines(_separated(map(_team, range(1, teams + 1))))
        out.write('],"personal_keys":[\n')
        out.writelines(_separated(_personal_key(n, keys_of_hot_teams) for n in range(keys)))
        out.write("]}\n")


def hot_team_of(key: int) -> int:
    return key % HOT_TEAMS + 1


def _separated(records: Iterator[str]) -> Iterator[str]:
    for number, record in enumerate(records):
        yield f",\n{record}" if number else record


def _team(team: int) -> str:
    return (
        f'{{"id":{team},"api_token":"{token(team)}","organization_id":"{_organization(team)}",'
        f'"secret_token_sha256":["{_sha256(secret(team))}"]}}'
    )


def _personal_key(number: int, of_hot_teams: int) -> str:
    team = hot_team_of(number) if number < of_hot_teams else number // KEYS_PER_ORGANIZATION + 1
    return (
        f'{{"sha256":"{_sha256(personal_key(number))}","user_active":true,'
        f'"organization_ids":["{_organization(team)}"],"scopes":["feature_flag:read"]}}'
    )


def _organization(team: int) -> str:
    return f"0190d6f1-0000-7000-8000-{team:012x}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
