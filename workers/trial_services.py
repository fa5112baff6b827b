"""What the supervisor does for a running trial: its reports, its pruner, its lease. No method waits.

Every statement runs in the I/O thread; the monitor submits it and looks at the answer later. Training never waits for
the database: reports are kept and written in bulk, and what could not be written is written when the attempt is
finished. The pruner decides in the monitor, on the trial's own reports and on the other trials as the I/O thread has
read them within the last second, at first since the trial began. A pruner of the study's own, which may be slow, is
asked in the I/O thread.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.lease import Lease, Progress
from highnoon.shared.domain.safe_reports import SafeReports
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.trial import MetricHistory, Outcome, Report
from highnoon.shared.runtime.logs import event
from highnoon.shared.search.pruning import PrunedTrial, PrunerView
from highnoon.shared.search.pruning_ahead import ALL_SAFE, HOLDS_S
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import NewTrial
from highnoon.workers.io_thread import IoThread
from highnoon.workers.monitor.trial_memory import TrialMemory
from highnoon.workers.node import Node
from highnoon.workers.report_buffer import ReportBuffer
from highnoon.workers.suggestions import Suggestions
from highnoon.workers.trial.launch import now_s
from highnoon.workers.trial_files import TrialFiles

T = TypeVar("T")

_log = logging.getLogger("highnoon.workers.trial_services")

_MOST_AHEAD = 200
"""Steps for which it is computed ahead whether a report is safe."""

_FRESH_WITHIN_S = 0.2
"""How long a question waits while the other trials are read again; then the previous reading answers it."""

_VIEW_WITHIN_S = 10.0
"""How long the first view is waited for; then the trial goes on."""

_READ_DRAIN_EVERY_S = 0.1

_RENEW_AGAIN_S = 1.0
"""After an outage holders must be quicker than the reaper, which waits for a whole lease."""

_WRITE_CURVES_EVERY_S = 30.0
"""The whole curves of a trial are written, up to some 200 KB: not with each renewal. Finishing writes the newest."""

_FIRST_RENEWAL_S = 1.0
"""A trial that runs longer shows its step and its memory from then on, not only after a whole period."""


class TrialServices:
    """Implements `monitor.services.Services` for one attempt."""

    def __init__(
        self,
        node: Node,
        io: IoThread,
        attempts: Attempts,
        lease: Lease,
        study: OptunaStudy,
        files: TrialFiles,
    ) -> None:
        self._node = node
        self._io = io
        self._attempts = attempts
        self._lease = lease
        self._study = study
        self.files = files
        self.suggestions = Suggestions(io, attempts, lease, study)
        self._memory: TrialMemory | None = None
        self._reports = ReportBuffer()
        self._step: int | None = None
        self._renewal: Future[bool] | None = None
        self._renew_at = now_s() + node.settings.renew_s
        self._is_cancelled = False
        self._drain = node.drain
        self._read_drain_at, self._must_drain = 0.0, False
        self._pruned = PrunedTrial(lease.trial_id, lease.trial_number)
        self._view: PrunerView | None = None
        self._reading: Future[PrunerView] | None = None
        self._reading_at = self._view_at = self._asked_at = self._read_again_at = 0.0
        self._bounds_of: PrunerView | None = None
        self._bounds_to: float = 0
        self._deciding: tuple[PrunedTrial, Future[bool]] | None = None
        self._is_away = False
        self._reports_since = 0
        self._answered_at: float | None = None
        self._written_rungs: set[str] = set()
        self._history: MetricHistory | None = None
        self._write_curves_at = 0.0

    @property
    def wakeup_fd(self) -> int:
        """Readable when a statement has ended."""
        return self._io.wakeup_fd

    @property
    def unwritten(self) -> tuple[Report, ...]:
        """The reports that are not in the database yet."""
        return self._reports.waiting()

    def attend(self, memory: TrialMemory | None) -> None:
        """The trial runs now: its memory is part of each renewal."""
        self._memory = memory
        self._renew_at = min(self._renew_at, now_s() + _FIRST_RENEWAL_S)

    def take_report(self, report: Report) -> bool:
        """Kept until the others are read, the lease renewed, or the attempt finished; False when some are left out."""
        self._step = report.step
        self._reports_since += 1
        if self._study.prunes:
            self._pruned.report(report)
        return self._reports.add(report)

    def take_history(self, history: MetricHistory) -> None:
        """Kept until it is written with a renewal; the outcome has the whole of it."""
        if history:  # a trial without curves keeps none
            self._history = history

    def ask_should_prune(self) -> None:
        """Has the other trials read again, where that was long ago."""
        self._asked_at = now_s()
        is_due = self._view_is_old() and self._asked_at >= self._read_again_at
        if self._study.prunes and self._reading is None and is_due:
            self._reading_at = self._asked_at
            self._reading = self._io.submit(self._read_view)

    def prune_answer(self) -> bool | None:
        """The pruner's decision on the reports so far; False while no other trial could be read."""
        if not self._study.prunes:
            return False
        if self._reading is not None and self._reading.done():
            self._take_view()
        if self._view is not None:
            if self._reading is not None and now_s() - self._reading_at < _FRESH_WITHIN_S and self._view_is_old():
                return None
            return self._plugin_answer(self._view) if self._view.waits else self._view.prunes(self._pruned)
        self._is_away = self._is_away or now_s() - self._asked_at > _VIEW_WITHIN_S
        return False if self._is_away else None

    def safe_reports(self) -> SafeReports | None:
        """As long as the others are fresh. By value as many as the trial will make meanwhile, since each one costs a
        percentile, and no step twice for one reading of the others."""
        if not self._study.prunes:
            return ALL_SAFE
        now, n_reports, self._reports_since = now_s(), self._reports_since, 0
        before, self._answered_at = self._answered_at, now
        left_s = HOLDS_S - (now - self._view_at)
        if self._view is None or self._view.waits or left_s <= 0:
            return None
        n_steps = 0
        is_bounded = self._bounds_of is self._view and self._step is not None and self._step <= self._bounds_to
        if before is not None and not is_bounded:
            n_steps = min(_MOST_AHEAD, math.ceil(left_s * n_reports / max(now - before, 1e-3)))
        safe = self._view.safe_reports(self._pruned, n_steps, for_s=left_s)
        if safe is not None and n_steps:
            self._bounds_of, self._bounds_to = self._view, max(safe.bounds, default=math.inf)
        return safe

    def _view_is_old(self) -> bool:
        return self._view is None or now_s() - self._view_at >= HOLDS_S

    def _plugin_answer(self, view: PrunerView) -> bool | None:
        """The answer of the study's own pruner; None while there is none."""
        if self._deciding is None:
            asked = self._pruned.copy()
            self._deciding = asked, self._io.submit(partial(view.prunes, asked))
        asked, decision = self._deciding
        if not decision.done():
            return None
        self._deciding = None
        self._pruned.note(asked.attrs)
        return decision.result()

    def interruption(self) -> Outcome | None:
        """RELEASED at the node's drain or a fault of the study's own sampler, CANCELLED when a person wants it.

        Renews the lease as it falls due.

        Raises LeaseLost when another worker owns the ticket.
        """
        self._io.clear_wakeup()
        self._renew_if_due()
        self.files.advance()
        if self._drain_is_due():
            return Outcome(
                ending=Ending.RELEASED, cause=Cause.DRAIN, message="handed back: the worker is shutting down"
            )
        if (fault := self.suggestions.fault) is not None:
            return Outcome(ending=Ending.RELEASED, cause=Cause.PLUGIN, message=f"handed back: {fault}")
        if self._is_cancelled:
            return Outcome(ending=Ending.CANCELLED, cause=Cause.CANCELLED, message="cancelled by a person")
        return None

    def _drain_is_due(self) -> bool:
        """Read now and then: a trial may send a thousand reports a second, and the order is in a file."""
        now = now_s()
        if now >= self._read_drain_at:
            self._read_drain_at = now + _READ_DRAIN_EVERY_S
            self._must_drain = self._drain.is_due()
        return self._must_drain

    def _renew_if_due(self) -> None:
        if self._renewal is not None:
            if not self._renewal.done():
                return
            renewal, self._renewal = self._renewal, None
            try:
                self._is_cancelled = renewal.result()
            except ServiceUnavailable as error:
                self._log_outage("renew", error)
                self._renew_at = now_s() + _RENEW_AGAIN_S
        if now_s() >= self._renew_at:
            self._renew_at = now_s() + self._node.settings.renew_s
            self._renewal = self._io.submit(self._renew)

    def _take_view(self) -> None:
        assert self._reading is not None
        reading, self._reading = self._reading, None
        try:
            self._view, self._is_away = reading.result(), False
            self._view_at = self._reading_at
        except ServiceUnavailable as error:
            self._log_outage("should_prune", error)
            self._is_away, self._read_again_at = True, now_s() + HOLDS_S

    # The following run in the I/O thread.

    def _renew(self) -> bool:
        rss_bytes = None if self._memory is None else self._memory.held_bytes
        history = self._history if now_s() >= self._write_curves_at else None
        progress = Progress(step=self._step, rss_bytes=rss_bytes, metric_history=history)
        is_cancelled = self._write(lambda reports: self._attempts.renew(self._lease, progress, reports))
        if history is not None:
            self._write_curves_at = now_s() + _WRITE_CURVES_EVERY_S
            if self._history is history:  # the monitor may have another one by now
                self._history = None
        # After the lease: where another client holds the trial's row, attributes wait for the next renewal.
        with suppress(ServiceUnavailable):
            self.flush()
        return is_cancelled

    def _read_view(self) -> PrunerView:
        if self.unwritten:
            self._write(lambda reports: self._attempts.add_reports(self._lease, reports))
        self.flush()
        return self._study.pruner_view(self._lease.trial_id)

    def flush(self) -> None:
        """Writes what the trial has set and the rungs that it has reached. Raises ServiceUnavailable, LeaseLost."""
        self.suggestions.flush()
        rungs = {key: value for key, value in self._pruned.attrs.items() if key not in self._written_rungs}
        if rungs:
            self._attempts.add(self._lease, NewTrial(params={}, distributions={}, system_attrs=rungs))
            self._written_rungs.update(rungs)

    def _write(self, statement: Callable[[tuple[Report, ...]], T]) -> T:
        reports = self.unwritten
        answer = statement(reports)
        self._reports.remove(reports)
        return answer

    def _log_outage(self, during: str, error: ServiceUnavailable) -> None:
        event(_log, "outage", level=logging.WARNING, **self._lease.ids, during=during, error=error)
