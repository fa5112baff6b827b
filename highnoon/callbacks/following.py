"""follow: callbacks in cluster mode. They run in the process that calls it, while workers run the trials.

Only reads the study: when this process dies, the study goes on, and the same call follows it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from highnoon.arguments import callback_problems, listed_callbacks
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.runtime.settings import load_settings
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
    coordinator has used, and when `coordinator start` has ended; waits while the database is away.
    """
    from highnoon.cluster import Cluster
    from highnoon.handle import StudyHandle

    called = listed_callbacks(callbacks)
    if problems := callback_problems(called):
        raise InvalidInput("follow()", problems)
    settings = load_settings()
    if storage is not None:
        settings = settings.model_copy(update={"database_url": normalise(storage, key="storage")})
    handle = StudyHandle(study_name, Cluster(settings=settings))
    handle.access.studies.get(study_name)
    handle.follow(*called)
