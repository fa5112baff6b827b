"""Commands about machines and services: workers, drain, reinstate, doctor, and Flower, which `start` runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import (
    AsJson,
    is_embedded,
    ledger,
    mistake,
    print_json,
    print_sentence,
    print_table,
    why_no_coordinator,
)
from highnoon.coordinator.cli.tables import aligned, size_cell, time_cell
from highnoon.shared.domain.errors import InvalidInput, nearest
from highnoon.shared.runtime.terminal import Exit, open_console
from highnoon.shared.views.studies import worker_object

if TYPE_CHECKING:
    from highnoon.shared.store.attempt_queries import RunningAttempt
    from highnoon.shared.store.nodes import Worker

_SHOWN_OF_ID = 8

WorkerName = Annotated[str, typer.Argument(help="The beginning of its id, or its host.", metavar="WORKER")]


def workers(json: AsJson = False) -> None:
    """List the nodes that are there, and what runs on each.

    Example: python -m coordinator workers
    """
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store.attempt_queries import AttemptQueries
    from highnoon.shared.store.nodes import Nodes

    settings = load_settings()
    with ledger(settings) as access:
        present = Nodes(access.database).present(settings)
        running = AttemptQueries(access.database).running()
    if json:
        print_json([worker_object(worker, running) for worker in present])
    elif present:
        print_table(workers_table(present, running))
    else:
        embedded = settings.database_url is None and is_embedded(settings)
        begin = "its worker starts in a few seconds" if embedded else "python -m workers start --slots 2 starts one"
        print_sentence(f"no worker is there; {why_no_coordinator(settings) or begin}")


def drain(worker: WorkerName) -> None:
    """Let a node take nothing new, and end.

    Running trials have HIGHNOON_DRAIN_S seconds to end; what still runs then is handed back, and costs its study
    nothing. It is for nodes of a cluster; start the node again to have it back.

    Example: python -m coordinator drain node-a
    """
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store import steering
    from highnoon.shared.store.attempt_queries import AttemptQueries
    from highnoon.shared.store.nodes import Nodes
    from highnoon.shared.views.formats import plural

    settings = load_settings()
    with ledger(settings) as access:
        chosen = named_worker(worker, Nodes(access.database).present(settings))
        steering.drain(access, chosen, settings.home)
        count = sum(attempt.worker_id == chosen.id for attempt in AttemptQueries(access.database).running())
    runs = f"{plural(count, 'trial')} {'runs' if count == 1 else 'run'}"
    print_sentence(f"worker {chosen.id[:8]} on {chosen.host} drains: {runs} there, then it ends")


def reinstate(worker: WorkerName) -> None:
    """Take a node back from quarantine.

    Its earlier failures no longer count.

    A node that fails at studies at which others succeed gets nothing more (HIGHNOON_QUARANTINE_AFTER failures in a
    row, by default 5; 0 for never). `workers` shows why. Repair it first.

    Example: python -m coordinator reinstate node-a
    """
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store import steering
    from highnoon.shared.store.nodes import Nodes

    settings = load_settings()
    with ledger(settings) as access:
        chosen = named_worker(worker, Nodes(access.database).present(settings))
        steering.reinstate(access, chosen)
    print_sentence(f"worker {chosen.id[:8]} on {chosen.host} gets trials again")


def doctor(json: AsJson = False) -> None:
    """Print each setting with its source, and check every service.

    Example: python -m coordinator doctor
    """
    from highnoon.coordinator.cli import doctor as checking
    from highnoon.shared.runtime.settings import load_settings

    settings = load_settings()
    checks = list(checking.examine(settings))
    if json:
        print_json(checking.as_object(settings, checks))
    else:
        checking.show(settings, checks, open_console())
    raise typer.Exit(Exit.OK if all(check.ok for check in checks) else Exit.SERVICE)


def flower(
    port: Annotated[int, typer.Option(help="The port.", metavar="PORT")] = 5555,
    address: Annotated[str, typer.Option(help="Where to listen.", metavar="ADDRESS")] = "127.0.0.1",
) -> None:
    """Run Flower for a cluster, behind a password.

    A start without addresses runs it by itself. The user is highnoon; the password is HIGHNOON_FLOWER_PASSWORD, else in
    flower-password of HIGHNOON_HOME, made at the first start.

    Example: python -m coordinator flower --port 5555
    """
    from highnoon.coordinator.local.local_processes import flower_login, run_flower
    from highnoon.shared.runtime.settings import load_settings

    settings = load_settings()
    if settings.redis_url is None:
        raise InvalidInput.of("environment", "HIGHNOON_REDIS_URL", "is not set")
    run_flower(settings.redis_url, flower_login(settings.home), port=port, address=address)


def workers_table(workers: Sequence[Worker], running: Sequence[RunningAttempt]) -> list[str]:
    """A line per node, and below it one for each trial that runs there."""
    runs_of = {worker.id: [run for run in running if run.worker_id == worker.id] for worker in workers}
    nodes = [("worker", "host", "queues", "slots", "state", "seen", "memory")]
    for worker in workers:
        here = runs_of[worker.id]
        used = [run.rss_bytes for run in here if run.rss_bytes is not None]
        nodes.append(
            (
                worker.id[:_SHOWN_OF_ID],
                worker.host,
                ",".join(worker.queues),
                f"{len(here)}/{worker.slots}",
                str(worker.state),
                f"{time_cell(worker.silent_s)} ago",
                size_cell(sum(used) if used else None),
            )
        )
    headings, *lines = aligned(nodes, right={3, 5, 6})
    runs = iter(aligned([_run_cells(run) for worker in workers for run in runs_of[worker.id]], right={3, 4, 5}))
    table = [headings]
    for worker, line in zip(workers, lines, strict=True):
        why = [f"  {worker.state_reason}"] if worker.state_reason else []
        table += [line, *why, *(f"  {next(runs)}" for _ in runs_of[worker.id])]
    return table


def named_worker(name: str, workers: Sequence[Worker]) -> Worker:
    """By the beginning of its id, or by its host where that has one node. Raises InvalidInput."""
    found = [worker for worker in workers if name and (worker.id.startswith(name) or worker.host == name)]
    if len(found) == 1:
        return found[0]
    ids = [worker.id[:_SHOWN_OF_ID] for worker in found or workers]
    message = "means several nodes" if found else "is no node that is there"
    hint = f"Name one of {', '.join(ids)}." if found else nearest(name, [*ids, *(worker.host for worker in workers)])
    raise mistake("WORKER", message, name, hint)


def _run_cells(run: RunningAttempt) -> tuple[str, ...]:
    trial = f"trial {'-' if run.trial_number is None else run.trial_number}"
    again = f" (attempt {run.attempt})" if run.attempt > 1 else ""
    step = "" if run.step is None else f"step {run.step}"
    return (f"pid {run.pid}", run.study, trial + again, step, time_cell(run.age_s), size_cell(run.rss_bytes))
