#!/bin/sh
# Makes the cluster at the first start, with the user, password and database of the environment.
set -eu
as_postgres="setpriv --reuid postgres --regid postgres --init-groups --inh-caps=-all"
chown postgres:postgres "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    chown postgres /tmp/password
    $as_postgres initdb --username "$POSTGRES_USER" --pwfile /tmp/password --auth-local trust --auth-host scram-sha-256
    rm /tmp/password
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | $as_postgres postgres --single -D "$PGDATA" postgres
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec $as_postgres "$@" -c listen_addresses='*'
