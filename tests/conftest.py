"""Real services for the tests that want them: one PostgreSQL and one Redis per session, started as `start` does.

A test that asks for none of these fixtures starts nothing. Each test gets a database of its own and an empty Redis.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis
from hypothesis import settings as hypothesis_settings

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.settings import PREFIX, Settings, load_settings

# The time of one example depends more on the machine's other work than on our code.
hypothesis_settings.register_profile("default_without_deadline", deadline=None)
hypothesis_settings.load_profile("default_without_deadline")

_SHM = "/dev/shm"
_ROOM_BYTES = 4 << 30
"""Far more than the databases of a whole session take."""

_PROCESS_BYTES = 2 << 30
"""What one of several processes that share the tests needs, with the services and workers that it starts."""

_database_numbers = itertools.count(1)

_FIRST = (
    # Its trials are forked from this process, whose memory counts as theirs where they touch it: while it is small.
    "integration/test_watchdog.py",
    "browser/",
    "integration/test_lifecycle.py",
    "integration/test_worker_node.py",
    "integration/test_faults.py",
    "integration/test_start.py",
    "chaos/test_chaos.py",
    "integration/test_trainer.py",
    "integration/test_models_hsmn.py",
    "guide/test_complete_example.py",
    "integration/test_trainer_resume.py",
    "integration/",
    "deploy/",
    "guide/",
    "contract/test_samplers.py",
    "contract/",
)
"""Where several processes share the tests, the longest file must not be the last: by the time that each takes, with
its waiting. What is not named comes last, in files of some seconds each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; within a file, its own order."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, place in enumerate(_FIRST) if item.nodeid.startswith(f"tests/{place}")), len(_FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Most tests wait: one process more than there are cores, while each has its memory."""
    return max(1, min((os.cpu_count() or 1) + 1, psutil.virtual_memory().available // _PROCESS_BYTES))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_person_who_runs_the_tests() -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    # Nor of their terminal: what a test shows depends on the console that the test gives it.
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "TTY_COMPATIBLE"):
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm-256color"


@pytest.fixture(scope="session", autouse=True)
def _one_thread_for_tensorflow() -> None:
    """For models this small its threads cost a quarter more CPU time, and several processes share the cores."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture(scope="module", autouse=True)
def _what_outlives_a_module_is_no_garbage() -> None:
    """Keras and the memory guard collect garbage often: no collection need look again at what other modules left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The session's services. Tests that kill services start their own."""
    with new_stack() as stack:
        yield stack


@contextmanager
def new_stack() -> Iterator[Stack]:
    """Services in a home of their own, which is gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="highnoon-tests-", dir=_in_memory()))
    try:
        with Stack(home) as stack:
            yield stack
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _in_memory() -> str | None:
    """Where no commit and no new database waits for a disk; None where that has not the room."""
    if os.access(_SHM, os.W_OK) and shutil.disk_usage(_SHM).free >= _ROOM_BYTES:
        return _SHM
    return None


@pytest.fixture
def postgres_url(stack: Stack) -> Iterator[str]:
    """The address of an empty database; it is dropped afterwards, also where a client is still connected."""
    with empty_database(stack) as url:
        yield url


@contextmanager
def empty_database(stack: Stack, *, template: str | None = None) -> Iterator[str]:
    """The same for fixtures that live longer than a test; with a `template` it is a copy of that database."""
    name = f"test_{next(_database_numbers)}"
    execute(stack, f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY FILE_COPY" if template else ""))
    try:
        yield f"{stack.database_url.rsplit('/', 1)[0]}/{name}"
    finally:
        execute(stack, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(stack: Stack) -> str:
    """The address of an empty Redis."""
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    return stack.redis_url


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings without addresses and with short periods; `load_settings({}, **SHORT_PERIODS, ...)` makes others."""
    return load_settings({}, home=tmp_path / "home", **SHORT_PERIODS)


SHORT_PERIODS: dict[str, Any] = {
    "lease_s": 2.0,
    "renew_s": 0.4,
    "presence_s": 0.5,
    "tick_s": 0.1,
    "leader_ttl_s": 1.0,
    "redispatch_s": 2.0,
    "drain_s": 5.0,
    "kill_grace_s": 0.5,
    "preload": (),
}
"""Short enough to watch a lease expire, long enough for a busy machine."""


def execute(stack: Stack, statement: str) -> None:
    """A statement of a superuser of these services, outside of a transaction."""
    with closing(psycopg2.connect(driverless(stack.database_url))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def driverless(url: str) -> str:
    """An address as psycopg2 takes it."""
    return url.replace("+psycopg2", "", 1)
