"""Waiting for a study of a cluster: its progress, its trials as they end, and outages on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from highnoon.handle_view import counts_line
from highnoon.progress import ProgressView, log_trial
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.states import CAUSE, MESSAGE
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.outages import retry_until_available

if TYPE_CHECKING:
    from highnoon.shared.store.optuna_study import OptunaStudy
    from highnoon.shared.views.studies import StudySummary

logger = logging.getLogger("highnoon")

T = TypeVar("T")

_LOOK_S = 0.5
_GONE_S = 15.0
"""So long a `start` may be away while it is waited for: it is started again, perhaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Of one study; `summary` and `study` read it as it is now, and raise ServiceUnavailable."""

    name: str
    summary: Callable[[], StudySummary]
    study: Callable[[], OptunaStudy]
    is_embedded: bool

    def watch(
        self, callbacks: Sequence[Callable[[Any, Any], object]], view: ProgressView, timeout: float | None
    ) -> bool:
        """Calls back and shows how far it is until the study is over; True when a callback stopped it before."""
        from highnoon.shared.store.callbacks import Announcer
        from highnoon.shared.views.studies import fault_line

        shown_fault: str | None = None
        announcer = Announcer(self.study, callbacks)
        ends_at = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                # Read before the trials: when the study is over by now, the next read of its trials is complete.
                summary = self.when_available(self.summary, ends_at)
                if self.when_available(announcer.call_for_ended, ends_at):
                    return True
            except ServiceUnavailable:
                if ends_at is None or time.monotonic() < ends_at:
                    raise
            else:
                fault = summary.record.fault if summary.record else None
                if fault is not None and fault != shown_fault:
                    shown_fault = fault
                    event(logger, "study_fault", level=logging.WARNING, study=self.name, reason=fault_line(fault))
                view.show(self.name, summary.closed, summary.total, counts_line(summary))
                if summary.is_over:
                    return False
            if ends_at is not None and time.monotonic() >= ends_at:
                raise TimeoutError(f"study {self.name!r} is not over after {timeout:g} seconds; it goes on")
            time.sleep(_LOOK_S)

    def when_available(self, step: Callable[[], T], ends_at: float | None = None) -> T:
        """Repeats the step during an outage, to `ends_at`. Raises ServiceUnavailable when its `start` has ended."""
        limits = [_GONE_S] if self.is_embedded else []
        if ends_at is not None:
            limits.append(max(0.0, ends_at - time.monotonic()))
        return retry_until_available(step, logger, for_s=min(limits, default=None))


def log_frozen(study: Any, frozen: Any) -> None:
    """The line of a trial, given as Optuna has it."""
    from highnoon.shared.store.optuna_trials import trial_of

    trial = trial_of(frozen)
    log_trial(
        study.study_name,
        trial.number,
        trial.state,
        value=" ".join(f"{value:.6g}" for value in trial.values) or trial.value,
        loss=trial.loss,
        size=trial.params_count,
        seconds=trial.duration_s,
        cause=trial.attrs.get(CAUSE),
        reason=trial.attrs.get(MESSAGE),
    )
