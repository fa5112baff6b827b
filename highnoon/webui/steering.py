"""What a person may change from here: submit, pause, resume, cancel, add trials, try again, enqueue, delete.

Each is what the command line does, by the same stores. Which objectives may be started is `allowed`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from highnoon.shared.domain.errors import InvalidInput, Problem, StudyConflict
from highnoon.shared.domain.states import Ending, StudyState
from highnoon.shared.domain.study import MOST_TRIALS, StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.objective.study_loader import build_spec
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.studies import Studies, StudyRecord
from highnoon.shared.store.submission import Submission, submit, trials_of
from highnoon.webui.allowed import AllowList
from highnoon.webui.library import Library
from highnoon.webui.studies import Study

_GIVEN_UP = (StudyState.CANCELLING, StudyState.CANCELLED)
_RETRIED = (Ending.FAILED, Ending.TIMED_OUT, Ending.KILLED, Ending.LOST, Ending.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """The acts. All raise StudyConflict where the study's state forbids it, ServiceUnavailable during an outage."""

    library: Library
    allowed: AllowList

    def create(self, written: Mapping[str, Any]) -> Submission:
        """Submits, joins or extends. Raises InvalidInput with every mistake, StudyConflict for another question."""
        spec = self.checked(written)
        access = self.library.access()
        self.library.overview()
        submission = submit(spec, access)
        self.library.forget(spec.name)
        return submission

    def checked(self, written: Mapping[str, Any]) -> StudySpec:
        """The study that was asked for. Looks for the objective's file only where that is allowed."""
        refusal = self.allowed.refusal(written, self.library.studies())
        if refusal is None:
            return build_spec(written, source="study")
        try:
            StudySpec.from_json(written, source="study")
        except InvalidInput as invalid:
            others = [problem for problem in invalid.problems if problem.key != "objective"]
            raise InvalidInput("study", [*others, refusal]) from None
        raise InvalidInput("study", [refusal])

    def pause(self, study: Study) -> None:
        """Nothing new starts; what runs ends by itself."""
        record = _known(study)
        self._require(self._studies.pause(record.id), study, "only a running study can be paused")

    def resume(self, study: Study) -> None:
        """Goes on with a paused study."""
        record = _known(study)
        self._require(self._studies.resume(record.id), study, "only a paused study can be resumed")

    def cancel(self, study: Study) -> None:
        """What waits is dropped, what runs is stopped."""
        record = _known(study)
        self._require(self._studies.cancel(record.id), study, "it is over already")

    def add_trials(self, study: Study, count: int) -> int:
        """`count` more trials; a finished study runs again. Raises InvalidInput for a senseless count."""
        record = _known(study)
        if not 1 <= count <= MOST_TRIALS - study.total:
            problem = Problem(key="count", message=f"must be from 1 to {MOST_TRIALS - study.total:,}", value=count)
            raise InvalidInput("request", [problem])
        self._require(record.state not in _GIVEN_UP, study, "it was given up: start a new one like it")
        spec = StudySpec.from_json({**record.spec, "n_trials": MOST_TRIALS})
        added = self._studies.add_trials(record.id, count, at_most=trials_of(spec)[0])
        self._require(added > 0, study, "every point of its grid has its trial already")
        self.library.forget(study.name)
        return added

    def retry(self, study: Study, number: int) -> None:
        """Gives one failed trial another go, with the same parameters."""
        record = _known(study)
        done = self._studies.retry(record.id, endings=_RETRIED, numbers=(number,))
        self._require(done > 0, study, f"trial {number} is not one that failed and may be tried again")

    def enqueue(self, study: Study, params: Params) -> None:
        """One more trial, at this point; what it leaves open is sampled. Raises InvalidInput for a wrong point."""
        record = _known(study)
        if not params:
            raise InvalidInput("params", [Problem(key="params", message="needs at least one parameter")])
        if record.spec["sampler"]["name"] == "grid":
            raise StudyConflict(f"study {study.name!r} tries the points of a grid, and no others")
        access = self.library.access()
        access.optuna(record).enqueue(params)
        self.add_trials(study, 1)

    def delete(self, study: Study) -> None:
        """Removes a study that is over, with all trials. Log files stay where they are."""
        record = _known(study)
        self._require(record.is_over, study, "only one that is over can be deleted: cancel it first")
        access = self.library.access()
        access.studies.delete(record.id)
        access.store.delete_study(study.name)
        self.library.drop(study.name)
        Bundles(access.database).drop_unused()

    @property
    def _studies(self) -> Studies:
        return self.library.access().studies

    def _require(self, done: bool, study: Study, why_not: str) -> None:
        if not done:
            raise StudyConflict(f"study {study.name!r} is {study.state}: {why_not}")
        self.library.forget(study.name)


def _known(study: Study) -> StudyRecord:
    if study.record is None:
        raise StudyConflict(f"study {study.name!r} is run by somebody else's process: it can be read here, not steered")
    return study.record
