-- The tables of PostHog's database that flag-definitions-publisher reads, as Django makes them: types, constraints and
-- indexes are PostHog's; columns that do not matter here are left out, but for one of each table that changes often.

CREATE TABLE posthog_organization (
    id uuid PRIMARY KEY,
    name varchar(64) NOT NULL
);

CREATE TABLE posthog_user (
    id serial PRIMARY KEY,
    email varchar(254) NOT NULL UNIQUE,
    is_active boolean NOT NULL,
    last_login timestamptz
);

CREATE TABLE posthog_organizationmembership (
    id uuid PRIMARY KEY,
    level smallint NOT NULL,
    joined_at timestamptz NOT NULL DEFAULT now(),
    organization_id uuid NOT NULL REFERENCES posthog_organization (id) DEFERRABLE INITIALLY DEFERRED,
    user_id integer NOT NULL REFERENCES posthog_user (id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT unique_organization_membership UNIQUE (organization_id, user_id)
);
CREATE INDEX posthog_organizationmembership_organization_id ON posthog_organizationmembership (organization_id);
CREATE INDEX posthog_organizationmembership_user_id ON posthog_organizationmembership (user_id);

CREATE TABLE posthog_team (
    id serial PRIMARY KEY,
    organization_id uuid REFERENCES posthog_organization (id) DEFERRABLE INITIALLY DEFERRED,
    api_token varchar(200) NOT NULL UNIQUE,
    secret_api_token varchar(200) UNIQUE,
    secret_api_token_backup varchar(200) UNIQUE,
    name varchar(200) NOT NULL DEFAULT 'Default project',
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX posthog_team_organization_id ON posthog_team (organization_id);
CREATE INDEX posthog_team_api_token_like ON posthog_team (api_token varchar_pattern_ops);

CREATE TABLE posthog_personalapikey (
    id varchar(50) PRIMARY KEY,
    label varchar(40) NOT NULL,
    mask_value varchar(11),
    secure_value varchar(300) UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    scopes varchar(100)[],
    scoped_teams integer[],
    scoped_organizations varchar(100)[],
    user_id integer NOT NULL REFERENCES posthog_user (id) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX posthog_personalapikey_id_like ON posthog_personalapikey (id varchar_pattern_ops);
CREATE INDEX posthog_personalapikey_secure_value_like ON posthog_personalapikey (secure_value varchar_pattern_ops);
CREATE INDEX posthog_personalapikey_user_id ON posthog_personalapikey (user_id);

CREATE TABLE posthog_projectsecretapikey (
    id varchar(50) PRIMARY KEY,
    label varchar(40) NOT NULL,
    mask_value varchar(11),
    secure_value varchar(300) UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    scopes varchar(100)[],
    team_id integer NOT NULL REFERENCES posthog_team (id) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX posthog_projectsecretapikey_id_like ON posthog_projectsecretapikey (id varchar_pattern_ops);
CREATE INDEX posthog_projectsecretapikey_secure_value_like
    ON posthog_projectsecretapikey (secure_value varchar_pattern_ops);
CREATE INDEX posthog_projectsecretapikey_team_id ON posthog_projectsecretapikey (team_id);
