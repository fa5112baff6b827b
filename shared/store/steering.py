"""What a person does to a study of the ledger: pause, resume, cancel, more trials, a point of their own, another try.

One place for dashboard and Python. All raise StudyConflict where the study's state forbids it, and ServiceUnavailable.
"""

from __future__ import annotations

from dataclasses import dataclass

from highnoon.shared.domain.errors import InvalidInput, Problem, StudyConflict
from highnoon.shared.domain.states import Ending, StudyState
from highnoon.shared.domain.study import MOST_TRIALS, StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.store.access import Access
from highnoon.shared.store.studies import StudyRecord
from highnoon.shared.store.submission import trials_of

_GIVEN_UP = (StudyState.CANCELLING, StudyState.CANCELLED)
_RETRIED = (Ending.FAILED, Ending.TIMED_OUT, Ending.KILLED, Ending.LOST, Ending.STOPPED)


@dataclass(frozen=True, slots=True)
class Steering:
    """One study, as it was read; the statements look at it again."""

    access: Access
    record: StudyRecord

    def pause(self) -> None:
        """Nothing new starts; what runs ends by itself."""
        self._require(self.access.studies.pause(self.record.id), "only a running study can be paused")

    def resume(self) -> None:
        """Goes on with a paused study."""
        self._require(self.access.studies.resume(self.record.id), "only a paused study can be resumed")

    def cancel(self) -> None:
        """What waits is dropped, what runs is stopped."""
        self._require(self.access.studies.cancel(self.record.id), "it is over already")

    def add_trials(self, count: int) -> int:
        """`count` more trials; a finished study runs again. Raises InvalidInput for a senseless count."""
        most = MOST_TRIALS - self.access.studies.counts(self.record.id).total
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
            problem = Problem(key="count", message=f"must be from 1 to {most:,}", value=count)
            raise InvalidInput("request", [problem])
        self._require(self.record.state not in _GIVEN_UP, "it was given up: start a new one like it")
        spec = StudySpec.from_json({**self.record.spec, "n_trials": MOST_TRIALS})
        added = self.access.studies.add_trials(self.record.id, count, at_most=trials_of(spec)[0])
        self._require(added > 0, "every point of its grid has its trial already")
        return added

    def retry(self, number: int) -> None:
        """Runs one failed trial again, with the same parameters."""
        done = self.access.studies.retry(self.record.id, endings=_RETRIED, numbers=(number,))
        self._require(done > 0, f"trial {number} is not one that failed and may be tried again")

    def enqueue(self, params: Params) -> None:
        """One more trial, at this point; what it leaves open is sampled. Raises InvalidInput for a wrong point."""
        if not params:
            raise InvalidInput("params", [Problem(key="params", message="needs at least one parameter")])
        if self.record.spec.get("sampler", {}).get("name") == "grid":
            raise StudyConflict(f"study {self.record.name!r} tries the points of a grid, and no others")
        self.access.optuna(self.record).enqueue(params)
        self.add_trials(1)

    def _require(self, done: bool, why_not: str) -> None:
        if not done:
            raise StudyConflict(f"study {self.record.name!r} is {self.record.state}: {why_not}")
