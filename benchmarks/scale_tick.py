"""What the coordinator costs with many studies, tickets and workers: a tick, its CPU while idle, and a submission.

    python -m benchmarks.scale_tick [--studies 50] [--tickets 10000] [--workers 500] [--json FILE]

The workers are rows without processes. Everything else is real: PostgreSQL, Redis, the coordinator's service.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import redis
from sqlalchemy import func, insert, text, update

from benchmarks.roles import Role, postgres_of
from highnoon.coordinator.local.stack import Stack
from highnoon.coordinator.service import Service
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.processes import declare_only_our_code
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.database import Database
from highnoon.shared.store.schema import db_now, tickets, workers
from highnoon.shared.store.submission import submit
from tests.made_up import spec_of

_TICKS = 60
_IDLE_S = 20.0
_SLOTS = 2
_LARGE = 200_000
_FACTS = {
    "version": "0.1.0",
    "cpus": 16,
    "memory_total_bytes": 64_000_000_000,
    "disk": {"free_bytes": 1 << 40},
    "gpus": [{"uuid": f"GPU-{n}", "name": "L4", "memory_total_bytes": 24_000_000_000} for n in range(4)],
}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=50)
    parser.add_argument("--tickets", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=500)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    declare_only_our_code()
    with tempfile.TemporaryDirectory(prefix="highnoon-scale-") as folder, Stack(Path(folder, "home")) as stack:
        figures = measure_ticks(stack, arguments.studies, arguments.tickets, arguments.workers)
    for name, value in figures.items():
        print(f"{name:60} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure_ticks(stack: Stack, n_studies: int, n_tickets: int, n_workers: int) -> dict[str, Any]:
    """The figures of one coordinator, before any trial, with every slot at work, and with nothing to do."""
    settings = load_settings(home=stack.home.root, database_url=stack.database_url, redis_url=stack.redis_url)
    figures: dict[str, Any] = {"studies x tickets, workers": f"{n_studies} x {n_tickets:,}, {n_workers}"}
    with (
        opened(stack.database_url, create=True) as access,
        Broker(stack.redis_url) as broker,
        redis.Redis.from_url(stack.redis_url) as client,
    ):
        took_s = [_timed(partial(_submit, access, f"study-{n}", n_tickets)) for n in range(n_studies)]
        figures[f"submit {n_tickets:,} tickets, median (s)"] = round(statistics.median(took_s), 2)
        _add_workers(access, n_workers)
        with closing(Database(stack.database_url)) as database:

            def new_service() -> Service:
                return Service(settings, database=database, broker=broker)

            service = new_service()
            figures["first tick, dispatching (ms)"] = round(1e3 * _timed(service.tick))
            _run_queued(access, client)
            cpu_s: list[float] = []
            figures["tick, every slot at work: p50 / p95 (ms)"] = _percentiles(
                [_timed(service.tick, cpu_s) for _ in range(_TICKS)]
            )
            figures["of that CPU of the coordinator: p50 / p95 (ms)"] = _percentiles(cpu_s)
            figures["tick, a ticket ends before each: p50 / p95 (ms)"] = _percentiles(
                [_tick_after_an_end(service, access, client) for _ in range(_TICKS)]
            )
            service.close()
            figures["coordinator's CPU, every slot at work (% of a core)"] = _cpu(new_service(), stack)
            _set_workers_silent(access)
            figures["coordinator's CPU, no node (% of a core)"] = _cpu(new_service(), stack)
        figures[f"submit {_LARGE:,} tickets (s)"] = round(_timed(lambda: _submit(access, "large", _LARGE)), 2)
        figures["load average of the machine"] = round(os.getloadavg()[0], 1)
        figures["memory of the process (MB)"] = round(psutil.Process().memory_info().rss / 1e6)
    return figures


def _submit(access: Access, name: str, n_trials: int) -> None:
    submit(spec_of(name, n_trials=n_trials), access)


def _add_workers(access: Access, count: int) -> None:
    row = {"host": "node", "pid": 1, "slots": _SLOTS, "queues": ["cpu"], "state": "active", "facts": _FACTS}
    rows = [{**row, "id": f"{n:032x}", "started_at": 0.0, "seen_at": time.time() + 3600} for n in range(count)]
    with access.database.transaction() as connection:
        connection.execute(insert(workers), rows)


def _run_queued(access: Access, client: redis.Redis) -> None:
    """Makes every queued ticket a running one, a minute old, with a long lease; removes the messages."""
    client.flushall()
    with access.database.transaction() as connection:
        connection.execute(
            text(
                "insert into hn_attempts (ticket_id, attempt, worker_id, host, pid, started_at)"
                " select id, 1, 'w', 'h', 1, hn_now_1() - 60 from hn_tickets where state = 'queued'"
            )
        )
        running = update(tickets).where(tickets.c.state == "queued")
        connection.execute(running.values(state="running", attempt=1, lease_expires_at=db_now() + 86_400))


def _tick_after_an_end(service: Service, access: Access, client: redis.Redis) -> float:
    one = text(
        "update hn_tickets set state = 'closed', lease_expires_at = null, closed_at = hn_now_1(), ending = 'completed',"
        " outcome = '{}', value = 1 where id = (select id from hn_tickets where state = 'running' limit 1)"
    )
    access.database.changed(one)
    took_s = _timed(service.tick)
    _run_queued(access, client)
    return took_s


def _set_workers_silent(access: Access) -> None:
    access.database.changed(update(workers).values(seen_at=func.least(workers.c.seen_at, 0.0)))


def _cpu(service: Service, stack: Stack) -> str:
    """CPU of this process and of PostgreSQL while the service waits and ticks without any notification."""
    stopping = threading.Event()
    ticking = threading.Thread(target=service.serve, args=(stopping,))
    server = Role(process=postgres_of(stack))
    before, server_before = time.process_time(), server.cpu_s()
    ticking.start()
    time.sleep(_IDLE_S)
    mine, servers = time.process_time() - before, server.cpu_s() - server_before
    stopping.set()
    service.wake()
    ticking.join()
    return f"{100 * mine / _IDLE_S:.2f}, PostgreSQL {100 * servers / _IDLE_S:.2f}"


def _timed(step: Callable[[], object], cpu_s: list[float] | None = None) -> float:
    """Seconds by the clock; those of this thread's CPU are added to `cpu_s`."""
    began, before = time.perf_counter(), time.thread_time()
    step()
    if cpu_s is not None:
        cpu_s.append(time.thread_time() - before)
    return time.perf_counter() - began


def _percentiles(seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles(seconds, n=20)
    return f"{1e3 * statistics.median(seconds):.1f} / {1e3 * cuts[-1]:.1f}"


if __name__ == "__main__":
    main()
