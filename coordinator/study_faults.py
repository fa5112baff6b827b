"""Faults of single studies: each is caught, logged once with the study's name, counted, and kept for people.

One study's data must never stop the work of the others, and is no outage either.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from highnoon.coordinator.cluster_metrics import Counters
from highnoon.shared.domain.errors import HighNoonError, RowLocked, ServiceError
from highnoon.shared.runtime.logs import logfmt
from highnoon.shared.store.control import DECLINED_FAULT, PLUGIN_FAULT, Control
from highnoon.shared.store.snapshot_rows import StudyLoad

_log = logging.getLogger("highnoon.coordinator.study_faults")

_SHOWN_S = 60.0
"""After its last occurrence: an action may be due only now and then."""

_MOST_CHARACTERS = 500

T = TypeVar("T")


class StudyFaults:
    """What this leader found wrong, by study and by what failed."""

    def __init__(self, control: Control, counters: Counters) -> None:
        self._control = control
        self._counters = counters
        self._found: dict[int, dict[str, tuple[str, float]]] = {}
        self._of_workers: dict[int, tuple[str, int, float]] = {}

    def isolate(self, during: str, study_id: int | None, name: str | None, step: Callable[[], T]) -> T | None:
        """What `step` returns, or None when it failed, which is reported. Only a service that is away ends the tick."""
        try:
            return step()
        except RowLocked as error:  # by another client of this study
            self._report(during, study_id, name, error)
            return None
        except ServiceError:
            raise
        except Exception as error:
            self._report(during, study_id, name, error)
            return None

    def keep(self, loads: Iterable[StudyLoad]) -> None:
        """Writes to the ledger what has changed of the live studies' faults."""
        loads = list(loads)
        self._found = {load.study.id: self._fresh(load.study.id) for load in loads}
        for load in loads:
            texts = [f"{during}: {text}" for during, (text, _) in sorted(self._found[load.study.id].items())]
            fault = "; ".join(texts)[:_MOST_CHARACTERS] or self._of_worker(load)
            if fault != load.study.fault:
                self._control.record_fault(load.study.id, fault)

    def is_of_plugin(self, load: StudyLoad) -> bool:
        """Whether a worker found its sampler or pruner wrong; no longer after a while, so that it is tried again."""
        return (self._of_worker(load) or "").startswith(PLUGIN_FAULT)

    def _of_worker(self, load: StudyLoad) -> str | None:
        """What a worker found wrong; forgotten unless it is found again."""
        study, fault = load.study, load.study.fault or ""
        if not fault.startswith((PLUGIN_FAULT, DECLINED_FAULT)):
            self._of_workers.pop(study.id, None)
            return None
        known = self._of_workers.get(study.id)
        if known is None or known[0] != fault:
            known = self._of_workers[study.id] = fault, study.spec_version, time.monotonic()
        _, version, since = known
        return fault if version == study.spec_version and time.monotonic() - since < _SHOWN_S else None

    def _report(self, during: str, study_id: int | None, name: str | None, error: Exception) -> None:
        """Counts a fault, and logs it unless the one before was the same."""
        self._counters.study_faults.labels(during).inc()
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        known = self._found.setdefault(study_id, {}) if study_id is not None else {}
        if known.get(during, ("", 0.0))[0] != text:
            fields = {"study": name, "during": during, "error": str(error)}
            # Our own errors say all; any other may be a bug.
            trace = None if isinstance(error, HighNoonError) else error
            _log.error("%s", logfmt("study_fault", fields), exc_info=trace)
        known[during] = (text, time.monotonic())

    def _fresh(self, study_id: int) -> dict[str, tuple[str, float]]:
        since = time.monotonic() - _SHOWN_S
        return {during: found for during, found in self._found.get(study_id, {}).items() if found[1] > since}
