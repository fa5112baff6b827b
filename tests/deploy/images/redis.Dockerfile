# Debian's Redis, which carries the fixes of its security team, for machines without a registry.
ARG BASE
FROM ${BASE}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* && install -d -m 1777 /data
WORKDIR /data
