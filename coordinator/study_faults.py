"""Faults of single studies: each is caught, logged once with the study's name, counted, and kept for people.

One study's data must never stop the work of the others, and is no outage either.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType

from highnoon.coordinator.cluster_metrics import Counters
from highnoon.shared.domain.errors import HighNoonError, ServiceError
from highnoon.shared.runtime.logs import spelled
from highnoon.shared.store.control import Control, StudyLoad

_log = logging.getLogger("highnoon.coordinator.study_faults")

_SHOWN_S = 60.0
"""After its last occurrence: an action may be due only now and then."""

_MOST_CHARACTERS = 500


class StudyFaults:
    """What this leader found wrong, by study and by what failed."""

    def __init__(self, control: Control, counters: Counters) -> None:
        self._control = control
        self._counters = counters
        self._found: dict[int, dict[str, tuple[str, float]]] = {}

    def isolated(self, during: str, study_id: int | None, name: str | None) -> _Isolated:
        """Ends what fails inside and reports it; only a service that is away ends the tick."""
        return _Isolated(self, during, study_id, name)

    def keep(self, loads: Iterable[StudyLoad]) -> None:
        """Writes to the ledger what has changed of the live studies' faults."""
        loads = list(loads)
        self._found = {load.study.id: self._fresh(load.study.id) for load in loads}
        for load in loads:
            texts = [f"{during}: {text}" for during, (text, _) in sorted(self._found[load.study.id].items())]
            fault = "; ".join(texts)[:_MOST_CHARACTERS] or None
            if fault != load.study.fault:
                self._control.record_fault(load.study.id, fault)

    def report(self, during: str, study_id: int | None, name: str | None, error: Exception) -> None:
        """Counts a fault, and logs it unless the one before was the same."""
        self._counters.study_fault(during)
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        known = self._found.setdefault(study_id, {}) if study_id is not None else {}
        if known.get(during, ("", 0.0))[0] != text:
            fields = {"study": name, "during": during, "error": str(error)}
            # Our own errors say all; any other may be a bug.
            trace = None if isinstance(error, HighNoonError) else error
            _log.error("%s", spelled("study_fault", fields), exc_info=trace)
        known[during] = (text, time.monotonic())

    def _fresh(self, study_id: int) -> dict[str, tuple[str, float]]:
        since = time.monotonic() - _SHOWN_S
        return {during: found for during, found in self._found.get(study_id, {}).items() if found[1] > since}


@dataclass(frozen=True, slots=True)
class _Isolated:
    faults: StudyFaults
    during: str
    study_id: int | None
    name: str | None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, ServiceError):
            return False
        self.faults.report(self.during, self.study_id, self.name, error)
        return True
