"""PostHog's tables in a PostgreSQL, and what happens to them: keys are made, and people leave."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from models.posthog.endpoint import PersonalKey, ProjectKey, State, Team, sha256
from postgres import READER, READER_PASSWORD, Server
from stack.paths import INTEGRATION, ROOT

TABLES = INTEGRATION / "posthog.sql"
TRIGGERS = ROOT / "publisher/sql/triggers.sql"


@contextmanager
def database(server: Server, triggers: bool = True, like: Database | None = None) -> Iterator[Database]:
    """A new database with PostHog's tables; `like` another one, with all of its rows and triggers."""
    name = f"posthog_{uuid.uuid4().hex[:8]}"
    if like:
        like.disconnect()  # a template must have no connections
    with server.connect("postgres") as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {like.name if like else 'template1'}")
    new = Database(server, name)
    try:
        if not like:
            new.create_tables()
            if triggers:
                new.install_triggers()
        yield new
    finally:
        new.disconnect()
        with server.connect("postgres") as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass
class Database:
    """One database of PostHog. Every change is committed when the method returns."""

    server: Server
    name: str
    _connection: psycopg.Connection | None = None

    @property
    def url(self) -> str:
        """For the publisher: a user who may only read."""
        return f"postgresql://{READER}:{READER_PASSWORD}@127.0.0.1:{self.server.port}/{self.name}"

    def execute(self, statement: str, *values: Any) -> psycopg.Cursor:
        if self._connection is None or self._connection.closed:
            self._connection = self.server.connect(self.name)
        return self._connection.execute(statement, values or None)

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def create_tables(self) -> None:
        self.execute(TABLES.read_text())
        self.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}")

    def install_triggers(self) -> None:
        self.execute(TRIGGERS.read_text())

    # === Rows one by one ===

    def put(self, state: State) -> None:
        """Adds all of a state. A user has one personal key."""
        for team in state.teams:
            self.add_team(team)
        for project_key in state.project_keys:
            self.add_project_key(project_key)
        for personal_key in state.personal_keys:
            self.add_personal_key(personal_key)

    def add_team(self, team: Team) -> None:
        if team.organization:
            self.add_organization(team.organization)
        self.execute(
            "INSERT INTO posthog_team (id, organization_id, api_token, secret_api_token,"
            " secret_api_token_backup) VALUES (%s, %s, %s, %s, %s)",
            team.id,
            team.organization,
            team.token,
            team.secret,
            team.backup,
        )

    def rotate_secret(self, team_id: int, secret: str) -> None:
        """As PostHog does: the old one goes on as the backup."""
        self.execute(
            "UPDATE posthog_team SET secret_api_token_backup = secret_api_token, secret_api_token = %s"
            " WHERE id = %s",
            secret,
            team_id,
        )

    def drop_backup(self, team_id: int) -> None:
        self.execute("UPDATE posthog_team SET secret_api_token_backup = NULL WHERE id = %s", team_id)

    def rename_token(self, team_id: int, token: str) -> None:
        """PostHog's "reset project API key"."""
        self.execute("UPDATE posthog_team SET api_token = %s WHERE id = %s", token, team_id)

    def delete_team(self, team_id: int) -> None:
        self.execute("DELETE FROM posthog_projectsecretapikey WHERE team_id = %s", team_id)
        self.execute("DELETE FROM posthog_team WHERE id = %s", team_id)

    def add_project_key(self, key: ProjectKey) -> None:
        self.execute(
            "INSERT INTO posthog_projectsecretapikey (id, team_id, label, secure_value, scopes)"
            " VALUES (%s, %s, %s, %s, %s)",
            key_id(key.secret),
            key.team_id,
            key_id(key.secret),  # unique within a team
            f"sha256${sha256(key.secret)}",
            None if key.scopes is None else list(key.scopes),
        )

    def delete_project_key(self, secret: str) -> None:
        self.execute("DELETE FROM posthog_projectsecretapikey WHERE id = %s", key_id(secret))

    def add_personal_key(self, key: PersonalKey) -> int:
        """With a user of its own, whose id is returned."""
        user_id = self.add_user(key.user_active, key.organizations)
        self.execute(
            "INSERT INTO posthog_personalapikey"
            " (id, user_id, label, secure_value, scopes, scoped_teams, scoped_organizations)"
            " VALUES (%s, %s, 'key', %s, %s, %s, %s)",
            key_id(key.key),
            user_id,
            f"sha256${sha256(key.key)}",
            None if key.scopes is None else list(key.scopes),
            None if key.scoped_teams is None else list(key.scoped_teams),
            None if key.scoped_organizations is None else list(key.scoped_organizations),
        )
        return user_id

    def roll_personal_key(self, old: str, new: str) -> None:
        """PostHog's "roll": the same row with another secret."""
        self.execute(
            "UPDATE posthog_personalapikey SET secure_value = %s WHERE id = %s",
            f"sha256${sha256(new)}",
            key_id(old),
        )

    def delete_personal_key(self, key: str) -> None:
        self.execute("DELETE FROM posthog_personalapikey WHERE id = %s", key_id(key))

    def add_user(self, active: bool = True, organizations: Iterable[str] = ()) -> int:
        row = self.execute(
            "INSERT INTO posthog_user (email, is_active) VALUES (%s, %s) RETURNING id",
            f"{uuid.uuid4().hex}@example.com",
            active,
        ).fetchone()
        for organization in organizations:
            self.add_organization(organization)
            self.add_membership(row[0], organization)
        return row[0]

    def set_active(self, user_id: int, active: bool) -> None:
        self.execute("UPDATE posthog_user SET is_active = %s WHERE id = %s", active, user_id)

    def add_organization(self, organization: str) -> None:
        self.execute(
            "INSERT INTO posthog_organization (id, name) VALUES (%s, 'Example') ON CONFLICT DO NOTHING",
            organization,
        )

    def add_membership(self, user_id: int, organization: str) -> None:
        self.execute(
            "INSERT INTO posthog_organizationmembership (id, level, organization_id, user_id)"
            " VALUES (%s, 1, %s, %s)",
            uuid.uuid4(),
            organization,
            user_id,
        )

    def remove_membership(self, user_id: int, organization: str) -> None:
        self.execute(
            "DELETE FROM posthog_organizationmembership WHERE user_id = %s AND organization_id = %s",
            user_id,
            organization,
        )

    # === Many rows ===

    def fill(self, teams: int, personal_keys: int) -> None:
        """Adds so many teams with a secret each, and keys, in one statement a table. `filled_team(n)` and
        `filled_key(n)`, from 1 on, are their tokens; ten teams share an organization, three keys a user."""
        organizations, users = -(-teams // 10), -(-personal_keys // 3)
        self.execute(
            "INSERT INTO posthog_organization (id, name) SELECT"
            f" {_ORGANIZATION.format('n')}, 'Filled' FROM generate_series(0, {organizations}) n"
        )
        self.execute(
            "INSERT INTO posthog_team (id, organization_id, api_token, secret_api_token) SELECT"
            f" {FILLED} + n, {_ORGANIZATION.format('n / 10')}, 'phc_filled_' || n, 'phs_filled_' || n"
            f" FROM generate_series(1, {teams}) n"
        )
        self.execute(
            "INSERT INTO posthog_user (id, email, is_active) SELECT"
            f" {FILLED} + n, 'filled-' || n || '@example.com', true FROM generate_series(0, {users}) n"
        )
        self.execute(
            "INSERT INTO posthog_organizationmembership (id, level, organization_id, user_id) SELECT"
            f" gen_random_uuid(), 1, {_ORGANIZATION.format(f'n % {organizations}')}, {FILLED} + n"
            f" FROM generate_series(0, {users}) n"
        )
        self.execute(
            "INSERT INTO posthog_personalapikey (id, user_id, label, secure_value) SELECT"
            f" 'filled-' || n, {FILLED} + n / 3, 'key',"
            " 'sha256$' || encode(sha256(convert_to('phx_filled_' || n, 'UTF8')), 'hex')"
            f" FROM generate_series(1, {personal_keys}) n"
        )
        self.execute("ANALYZE")


FILLED = 1_000_000  # ids of what `fill` adds are above
_ORGANIZATION = "('00000000-0000-4000-8000-' || lpad(({})::text, 12, '0'))::uuid"


def filled_organization(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def filled_team(number: int) -> Team:
    organization = filled_organization(number // 10)
    return Team(FILLED + number, f"phc_filled_{number}", organization, f"phs_filled_{number}")


def filled_key(number: int, teams: int) -> PersonalKey:
    """A key of a database with so many filled teams."""
    organization = filled_organization(number // 3 % -(-teams // 10))
    return PersonalKey(f"phx_filled_{number}", (organization,))


def team_of_filled_key(key: PersonalKey) -> Team:
    """One of the teams that it may read."""
    return filled_team(int(key.organizations[0][-12:]) * 10 or 1)


def key_id(secret: str) -> str:
    """The primary key that a row gets here."""
    return sha256(secret)[:32]
