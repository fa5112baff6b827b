"""What one trial is, for each process that runs one: a worker's trial process, or the SDK here or in a process beside.

A further key of a trial is added in this file, and nowhere else on its way from the study to the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highnoon.shared.domain.memory_sizes import NO_WISHES, MemoryWishes
from highnoon.shared.domain.score import UNSCORED, Scoring
from highnoon.shared.domain.trial import Outcome, Params, ParamValue
from highnoon.shared.objective.attempt import Objective, run_attempt
from highnoon.shared.objective.defined_trial import StudyFacts, SuggestionChannel, given_trial
from highnoon.shared.objective.repetition import ONCE, Repeats
from highnoon.shared.objective.staged_files import NO_CHECKPOINTS, SavingLimits, StagedFiles
from highnoon.shared.objective.trial_context import AttemptChannel

if TYPE_CHECKING:  # a trial process that is spawned need not import pydantic
    from highnoon.shared.domain.extension import Extension
    from highnoon.shared.domain.study import StudySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTask:
    """All that a trial gets beside its objective and its channel. JSON-able, and free of secrets."""

    study: str
    number: int
    params: Params
    """Where it defines its space as it runs, those that are fixed; what answers its suggestions knows them as well."""
    saved: str
    """The folder in which it puts copies of the files that it saves."""
    saving: SavingLimits = NO_CHECKPOINTS
    checkpoints: str | None = None
    """A folder that outlives it; None where no other one goes on from it."""
    defines_by_run: bool = False
    scoring: Scoring = UNSCORED
    repeats: Repeats = ONCE
    memory: MemoryWishes = NO_WISHES
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, ParamValue] = field(default_factory=dict)
    """What a person set for a longer training."""

    @classmethod
    def of(
        cls,
        spec: StudySpec,
        *,
        number: int,
        params: Params,
        seed: int,
        saved: Path,
        checkpoints: Path | None,
        repeat_bar: float | None = None,
        saving: SavingLimits = NO_CHECKPOINTS,
        extension: Extension | None = None,
    ) -> TrialTask:
        """Of a trial of this study."""
        return cls(
            study=spec.name,
            number=number,
            params=params,
            saved=str(saved),
            saving=saving,
            checkpoints=None if checkpoints is None else str(checkpoints),
            defines_by_run=spec.defines_by_run,
            scoring=spec.scoring,
            repeats=Repeats(count=spec.repeats, seed=seed, bar=repeat_bar),
            memory=spec.memory,
            environment=spec.environment,
            settings={} if extension is None else extension.settings,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialTask:
        """The inverse of `dataclasses.asdict`. Raises TypeError for what another version wrote."""
        parts = {"saving": SavingLimits, "scoring": Scoring, "repeats": Repeats, "memory": MemoryWishes}
        return cls(**{**data, **{name: part(**data[name]) for name, part in parts.items()}})


def run_task(
    objective: Objective,
    task: TrialTask,
    channel: AttemptChannel,
    suggestions: SuggestionChannel | None,
    artifact_bytes: Callable[[], int] | None = None,
) -> Outcome:
    """Runs one attempt of the trial. Raises nothing but KeyboardInterrupt, as `run_attempt`.

    `suggestions` answers a trial that defines its space as it runs. `artifact_bytes` is as `StagedFiles` has it.
    """
    if task.defines_by_run and suggestions is not None:
        study = StudyFacts(study_name=task.study, direction_names=task.scoring.directions)
        objective = given_trial(objective, suggestions, task.number, study)
    return run_attempt(
        objective,
        task.params,
        channel,
        task.scoring,
        memory=task.memory,
        checkpoints=None if task.checkpoints is None else Path(task.checkpoints),
        repeats=task.repeats,
        files=StagedFiles(Path(task.saved), task.saving, artifact_bytes),
        settings=task.settings,
    )
