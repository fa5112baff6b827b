"""Callbacks of a person who waits for their study: imported by name, and called while the wait lasts.

User code, in the process of the person who named it. Workers and the coordinator's service never see it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, ObjectiveError, Problem, ServiceUnavailable
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective.reference import load
from highnoon.shared.store.access import Access
from highnoon.shared.store.callbacks import Announcer, Callback
from highnoon.shared.store.outages import retry_until_available
from highnoon.shared.store.studies import StudyRecord

logger = logging.getLogger(__name__)

_KEY = "--callback"


def callbacks_named(references: Iterable[str]) -> list[Callback]:
    """Imports each, from `path/file.py:name` or `package.module:name`. Raises InvalidInput with every mistake."""
    found: list[Callback] = []
    problems: list[Problem] = []
    for reference in references:
        try:
            loaded: Callable[..., object] = load(ObjectiveRef.parse(reference), Path.cwd())
            found.append(loaded)
        except InvalidInput as invalid:
            problems += [replace(problem, key=_KEY) for problem in invalid.problems]
        except ObjectiveError as error:
            problems.append(Problem(key=_KEY, message=str(error).removesuffix("."), value=reference))
    if problems:
        raise InvalidInput("command line", problems)
    return found


class WaitingRoom:
    """Calls back as trials end; `study.stop()` in a callback pauses the study and ends the wait."""

    def __init__(self, record: StudyRecord, callbacks: Iterable[Callback], access: Access) -> None:
        self._record = record
        self._studies = access.studies
        self._announcer = Announcer(access.optuna(record), callbacks)

    def go_on(self, _: object) -> bool:
        """False when the wait is over. An outage is no reason: the next look sees what this one missed."""
        try:
            if self._announcer.look():
                self._studies.pause(self._record.id)
                return False
        except ServiceUnavailable:
            pass
        return True

    def hear_out(self) -> None:
        """For the trials that ended since the last look, once the study is over."""
        retry_until_available(self._announcer.look, logger)
