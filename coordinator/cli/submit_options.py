"""Options of `submit`: the study's code (--bundle), and callbacks while a person waits (--callback).

With `--bundle DIR` the code is packed, signed and kept in the ledger, see `shared.store.code_upload`.

Callbacks are user code, in the process of the person who named them. Workers and the coordinator's service never
import them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from highnoon.coordinator.cli.command_io import mistake
from highnoon.shared.domain.errors import InvalidInput, ObjectiveError, Problem, ServiceUnavailable
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.bundle import Bundle
from highnoon.shared.objective.reference import load
from highnoon.shared.objective.study_file import load_study_file
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.access import Access
from highnoon.shared.store.callbacks import Announcer, Callback
from highnoon.shared.store.code_upload import packed
from highnoon.shared.store.outages import retry_until_available
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import Submission
from highnoon.shared.views.formats import plural

_log = logging.getLogger(__name__)


def read_study(
    study_file: Path, overrides: Mapping[str, object], folder: Path | None, settings: Settings
) -> tuple[StudySpec, Bundle | None]:
    """The study; with a `folder` as its code, also that folder packed. Raises InvalidInput for what cannot work."""
    if folder is None:
        return load_study_file(study_file, overrides), None
    if not folder.is_dir():
        raise mistake("--bundle", "is no folder", str(folder))
    root = folder.resolve()
    spec = load_study_file(study_file, {**overrides, "code_dir": str(root)})
    return packed(spec, root, settings, key="--bundle")


def trials_in_words(submission: Submission, asked: int | None) -> str:
    """How the submission changed the total number of trials."""
    has = plural(submission.trials, "trial")
    if submission.added == submission.trials:
        return has
    if submission.added:
        return f"{has}, {submission.added} added"
    if asked is not None and asked < submission.trials:
        return f"it has {has} already, and --n-trials counts all of them; none added"
    return f"it has {has} already; none added"


def callbacks_named(references: Iterable[str]) -> list[Callback]:
    """Imports each, from `path/file.py:name` or `package.module:name`. Raises InvalidInput with every mistake."""
    found: list[Callback] = []
    problems: list[Problem] = []
    for reference in references:
        try:
            loaded: Callable[..., object] = load(ObjectiveRef.parse(reference), Path.cwd())
            found.append(loaded)
        except InvalidInput as invalid:
            problems += [replace(problem, key="--callback") for problem in invalid.problems]
        except ObjectiveError as error:
            problems.append(Problem(key="--callback", message=str(error).removesuffix("."), value=reference))
    if problems:
        raise InvalidInput("command line", problems)
    return found


class CallbackRunner:
    """Calls back as trials end; `study.stop()` in a callback pauses the study and ends the wait."""

    def __init__(self, record: StudyRecord, callbacks: Iterable[Callback], access: Access) -> None:
        self._record = record
        self._studies = access.studies
        study = access.optuna(record)
        self._announcer = Announcer(lambda: study, callbacks)

    def go_on(self, _: object) -> bool:
        """False when the wait is over. An outage does not end it: the next call gets what this one missed."""
        try:
            is_stopped = self._announcer.call_for_ended()
        except ServiceUnavailable:
            return True
        if is_stopped:
            retry_until_available(lambda: self._studies.pause(self._record.id), _log)
        return not is_stopped

    def finish(self) -> None:
        """Calls back for the trials that ended since the last call, once the study is over."""
        retry_until_available(self._announcer.call_for_ended, _log)
