"""`coordinator doctor`: every setting with its source, every service with its answer. Changes nothing."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from highnoon.coordinator.cli.command_io import is_embedded, why_nothing_starts
from highnoon.coordinator.cli.tables import aligned
from highnoon.coordinator.local.postgres_server import postgres_binaries
from highnoon.coordinator.local.redis_server import redis_binary
from highnoon.shared.domain.errors import HighNoonError, ServiceUnavailable
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.data_dir import Home, attach
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.runtime.terminal import say
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes

_LEAST_FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    detail: str


def examine(settings: Settings) -> Iterator[Check]:
    """All checks; none raises."""
    database_url, redis_url = settings.database_url, settings.redis_url
    if is_embedded(settings):
        running = attach(settings.home)
        yield _checked("postgres", lambda: str(postgres_binaries(Home(settings.home))))
        yield _checked("redis-server", lambda: str(redis_binary()))
        yield Check(name="embedded stack", ok=True, detail=f"pid {running.pid}" if running else "not running now")
        if running is not None:
            database_url, redis_url = running.database_url, running.redis_url
    if database_url is not None:
        database = _checked("database", lambda: _database_answers(database_url))
        yield database
        if database.ok:
            if settings.database_url is not None:
                yield _checked("coordinator", lambda: _coordinator_leads(database_url))
            yield _checked("workers", lambda: _workers_present(database_url, settings))
    if redis_url is not None:
        yield _checked("redis", lambda: _redis_answers(redis_url))
    for module in settings.preload:
        found = importlib.util.find_spec(module.partition(".")[0]) is not None
        yield Check(name=f"preload {module}", ok=found, detail="installed" if found else "not installed here")
    home = settings.home.absolute()
    folder = next(one for one in (home, *home.parents) if one.exists())
    free = shutil.disk_usage(folder).free
    yield Check(name="disk", ok=free > _LEAST_FREE_BYTES, detail=f"{free / 2**30:.1f} GiB free at {folder}")


def _checked(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name=name, ok=True, detail=check())
    except HighNoonError as error:
        return Check(name=name, ok=False, detail=str(error))


def _database_answers(url: str) -> str:
    with closing(Database(url)) as database:
        database.check_schema()
        database.check_limits()
    return "answers, ledger of this version"


def _coordinator_leads(url: str) -> str:
    with closing(Database(url)) as database:
        if missing := why_nothing_starts(database):
            raise ServiceUnavailable(missing)
    return "leads"


def _workers_present(url: str, settings: Settings) -> str:
    with closing(Database(url)) as database:
        workers = Nodes(database).present(settings)
    if not workers and settings.database_url is not None:
        raise ServiceUnavailable("none is there; python -m workers start --slots 2 starts one")
    if not workers:
        return "none is there"
    return ", ".join(f"{worker.host} ({worker.slots} slots, {worker.state})" for worker in workers)


def _redis_answers(url: str) -> str:
    with Broker(url) as broker:
        broker.ping()
    return "answers"


def show(settings: Settings, checks: list[Check], console: Console) -> None:
    """For people."""
    rows = [(row.variable, row.source, row.value) for row in settings.describe()]
    headings, *lines = aligned([("setting", "source", "value"), *rows])
    say(console, headings, style="bold")
    say(console, "\n".join(lines))
    console.print()
    for check in checks:
        mark = ("ok     ", "green") if check.ok else ("problem", "bold red")
        console.print(Text.assemble(mark, f"  {check.name}: {check.detail}"), soft_wrap=True)


def as_object(settings: Settings, checks: list[Check]) -> dict[str, Any]:
    """For programs; secrets are masked."""
    return {
        "settings": [asdict(row) for row in settings.describe()],
        "checks": [asdict(check) for check in checks],
    }
