"""What a person may change from here: studies, trials and workers.

Each is what the command line does, by the same stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from highnoon.shared.domain.errors import InvalidInput, Problem, StudyConflict, UnknownWorker, nearest
from highnoon.shared.domain.note import NoteChange
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.states import RETRIABLE
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.allow_list import below, exactly, matches, resolved
from highnoon.shared.objective.study_file import build_spec, plugins_in
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store import steering
from highnoon.shared.store.access import Access
from highnoon.shared.store.nodes import Worker
from highnoon.shared.store.notes import NoteStore
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import Submission, submit
from highnoon.shared.views.studies import StudySummary
from highnoon.webui.study_repository import StudyRepository

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveFilter:
    """Which objectives a form or the API may start: an objective is code that runs on every worker.

    So is a sampler or a pruner that is a class: the same rules are for them. HIGHNOON_OBJECTIVES lists patterns, as for
    the workers (`shared.objective.allow_list`), which judge again. Without it, what has been started by the command
    line may be started again, and on one machine everything else in the same folders. Judges by names alone; opens no
    file.
    """

    patterns: tuple[str, ...]
    folders_too: bool
    """Whether a folder that a known study comes from is allowed as a whole."""

    def refusals(self, written: Mapping[str, Any], studies: Iterable[StudySummary]) -> list[Problem]:
        """Why its objective, sampler or pruner may not be started; [] when they may, or validation will refuse them."""
        code_dir = written.get("code_dir")
        if not isinstance(code_dir, str | None):
            return []
        known = list(studies)
        patterns = list(self._patterns(known))
        refused = {key: ref for key, ref in _code_in(written).items() if not matches(resolved(ref, code_dir), patterns)}
        return [self._problem(key, ref, code_dir, known) for key, ref in refused.items()]

    def _problem(self, key: str, ref: ObjectiveRef, code_dir: str | None, known: Sequence[StudySummary]) -> Problem:
        if not self.patterns and code_dir is None and ref.is_file and not Path(ref.where).is_absolute():
            message = "is a relative path, and there is no folder for it to start from"
            return Problem(key=key, message=message, value=str(ref), hint="Write the folder below.")
        suggestions = self.suggestions(known) if key == "objective" else []
        hint = nearest(str(ref), suggestions) if suggestions else ""
        how = "Start it by the command line once, or list it in HIGHNOON_OBJECTIVES."
        if self.patterns:
            how = "HIGHNOON_OBJECTIVES lists what may be started from here."
        message = "is not one that may be started here"
        return Problem(key=key, message=message, value=str(ref), hint=f"{hint} {how}".strip())

    def suggestions(self, studies: Iterable[StudySummary]) -> list[str]:
        """Objectives that were used before, newest first."""
        return list(dict.fromkeys(str(study.spec["objective"]) for study in studies if study.spec.get("objective")))

    def folders(self, studies: Iterable[StudySummary]) -> list[str]:
        """Folders that objectives came from, newest first."""
        return list(dict.fromkeys(str(study.spec["code_dir"]) for study in studies if study.spec.get("code_dir")))

    def _patterns(self, studies: Sequence[StudySummary]) -> Iterable[str]:
        if self.patterns:
            return self.patterns
        exact = []
        for study in studies:
            code_dir = study.spec.get("code_dir")
            if isinstance(code_dir, str | None):  # another one's may be broken
                exact += [exactly(resolved(ref, code_dir)) for ref in _code_in(study.spec).values()]
        folders = [below(Path(folder)) for folder in self.folders(studies)]
        return [*exact, *(folders if self.folders_too else ())]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyActions:
    """All raise StudyConflict where the study's state forbids it, ServiceUnavailable during an outage."""

    repository: StudyRepository
    allowed: ObjectiveFilter

    def create(self, written: Mapping[str, Any]) -> Submission:
        """Submits, joins or extends. Raises InvalidInput with every mistake, StudyConflict for another question."""
        spec = self.check(written)
        access = self.repository.access()
        self.repository.queries()
        submission = submit(spec, access)
        self.repository.invalidate(spec.name)
        return submission

    def check(self, written: Mapping[str, Any]) -> StudySpec:
        """What `create` would submit. Raises InvalidInput as it does.

        Looks for the files of objective, sampler and pruner only where all of them are allowed.
        """
        refusals = self.allowed.refusals(written, self.repository.studies())
        if not refusals:
            return build_spec(written, source="study")
        refused = {refusal.key for refusal in refusals}
        try:
            StudySpec.from_json(written, source="study")
        except InvalidInput as invalid:
            others = [problem for problem in invalid.problems if problem.key not in refused]
            raise InvalidInput("study", [*others, *refusals]) from None
        raise InvalidInput("study", refusals)

    def steer(
        self,
        study: StudySummary,
        act: Callable[Concatenate[Access, StudyRecord, P], object],
        *args: P.args,
        **options: P.kwargs,
    ) -> None:
        """Calls a function of `shared.store.steering` with this study, then drops what is cached of it."""
        act(self.repository.access(), _known(study), *args, **options)
        self.repository.invalidate(study.name)

    def annotate(
        self,
        study: StudySummary,
        number: int | None,
        *,
        text: str | None = None,
        tags: Sequence[str] | None = None,
        seen: str | None = None,
    ) -> None:
        """Replaces note or tags of the study or one of its trials; None leaves them. Raises InvalidInput.

        `seen` is the version that a person had before their eyes: of another one nothing is replaced.
        """
        change = NoteChange(
            text=None if text is None else text.replace("\r\n", "\n").strip(),
            tags=None if tags is None else tuple(tags),
        )
        NoteStore(self.repository.access().database).change(_known(study).name, number, change, seen=seen)

    def retry(self, study: StudySummary, number: int) -> None:
        """Runs one failed trial again, with the same parameters."""
        access, record = self.repository.access(), _known(study)
        done = access.studies.retry(record.id, endings=RETRIABLE, numbers=(number,))
        steering.require(access, done > 0, record, f"trial {number} is not one that failed and may be tried again")
        self.repository.invalidate(study.name)

    def delete(self, study: StudySummary) -> None:
        """Removes a study that is over, with all trials. Log files stay where they are."""
        steering.delete_study(self.repository.access(), _known(study))
        self.repository.remove(study.name)


@dataclass(frozen=True, slots=True)
class WorkerActions:
    """Raise UnknownWorker, WorkerConflict, ServiceUnavailable."""

    repository: StudyRepository
    settings: Settings

    def drain(self, worker_id: str) -> None:
        """It takes nothing new, ends what runs within its drain time, and leaves."""
        steering.drain(self.repository.access(), self._worker(worker_id), self.settings.home)

    def belong_to_start(self) -> bool:
        """True when the workers belong to a `coordinator start` here, which restarts them."""
        return steering.belong_to_start(self.repository.access(), self.settings.home)

    def reinstate(self, worker_id: str) -> None:
        """One in quarantine gets trials again. One that drains is about to end: it is started again on its machine."""
        steering.reinstate(self.repository.access(), self._worker(worker_id))

    def _worker(self, worker_id: str) -> Worker:
        has_ledger = self.repository.has_ledger()
        for worker in self.repository.nodes().present(self.settings) if has_ledger else ():
            if worker.id == worker_id:
                return worker
        raise UnknownWorker(f"There is no worker {worker_id!r} now.")


def _code_in(written: Mapping[str, Any]) -> dict[str, ObjectiveRef]:
    """What a study runs of its own code, by key; names that cannot be are left out."""
    objective, found = written.get("objective"), {}
    if isinstance(objective, str):
        with suppress(InvalidInput):
            found["objective"] = ObjectiveRef.parse(objective)
    return found | plugins_in(written)


def _known(study: StudySummary) -> StudyRecord:
    if study.record is None:
        raise StudyConflict(f"study {study.name!r} is run without a coordinator: it can be read here, not steered")
    return study.record
