#!/bin/bash
# As the official image does on an empty data folder: a cluster, a database, the scripts of /docker-entrypoint-initdb.d.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    PGPASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
    export PGPASSWORD
    eval "initdb -D '$PGDATA' --username=postgres --pwfile=<(echo \"\$PGPASSWORD\") $POSTGRES_INITDB_ARGS"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    psql -U postgres -d postgres -v ON_ERROR_STOP=1 -c "CREATE DATABASE $POSTGRES_DB"
    for script in /docker-entrypoint-initdb.d/*.sql; do
        psql -U postgres -d "$POSTGRES_DB" -v ON_ERROR_STOP=1 --no-psqlrc -f "$script"
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
fi
exec "$@" -c listen_addresses='*'
