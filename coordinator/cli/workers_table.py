"""The nodes of a cluster and what runs on each, for people and for programs. Reads values, asks nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from highnoon.coordinator.cli.report import aligned, spelled_bytes, spelled_s
from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.store.nodes import Worker
from highnoon.shared.store.overview import RunningAttempt

_SHOWN_OF_ID = 8


def workers_table(workers: Sequence[Worker], running: Sequence[RunningAttempt]) -> list[str]:
    """A line per node, and below it one for each trial that runs there."""
    by_worker = _by_worker(running)
    nodes = [("worker", "host", "queues", "slots", "state", "seen", "memory")]
    for worker in workers:
        here = by_worker.get(worker.id, [])
        used = [attempt.rss_bytes for attempt in here if attempt.rss_bytes is not None]
        nodes.append(
            (
                worker.id[:_SHOWN_OF_ID],
                worker.host,
                ",".join(worker.queues),
                f"{len(here)}/{worker.slots}",
                str(worker.state),
                f"{spelled_s(worker.silent_s)} ago",
                spelled_bytes(sum(used)) if used else "-",
            )
        )
    headings, *lines = aligned(nodes, right={3, 5, 6})
    runs = aligned([_run(attempt) for worker in workers for attempt in by_worker.get(worker.id, [])], right={3, 4, 5})
    table = [headings]
    for worker, line in zip(workers, lines, strict=True):
        count = len(by_worker.get(worker.id, []))
        why = [f"  {worker.state_reason}"] if worker.state_reason else []
        table += [line, *why, *(f"  {run}" for run in runs[:count])]
        runs = runs[count:]
    return table


def workers_object(workers: Sequence[Worker], running: Sequence[RunningAttempt]) -> list[dict[str, Any]]:
    """The same for programs."""
    by_worker = _by_worker(running)
    kept = ("study", "trial_number", "attempt", "pid", "step", "rss_bytes", "age_s")
    return [
        {
            "id": worker.id,
            "host": worker.host,
            "pid": worker.pid,
            "queues": list(worker.queues),
            "slots": worker.slots,
            "state": str(worker.state),
            "state_reason": worker.state_reason,
            "silent_s": worker.silent_s,
            "running": [{name: getattr(run, name) for name in kept} for run in by_worker.get(worker.id, [])],
        }
        for worker in workers
    ]


def the_worker(named: str, workers: Sequence[Worker]) -> Worker:
    """By the beginning of its id, or by its host where that has one node. Raises InvalidInput."""
    found = [worker for worker in workers if named and (worker.id.startswith(named) or worker.host == named)]
    if len(found) == 1:
        return found[0]
    ids = [worker.id[:_SHOWN_OF_ID] for worker in found or workers]
    message = "means several nodes" if found else "is no node that is there"
    hint = f"Name one of {', '.join(ids)}." if found else nearest(named, [*ids, *(worker.host for worker in workers)])
    raise InvalidInput("command line", [Problem(key="WORKER", message=message, value=named, hint=hint)])


def _run(attempt: RunningAttempt) -> tuple[str, ...]:
    trial = "-" if attempt.trial_number is None else str(attempt.trial_number)
    again = f"trial {trial}" + (f" (attempt {attempt.attempt})" if attempt.attempt > 1 else "")
    step = "" if attempt.step is None else f"step {attempt.step}"
    return (
        f"pid {attempt.pid}",
        attempt.study,
        again,
        step,
        spelled_s(attempt.age_s),
        spelled_bytes(attempt.rss_bytes),
    )


def _by_worker(running: Sequence[RunningAttempt]) -> Mapping[str, list[RunningAttempt]]:
    found: dict[str, list[RunningAttempt]] = {}
    for attempt in running:
        found.setdefault(attempt.worker_id, []).append(attempt)
    return found
