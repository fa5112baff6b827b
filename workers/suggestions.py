"""Define-by-run on a node: what a running trial suggests and sets, asked over the pipe and answered in the I/O thread.

An answer is written before it is given. While the database is away the trial waits: without history there is no answer.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from functools import cached_property

from highnoon.shared.domain.errors import PluginFailed, ServiceUnavailable
from highnoon.shared.domain.lease import Lease
from highnoon.shared.objective.trial_pipe import Event
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.trial_definition import TrialDefinition, answer_to, apply_setting
from highnoon.workers.io_thread import IoThread
from highnoon.workers.monitor.services import Answer
from highnoon.workers.trial.launch import now_s

_log = logging.getLogger("highnoon.workers.suggestions")

_AGAIN_S = 0.5
"""How long a question waits after an outage."""

_MOST_SET = 1_000
"""Attributes that wait to be written: an outage must not fill the supervisor's memory."""

_MOST_NAMES = 10_000
"""Of one attempt: each reading of the study's trials has all of them."""


class Suggestions:
    """Of one attempt. `ask`, `answer` and `take` are the monitor's and do not wait; `flush` runs in the I/O thread."""

    def __init__(self, io: IoThread, attempts: Attempts, lease: Lease, study: OptunaStudy) -> None:
        self._io = io
        self._attempts = attempts
        self._lease = lease
        self._study = study
        self._question: Event = {}
        self._answer: Future[Answer] | None = None
        self._again_at: float | None = None
        # The monitor adds, the I/O thread removes; of one key the newest counts.
        self._set: dict[tuple[str, str], Event] = {}
        self._names: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self.fault: str | None = None
        """Why the study's own sampler has given no answer: there will be none."""

    def ask(self, question: Event) -> None:
        """Submits one question."""
        self._question, self._again_at = question, None
        self._answer = self._io.submit(lambda: self._answered(question))

    def answer(self) -> Answer | None:
        """The answer to `ask`; None while there is none, as during an outage. Raises LeaseLost."""
        if self._again_at is not None and now_s() >= self._again_at:
            # Not a persistent step: renewals must go on where only one row is locked.
            self.ask(self._question)
        if self._answer is None or not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        try:
            return answer.result()
        except ServiceUnavailable as error:
            event(_log, "outage", level=logging.WARNING, **self._lease.ids, during="suggest", error=error)
            self._again_at = now_s() + _AGAIN_S
        except PluginFailed as error:
            self.fault = str(error)
        return None

    def take(self, setting: Event) -> bool:
        """Keeps an attribute or a constraint until something is written; False when there are too many, and it is left
        out. The result has all constraints once more."""
        name = setting["kind"], setting["key"]
        with self._lock:
            if name not in self._set and len(self._set) >= _MOST_SET:
                return False
            is_new = name not in self._names
            if is_new and len(self._names) >= _MOST_NAMES:
                return False
            self._names.add(name)
            self._set[name] = setting
        if is_new and len(self._names) % (_MOST_SET // 2) == 0:
            # The next renewal may be too late. Where this fails, it writes them.
            self._io.submit(self.flush)
        return True

    def flush(self) -> None:
        """Writes what was set and is not in the database yet. Raises ServiceUnavailable, LeaseLost."""
        if self._set or "_definition" in self.__dict__:
            self._keep()
            self._definition.flush()

    @cached_property
    def _definition(self) -> TrialDefinition:
        lease = self._lease
        return self._study.definition(
            trial_id=lease.trial_id,
            number=lease.trial_number,
            ordinal=lease.ordinal,
            fixed=lease.params,
            write=lambda new: self._attempts.add(lease, new),
        )

    def _answered(self, question: Event) -> Answer:
        self._keep()
        return answer_to(question, self._definition)

    def _keep(self) -> None:
        while self._set:
            with self._lock:
                key, setting = next(iter(self._set.items()))
            apply_setting(setting, self._definition)
            with self._lock:
                if self._set[key] is setting:
                    del self._set[key]
