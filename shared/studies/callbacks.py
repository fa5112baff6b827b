"""Optuna's callbacks, `f(study, trial)`, outside Optuna's own loop: what is written for `Study.optimize` works here.

That includes `study.stop()`, as `MaxTrialsCallback` calls it. What is private in Optuna 5.0.x and used here
(`Study._thread_local`, `Study._stop_flag`) is held down by tests/integration/test_manager.py.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable

import optuna
from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)

Callback = Callable[[optuna.Study, FrozenTrial], object]


def call_back(study: optuna.Study, callbacks: Iterable[Callback], number: int) -> bool:
    """Calls each with the trial of that number; True when one of them stopped the study. What they raise is logged."""
    study._thread_local.in_optimize_loop = True
    study._stop_flag = False
    try:
        for callback in callbacks:
            try:
                callback(study, copy.deepcopy(study.get_trials(deepcopy=False)[number]))
            except Exception:
                # A report that cannot be printed (the value of a failed trial is None) must not end a night's study.
                logger.exception("action=callback_failed study=%s trial=%d", study.study_name, number)
        return study._stop_flag
    finally:
        study._thread_local.in_optimize_loop = False
