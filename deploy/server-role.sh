#!/bin/sh
# Create the role of the server in PostgreSQL, or set its password. `flask db upgrade` grants its privileges.
# The image of PostgreSQL runs this when it creates the database. For an existing database run it once:
# docker compose exec postgres sh /docker-entrypoint-initdb.d/server-role.sh
set -eu
psql --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'END'
\getenv password POSTGRES_SERVER_PASSWORD
SELECT 'CREATE ROLE clinic_app' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clinic_app') \gexec
ALTER ROLE clinic_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'password';
END
