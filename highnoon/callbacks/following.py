"""follow: callbacks in cluster mode. They run in the process that calls it, while workers run the trials.

Only reads the study: when this process dies, the study goes on, and the same call follows it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from highnoon.arguments import callback_problems, listed_callbacks
from highnoon.shared.domain.errors import InvalidInput, UserInputError
from highnoon.shared.runtime.settings import Settings, load_settings
from highnoon.shared.runtime.urls import normalise


def follow(
    study_name: str,
    callbacks: Iterable[Callable[[Any, Any], object]] | Callable[[Any, Any], object],
    *,
    storage: str | None = None,
) -> None:
    """Calls every callback as f(study, trial) for each trial that has ended or ends, until the study is over.

    `storage` is the cluster's database, by default HIGHNOON_DATABASE_URL, else what `coordinator start` runs here.
    Trials that had ended before come first, by number. `study.stop()` pauses the study: nothing new begins, and this
    call ends. What a callback raises is logged. Raises UnknownStudy, and ServiceUnavailable for a database that no
    coordinator has used; waits while the database is away.
    """
    from highnoon.cluster import Cluster
    from highnoon.handle import StudyHandle

    called = listed_callbacks(callbacks)
    if problems := callback_problems(called):
        raise InvalidInput("follow()", problems)
    settings = load_settings()
    address = _database(settings) if storage is None else normalise(storage, key="storage")
    handle = StudyHandle(study_name, Cluster(settings=settings.model_copy(update={"database_url": address})))
    handle.access.study(study_name)
    handle.follow(*called)


def _database(settings: Settings) -> str:
    from highnoon.shared.runtime.data_dir import attach

    if settings.database_url is not None:
        return settings.database_url
    running = attach(settings.home)
    if running is None:
        raise UserInputError(
            f"nothing runs in {settings.home} now. Set HIGHNOON_DATABASE_URL or give a storage, "
            "or start studies here with: python -m coordinator start"
        )
    return running.database_url
