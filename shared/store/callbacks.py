"""Optuna's callbacks, `f(study, trial)`, outside Optuna's own loop: what is written for `Study.optimize` works here.

That includes `study.stop()`, as `MaxTrialsCallback` calls it. What is private in Optuna 5.0.x and used here
(`Study._thread_local`, `Study._stop_flag`) is held down by tests/integration/test_manager.py.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable

from optuna import Study as Study
from optuna.trial import FrozenTrial as FrozenTrial

from highnoon.shared.runtime.logs import logfmt
from highnoon.shared.store.optuna_study import OptunaStudy

logger = logging.getLogger(__name__)

Callback = Callable[[Study, FrozenTrial], object]


def call_back(study: Study, callbacks: Iterable[Callback], trial: FrozenTrial) -> bool:
    """Calls each with a copy of the trial; True when one of them stopped the study. What they raise is logged."""
    study._thread_local.in_optimize_loop = True
    study._stop_flag = False
    try:
        for callback in callbacks:
            try:
                callback(study, copy.deepcopy(trial))
            except Exception as error:
                # A report that cannot be printed (the value of a failed trial is None) must not end a night's study.
                has_value = trial.values is not None
                why = f"{type(error).__name__}: {error}" + ("" if has_value else "; the trial has no value")
                fields = {"study": study.study_name, "trial": trial.number, "reason": why}
                logger.warning("%s", logfmt("callback_failed", fields), exc_info=has_value)
        return study._stop_flag
    finally:
        study._thread_local.in_optimize_loop = False


class Announcer:
    """Calls back for trials that others run: once for each that has ended, also for those that had ended before."""

    def __init__(self, study: Callable[[], OptunaStudy], callbacks: Iterable[Callback]) -> None:
        """`study` opens it, for each look: its connections may be others by then."""
        self._study = study
        self._callbacks = tuple(callbacks)
        self._announced: set[int] = set()

    def look(self) -> bool:
        """True when a callback stopped the study; trials after that one wait for the next look.

        Raises ServiceUnavailable, and may then be called again.
        """
        if not self._callbacks:
            return False
        study = self._study()
        for trial in study.ended():
            if trial.number in self._announced:
                continue
            self._announced.add(trial.number)
            if call_back(study.optuna_study, self._callbacks, trial):
                return True
        return False
