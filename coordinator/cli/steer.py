"""Commands that steer studies and nodes: pause, resume, cancel, retry; drain, reinstate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import StudyName, mistake, print_sentence
from highnoon.coordinator.cli.ledger_access import is_embedded, ledger
from highnoon.coordinator.cli.nodes import named_worker, present_workers

if TYPE_CHECKING:
    from highnoon.shared.store.studies import StudyRecord

TrialNumbers = Annotated[
    list[int] | None, typer.Argument(help="Their numbers. Default: all that failed.", metavar="TRIAL")
]
WorkerName = Annotated[str, typer.Argument(help="The beginning of its id, or its host.", metavar="WORKER")]


def pause(study: StudyName) -> None:
    """Start nothing new; running trials end by themselves.

    Example: python -m coordinator pause digits
    """
    with ledger() as access:
        record = access.study(study)
        _require(access.studies.pause(record.id), record, "only a running study can be paused")
    typer.echo(f"study {study} is paused")


def resume(study: StudyName) -> None:
    """Go on with a paused study.

    Example: python -m coordinator resume digits
    """
    with ledger() as access:
        record = access.study(study)
        _require(access.studies.resume(record.id), record, "only a paused study can be resumed")
    typer.echo(f"study {study} goes on")


def cancel(study: StudyName) -> None:
    """Give a study up: what waits is dropped, what runs is stopped.

    Example: python -m coordinator cancel digits
    """
    with ledger() as access:
        record = access.study(study)
        _require(access.studies.cancel(record.id), record, "it is over already")
    typer.echo(f"study {study} is being cancelled")


def retry(study: StudyName, numbers: TrialNumbers = None) -> None:
    """Run failed trials again, with the same parameters.

    Example: python -m coordinator retry digits 3 7
    """
    from highnoon.coordinator.cli.tables import trials_wait
    from highnoon.shared.domain.states import Ending

    failed = (Ending.FAILED, Ending.TIMED_OUT, Ending.KILLED, Ending.LOST)
    with ledger() as access:
        record = access.study(study)
        count = access.studies.retry(record.id, endings=failed, numbers=tuple(numbers or ()))
        _require(count > 0, record, "none of its closed trials failed" + (" among those numbers" if numbers else ""))
    typer.echo(f"study {study}: {trials_wait(count)} for another attempt")


def drain(worker: WorkerName) -> None:
    """Let a node take nothing new, and end.

    Running trials have HIGHNOON_DRAIN_S seconds to end; what still runs then is handed back, and costs its study
    nothing. It is for nodes of a cluster; start the node again to have it back.

    Example: python -m coordinator drain node-a
    """
    from highnoon.shared.domain.states import WorkerState
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store.nodes import Nodes
    from highnoon.shared.store.queries import LedgerQueries
    from highnoon.shared.views.formats import plural

    settings = load_settings()
    with ledger(settings) as access:
        chosen = named_worker(worker, present_workers(access, settings))
        if settings.database_url is None and is_embedded(settings):
            hint = "Pause its studies: python -m coordinator pause STUDY."
            raise mistake("WORKER", "belongs to coordinator start, which would start it again", worker, hint)
        Nodes(access.database).mark(chosen.id, WorkerState.DRAINING)
        count = sum(attempt.worker_id == chosen.id for attempt in LedgerQueries(access.database).running())
    runs = f"{plural(count, 'trial')} {'runs' if count == 1 else 'run'}"
    print_sentence(f"worker {chosen.id[:8]} on {chosen.host} drains: {runs} there, then it ends")


def reinstate(worker: WorkerName) -> None:
    """Take a node back from quarantine; its earlier failures no longer count.

    A node that fails at studies at which others succeed gets nothing more (HIGHNOON_QUARANTINE_AFTER failures in a
    row, by default 5; 0 for never). `workers` shows why. Repair it first.

    Example: python -m coordinator reinstate node-a
    """
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.store.nodes import Nodes

    settings = load_settings()
    with ledger(settings) as access:
        chosen = named_worker(worker, present_workers(access, settings))
        if not Nodes(access.database).reinstate(chosen.id):
            raise mistake("WORKER", f"is {chosen.state}; only one in quarantine can be taken back", worker)
    print_sentence(f"worker {chosen.id[:8]} on {chosen.host} gets trials again")


def _require(done: bool, record: StudyRecord, why_not: str) -> None:
    """Raises StudyConflict unless the study's state allowed it."""
    from highnoon.shared.domain.errors import StudyConflict

    if not done:
        raise StudyConflict(f"study {record.name!r} is {record.state}: {why_not}")
