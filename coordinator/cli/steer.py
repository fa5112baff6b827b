"""Commands that steer studies: pause, resume, cancel, retry."""

from __future__ import annotations

from typing import Annotated

import typer

from highnoon.coordinator.cli.answers import require
from highnoon.coordinator.cli.arguments import StudyName
from highnoon.coordinator.cli.store_access import ledger

TrialNumbers = Annotated[
    list[int] | None, typer.Argument(help="Their numbers. Default: all that failed.", metavar="TRIAL")
]


def pause(study: StudyName) -> None:
    """Start nothing new; running trials end by themselves.

    Example: python -m coordinator pause digits
    """
    with ledger() as access:
        record = access.study(study)
        require(access.studies.pause(record.id), record, "only a running study can be paused")
    typer.echo(f"study {study} is paused")


def resume(study: StudyName) -> None:
    """Go on with a paused study.

    Example: python -m coordinator resume digits
    """
    with ledger() as access:
        record = access.study(study)
        require(access.studies.resume(record.id), record, "only a paused study can be resumed")
    typer.echo(f"study {study} goes on")


def cancel(study: StudyName) -> None:
    """Give a study up: what waits is dropped, what runs is stopped.

    Example: python -m coordinator cancel digits
    """
    with ledger() as access:
        record = access.study(study)
        require(access.studies.cancel(record.id), record, "it is over already")
    typer.echo(f"study {study} is being cancelled")


def retry(study: StudyName, numbers: TrialNumbers = None) -> None:
    """Give failed trials another go, with the same parameters.

    Example: python -m coordinator retry digits 3 7
    """
    from highnoon.coordinator.cli.report import spelled_waiting
    from highnoon.shared.domain.states import Ending

    failed = (Ending.FAILED, Ending.TIMED_OUT, Ending.KILLED, Ending.LOST)
    with ledger() as access:
        record = access.study(study)
        count = access.studies.retry(record.id, endings=failed, numbers=tuple(numbers or ()))
        require(count > 0, record, "none of its closed trials failed" + (" among those numbers" if numbers else ""))
    typer.echo(f"study {study}: {spelled_waiting(count)} for another attempt")
