"""The embedded stack: when PostgreSQL and Redis of a home run, who owns them, and how other commands find them.

`start` holds a `Stack` while it runs; a command that only reads uses `serving_database`, which joins the running stack
or starts PostgreSQL for its own duration. How a service is run is the business of `services`; workers, web UI and
Flower are not services of this kind.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from typing_extensions import Self

from highnoon.coordinator.local.owned_process import wait_until
from highnoon.coordinator.local.postgres_server import Postgres
from highnoon.coordinator.local.redis_server import Redis
from highnoon.shared.domain.errors import EmbeddedServiceError, InvariantBroken, UnknownStudy
from highnoon.shared.runtime.data_dir import START, Holder, Home, Running, attach, living_holder
from highnoon.shared.runtime.processes import identify

COMMAND = "a short command"
_PATIENCE_S = 60.0


class HomeLock:
    """The right to run the services of one home. Not to be held across a fork: the child would hold it too."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._fd: int | None = None

    @property
    def is_held(self) -> bool:
        return self._fd is not None

    def try_acquire(self, purpose: str) -> bool:
        """Takes the lock if it is free, and records what for. Raises EmbeddedServiceError when the home is unusable."""
        self._home.prepare()
        fd = os.open(self._home.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        self._record(purpose, ready=False)
        return True

    def announce(self, purpose: str) -> None:
        """Records for others that the services are ready: from now on `data_dir.attach` finds them."""
        self._record(purpose, ready=True)

    def release(self) -> None:
        """Gives the home back. Harmless when it is not held."""
        if self._fd is not None:
            self._home.save(replace(self._home.load(), holder=None))
            os.close(self._fd)
            self._fd = None

    def _record(self, purpose: str, *, ready: bool) -> None:
        me = identify(os.getpid())
        if me is None or self._fd is None:
            raise InvariantBroken("only the living holder of a home's lock may record itself")
        self._home.save(replace(self._home.load(), holder=Holder(process=me, purpose=purpose, ready=ready)))


class Stack:
    """PostgreSQL and Redis of one home, owned by this process: they end with it, whatever ends it.

    Start it from the main thread: the kernel ends the services when the thread that started them is gone.
    """

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self.postgres = Postgres(self.home)
        self.redis = Redis(self.home)
        self._lock = HomeLock(self.home)

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        return self.redis.url

    def start(self) -> None:
        """Returns when both answer. Raises EmbeddedServiceError, naming who runs this home already or what failed."""
        _acquire(self._lock, self.home, START)
        try:
            self.postgres.start()
            self.redis.start()
            self._lock.announce(START)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends both in order and gives the home back. Harmless when nothing runs."""
        self.redis.stop()
        self.postgres.stop()
        self._lock.release()

    def heal(self) -> tuple[str, ...]:
        """Starts again, at its old address, what has died; returns its names. Raises as `start` does."""
        dead = [service for service in (self.postgres, self.redis) if not service.is_alive]
        for service in dead:
            service.start()
        return tuple(service.name for service in dead)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def serving_database(home: Path, *, create: bool = False) -> Iterator[str]:
    """The address of the home's database: of the running stack, else PostgreSQL runs inside this context only.

    Raises UnknownStudy when nothing was ever run in this home, unless `create` makes its database;
    EmbeddedServiceError when it cannot be started.
    """
    place = Home(home)
    if not create and not place.has_database:
        raise UnknownStudy(f"{place.root} holds no studies: nothing was started there yet, or HIGHNOON_HOME is another")
    lock = HomeLock(place)
    running = wait_until(lambda: attach(home) or lock.try_acquire(COMMAND), _PATIENCE_S)
    if not running:
        raise _held(place)
    if isinstance(running, Running):
        yield running.database_url
        return
    try:
        with Postgres(place) as postgres:
            yield postgres.url
    finally:
        lock.release()


def _acquire(lock: HomeLock, home: Home, purpose: str) -> None:
    """Waits for a short command to end, but not for another `start`."""

    def another_start() -> bool:
        holder = living_holder(home)
        return holder is not None and holder.purpose == START

    if not wait_until(lambda: lock.try_acquire(purpose) or another_start(), _PATIENCE_S) or not lock.is_held:
        raise _held(home)


def _held(home: Home) -> EmbeddedServiceError:
    holder = living_holder(home)
    who = f"pid {holder.process.pid} ({holder.purpose})" if holder else "another process"
    return EmbeddedServiceError(
        f"{home.root} is in use by {who}. Use that one, end it, or set HIGHNOON_HOME to another folder."
    )
