-- Lets PostHog's database tell flag-definitions-publisher of changes at once. Without these triggers the publisher
-- finds changes by its full reads.
--
--   psql -v ON_ERROR_STOP=1 "$DATABASE_URL" -f triggers.sql
--
-- For the owner of PostHog's tables, on the primary, with PostHog's schema first in the search_path. PostgreSQL 11 or
-- later. May be run again at any time; drop_triggers.sql takes everything away again.
--
-- A notification holds no secret: SHA-256 hashes of what a row held before, and the key of the row to read again.
-- A fault in here is a warning in the server's log, never an error in PostHog's own transaction. Columns are compared in
-- the function and not in WHEN, because a column that a trigger names can be neither dropped nor altered by a migration.
--
-- NOTIFY cannot be part of a prepared (two-phase) transaction, which PostHog does not use.

BEGIN;

-- Rather give up than make PostHog wait behind this.
SET LOCAL lock_timeout = '5s';

CREATE OR REPLACE FUNCTION flag_definitions_notify() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    subject CONSTANT text := TG_ARGV[0];
    old_id text;
    new_id text;
    held text[] := '{}';
    payload text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('flag_definitions', '{"read":"all"}');
        RETURN NULL;
    END IF;

    IF TG_OP = 'UPDATE' THEN
        CASE TG_ARGV[1]
        WHEN 'team' THEN
            IF ROW(OLD.id, OLD.api_token, OLD.secret_api_token, OLD.secret_api_token_backup, OLD.organization_id)
                IS NOT DISTINCT FROM
                ROW(NEW.id, NEW.api_token, NEW.secret_api_token, NEW.secret_api_token_backup, NEW.organization_id)
            THEN RETURN NULL; END IF;
        WHEN 'project_secret_key' THEN
            IF ROW(OLD.id, OLD.team_id, OLD.secure_value, OLD.scopes)
                IS NOT DISTINCT FROM ROW(NEW.id, NEW.team_id, NEW.secure_value, NEW.scopes)
            THEN RETURN NULL; END IF;
        WHEN 'personal_key' THEN
            IF ROW(OLD.id, OLD.secure_value, OLD.scopes, OLD.scoped_teams, OLD.scoped_organizations, OLD.user_id)
                IS NOT DISTINCT FROM
                ROW(NEW.id, NEW.secure_value, NEW.scopes, NEW.scoped_teams, NEW.scoped_organizations, NEW.user_id)
            THEN RETURN NULL; END IF;
        WHEN 'user' THEN
            IF ROW(OLD.id, OLD.is_active) IS NOT DISTINCT FROM ROW(NEW.id, NEW.is_active)
            THEN RETURN NULL; END IF;
        WHEN 'membership' THEN
            IF ROW(OLD.user_id, OLD.organization_id) IS NOT DISTINCT FROM ROW(NEW.user_id, NEW.organization_id)
            THEN RETURN NULL; END IF;
        END CASE;
    END IF;

    IF TG_OP <> 'INSERT' THEN
        CASE TG_ARGV[1]
        WHEN 'team' THEN
            old_id := OLD.id;
            held := ARRAY(
                SELECT encode(sha256(convert_to(token, 'UTF8')), 'hex')
                FROM unnest(ARRAY[OLD.api_token, OLD.secret_api_token, OLD.secret_api_token_backup]::text[]) AS token
                WHERE token <> '');
        WHEN 'project_secret_key', 'personal_key' THEN
            old_id := OLD.id;
            IF OLD.secure_value ~ '^sha256\$[0-9a-f]{64}$' THEN
                held := ARRAY[substr(OLD.secure_value, 8)];
            END IF;
        WHEN 'user' THEN
            old_id := OLD.id;
        WHEN 'membership' THEN
            old_id := OLD.user_id;
        END CASE;
    END IF;

    IF TG_OP <> 'DELETE' THEN
        IF TG_ARGV[1] = 'membership' THEN
            new_id := NEW.user_id;
        ELSE
            new_id := NEW.id;
        END IF;
    END IF;

    IF old_id IS NOT NULL THEN
        payload := json_build_object('read', subject, 'id', old_id, 'held', held)::text;
        -- The limit is 8000 bytes.
        IF octet_length(payload) > 7000 THEN
            payload := '{"read":"all"}';
        END IF;
        PERFORM pg_notify('flag_definitions', payload);
    END IF;
    IF new_id IS DISTINCT FROM old_id AND new_id IS NOT NULL THEN
        PERFORM pg_notify('flag_definitions', json_build_object('read', subject, 'id', new_id)::text);
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    -- Not the message: it may quote a row.
    RAISE WARNING 'flag_definitions_notify on %: SQLSTATE %', TG_TABLE_NAME, SQLSTATE;
    RETURN NULL;
END
$function$;

DO $install$
DECLARE
    entry record;
BEGIN
    FOR entry IN SELECT * FROM (VALUES
        ('posthog_team', 'team', 'team'),
        ('posthog_projectsecretapikey', 'project_secret_key', 'project_secret_key'),
        ('posthog_personalapikey', 'personal_key', 'personal_key'),
        ('posthog_user', 'user', 'user'),
        ('posthog_organizationmembership', 'user', 'membership')
    ) AS entries (table_name, subject, comparison)
    LOOP
        -- Old versions of PostHog have no project secret keys. Run this again after an upgrade.
        CONTINUE WHEN entry.table_name = 'posthog_projectsecretapikey' AND to_regclass(entry.table_name) IS NULL;
        EXECUTE format('DROP TRIGGER IF EXISTS flag_definitions_row ON %I', entry.table_name);
        EXECUTE format('DROP TRIGGER IF EXISTS flag_definitions_truncate ON %I', entry.table_name);
        EXECUTE format(
            'CREATE TRIGGER flag_definitions_row AFTER INSERT OR UPDATE OR DELETE ON %I '
            'FOR EACH ROW EXECUTE FUNCTION flag_definitions_notify(%L, %L)',
            entry.table_name, entry.subject, entry.comparison);
        EXECUTE format(
            'CREATE TRIGGER flag_definitions_truncate AFTER TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION flag_definitions_notify(%L)',
            entry.table_name, entry.subject);
    END LOOP;
END
$install$;

COMMIT;
