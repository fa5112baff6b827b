# A PostgreSQL with the contract of the official image that deploy/compose.yaml relies on, for machines without a registry.
ARG BASE
FROM ${BASE}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/* \
    && useradd --uid 10001 --no-create-home server && install -d -m 1777 /var/lib/postgresql/data && install -d -m 3777 /var/run/postgresql
ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin
COPY postgres-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/postgres-entrypoint.sh"]
