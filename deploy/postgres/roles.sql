-- The two roles of HighNoon in the database `highnoon`. Neither is a superuser or may make roles or databases.
--
--   highnoon_coordinator  owns the database and its tables: coordinator, dashboard, command line
--   highnoon_worker       reads and writes rows; makes, changes, empties and drops no table, deletes no row
--
-- Run once by a superuser, connected to an empty database `highnoon`. The passwords are read from files in :secrets
-- (default /run/secrets), so that they stand on no command line:
--
--   createdb highnoon && psql -d highnoon -v ON_ERROR_STOP=1 -v secrets="$PWD/deploy/secrets" -f deploy/postgres/roles.sql

\if :{?secrets}
\else
    \set secrets /run/secrets
\endif
\set coordinator_password `cat :secrets/postgres_coordinator`
\set worker_password `cat :secrets/postgres_worker`

-- A password that could not be read would be an empty one, and PostgreSQL takes that for none at all.
SELECT :'coordinator_password' = '' OR :'worker_password' = '' AS is_missing \gset
\if :is_missing
    DO $$ BEGIN
        RAISE EXCEPTION 'no passwords: make them by python -m coordinator init-deploy, and name their folder: -v secrets=FOLDER';
    END $$;
    \quit
\endif

BEGIN;
-- In no log, even where statements are logged.
SET LOCAL log_statement = 'none';
SET LOCAL log_min_error_statement = 'panic';
CREATE ROLE highnoon_coordinator LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'coordinator_password';
CREATE ROLE highnoon_worker LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'worker_password';
-- What every connection asks for by itself, and loses behind PgBouncer. Long readings are the coordinator's role's alone.
ALTER ROLE highnoon_coordinator SET statement_timeout = '120s';
ALTER ROLE highnoon_coordinator SET lock_timeout = '5s';
ALTER ROLE highnoon_coordinator SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE highnoon_worker SET statement_timeout = '10s';
ALTER ROLE highnoon_worker SET lock_timeout = '5s';
ALTER ROLE highnoon_worker SET idle_in_transaction_session_timeout = '10s';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DATABASE :"DBNAME" OWNER TO highnoon_coordinator;
ALTER SCHEMA public OWNER TO highnoon_coordinator;
GRANT CONNECT ON DATABASE :"DBNAME" TO highnoon_worker;
GRANT USAGE ON SCHEMA public TO highnoon_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE highnoon_coordinator IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE ON TABLES TO highnoon_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE highnoon_coordinator IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO highnoon_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE highnoon_coordinator IN SCHEMA public
    GRANT EXECUTE ON FUNCTIONS TO highnoon_worker;
COMMIT;
