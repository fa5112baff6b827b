"""follow: callbacks in cluster mode. They run in the process that calls it, while workers run the trials.

Only reads the study: when this process dies, the study goes on, and the same call follows it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from highnoon.shared.domain.errors import InvalidInput, Problem, UserInputError
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings, load_settings
from highnoon.shared.runtime.urls import normalise

if TYPE_CHECKING:
    from highnoon.shared.store.access import Access
    from highnoon.shared.store.callbacks import Announcer

logger = logging.getLogger("highnoon")

_POLL_S = 0.5


def follow(study_name: str, callbacks: Iterable[Callable[[Any, Any], object]], *, storage: str | None = None) -> None:
    """Calls every callback as f(study, trial) for each trial that has ended or ends, until the study is over.

    `storage` is the cluster's database, by default HIGHNOON_DATABASE_URL, else what `coordinator start` runs here.
    Trials that had ended before come first, by number. `study.stop()` pauses the study: nothing new begins, and this
    call ends. What a callback raises is logged. Raises UnknownStudy, and ServiceUnavailable for a database that no
    coordinator has used; waits while the database is away.
    """
    from highnoon.shared.store.access import opened
    from highnoon.shared.store.callbacks import Announcer

    called = list(callbacks)
    wrong = [callback for callback in called if not callable(callback)]
    if wrong:
        problems = [Problem(key="callbacks", message="must be callable", value=callback) for callback in wrong]
        raise InvalidInput("follow()", problems)
    address = _database(load_settings()) if storage is None else normalise(storage, key="storage")
    with opened(address) as access:
        access.database.check_schema()
        record = access.study(study_name)
        _follow(study_name, access, Announcer(access.optuna(record), called))


def _follow(name: str, access: Access, announcer: Announcer) -> None:
    from highnoon.shared.store.outages import retry_until_available

    while True:
        # Read before the trials: when the study is over by now, the next read of its trials is complete.
        is_over = retry_until_available(lambda: access.studies.get(name), logger).is_over
        if retry_until_available(announcer.call_for_ended, logger):
            paused = retry_until_available(lambda: access.studies.pause(access.studies.get(name).id), logger)
            event(logger, "paused" if paused else "stopped", study=name, reason="a callback called study.stop()")
            return
        if is_over:
            return
        time.sleep(_POLL_S)


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
