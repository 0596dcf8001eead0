-- Takes away what triggers.sql installed. The publisher then finds changes by its full reads.
--
--   psql -v ON_ERROR_STOP=1 "$DATABASE_URL" -f drop_triggers.sql

BEGIN;

SET LOCAL lock_timeout = '5s';

-- With the function go the triggers that call it, and nothing else can depend on it.
DROP FUNCTION IF EXISTS flag_definitions_notify() CASCADE;

COMMIT;
