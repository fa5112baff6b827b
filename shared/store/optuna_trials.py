"""What our studies do to Optuna's trials, as values and one seam; and from Optuna's frozen trials to ours.

Two implementations pass one contract suite: `optuna_sql.SqlTrials` on a database, where each act is one transaction,
and `in_memory.MemoryTrials` in a single process. Both leave sampling and every decision to `optuna_study`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from highnoon.shared.domain.artifact import ARTIFACT, Artifact
from highnoon.shared.domain.extension import EXTENSION, Extension
from highnoon.shared.domain.lease import EnqueuedTrial
from highnoon.shared.domain.metric_history import METRIC_HISTORY
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Params, Report, Trial
from highnoon.shared.search.samplers import Distributions
from highnoon.shared.store.trial_results import ACTIVE_PARAMS, LOSS, PARAMS, TrialResult

_OF_ONE_RUN = ("completed_rung_", "constraints", ARTIFACT, METRIC_HISTORY)
"""System attributes about how one trial went: a retry starts without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrial:
    """All that is written when a trial starts. `waiting_trial_id`: an enqueued trial becomes it.

    Parameters without a distribution are fixed, but not asked for yet: a trial that defines its space may never do so.
    """

    params: Params
    distributions: Distributions
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    waiting_trial_id: int | None = None
    extension: Extension | None = None
    """Its attributes have that, too."""
    begun: int | None = None
    """It is started only while so many trials of the study have begun; None: always."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedTrial:
    """A RUNNING trial and its point. `number` is what people see, `trial_id` what statements name."""

    trial_id: int
    number: int
    params: Params
    ordinal: int = 0
    """Of its ticket; without one, what its seed follows from."""
    extends: int | None = None
    """The number of the trial that it goes on from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierEnding:
    """How a trial had ended already."""

    state: TrialState
    values: tuple[float, ...]

    def agrees(self, result: TrialResult) -> bool:
        """Whether it had ended just so. A pruned trial's value may be its last report."""
        if self.state is not result.state:
            return False
        own = result.values if result.value is None else (result.value,)
        return self.values == own or (result.state is TrialState.PRUNED and not own)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeOrdinal:
    """An ordinal that no trial had when it was chosen.

    `begun`: how many trials had begun then, where the ordinal must not be used once there are more.
    """

    ordinal: int
    begun: int | None = None


OrdinalSource = Callable[[int], FreeOrdinal]
"""Gives the ordinal of the next trial, by how many have been chosen for it in vain."""


class Trials(Protocol):
    """The trials of one study. Each act is one transaction where there are transactions."""

    def waiting(self) -> EnqueuedTrial | None:
        """The oldest enqueued trial, without a lock."""

    def start(self, new: NewTrial) -> StartedTrial | None:
        """A RUNNING trial; None when the enqueued trial was taken meanwhile, or another number of trials has begun.

        Raises UnknownStudy.
        """

    def add(self, trial_id: int, new: NewTrial) -> None:
        """Adds parameters and attributes. Does nothing to a trial that is not RUNNING; the first value stays."""

    def add_reports(self, trial_id: int, reports: Sequence[Report]) -> None:
        """The first report of a step stays. Does nothing to a trial that is not RUNNING."""

    def finish(self, trial_id: int, result: TrialResult) -> EarlierEnding | None:
        """None once the trial ended so; how it had ended before, unchanged, when it had. Raises UnknownStudy."""

    def own_domains(self) -> Distributions:
        """The parameters of the newest trial that this program started, as it has them."""

    def artifacts(self, number: int | None = None) -> dict[int, list[Artifact]]:
        """The artifacts of each trial that has some, by its number, as they are now; of one trial, or of all."""

    def remove_artifacts(self, artifacts: Collection[Artifact]) -> None:
        """Takes them out of the attributes of their trials. Their files are gone."""

    def metric_history(self, number: int) -> object:
        """The attribute METRIC_HISTORY of a trial, which no reading of the history has; None without one."""

    def keep_study_attr(self, key: str, value: Any) -> Any:
        """The study's attribute, which is `value` from now on if it had none: the first writer decides for all."""


def param_rows(new: NewTrial) -> list[dict[str, Any]]:
    """Rows of Optuna's table of parameters, without the trial's id."""
    return [
        {
            "param_name": name,
            "param_value": new.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(new.distributions[name]),
        }
        for name, value in new.params.items()
        if name in new.distributions
    ]


def fixed_params(enqueued: str | None, stored: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """What an enqueued trial fixes: by `enqueue_trial`, as JSON, and by rows (name, value, domain) that it has.

    A clone that Optuna's retry callback made has all of its parameters as rows.
    """
    fixed = {} if enqueued is None else dict(json.loads(enqueued))
    return fixed | {name: json_to_distribution(domain).to_external_repr(value) for name, value, domain in stored}


def extension_of(stored: str | None) -> Extension | None:
    """The attribute EXTENSION, as JSON. Raises what `Extension.from_json` raises."""
    return None if stored is None else Extension.from_json(json.loads(stored))


def extension_in(trial: FrozenTrial) -> Extension | None:
    """What the trial goes on from; None for one that begins at its beginning."""
    written = trial.system_attrs.get(EXTENSION)
    return None if written is None else Extension.from_json(written)


def find_trial(study: Study, number: int) -> FrozenTrial | None:
    """The trial of that number; None where the study has none."""
    storage = study._storage
    try:
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, number))
    except KeyError:
        return None


def inherited_by_retry(failed: FrozenTrial) -> dict[str, Any]:
    """System attributes of a retry, as Optuna's own retry callback writes them: the first trial, and all so far."""
    kept = {key: value for key, value in failed.system_attrs.items() if not key.startswith(_OF_ONE_RUN)}
    history = [*kept.get("retry_history", ()), failed.number]
    return {**kept, "failed_trial": history[0], "retry_history": history}


def stored_values(trial: FrozenTrial, result: TrialResult) -> list[float] | None:
    """The values that a trial which ends so gets; a pruned one may have its last report."""
    value = result.value
    if value is None and result.state is TrialState.PRUNED and not result.has_goals and trial.last_step is not None:
        last = trial.intermediate_values[trial.last_step]
        value = None if math.isnan(last) else last
    return (list(result.values) if value is None else [value]) or None


def trial_of(frozen: FrozenTrial) -> Trial:
    """The trial as the rest of the system knows it; shares nothing that the study's cache holds."""
    values = tuple(frozen.values or ())
    value = values[0] if len(values) == 1 else None
    return Trial(
        number=frozen.number,
        state=TrialState[frozen.state.name],
        params=dict(frozen.params),
        value=value,
        values=values if len(values) > 1 else (),
        loss=_number(frozen.user_attrs.get(LOSS, value)),
        params_count=frozen.user_attrs.get(PARAMS),
        active_params=frozen.user_attrs.get(ACTIVE_PARAMS),
        constraints=dict(frozen.constraints),
        reports=tuple(Report(step=step, value=value) for step, value in sorted(frozen.intermediate_values.items())),
        started_at=_aware(frozen.datetime_start),
        ended_at=_aware(frozen.datetime_complete),
        attrs=dict(frozen.user_attrs),
    )


def _number(written: float | str | None) -> float | None:
    """Infinity is written as text."""
    return None if written is None else float(written)


def _aware(local: datetime | None) -> datetime | None:
    """Optuna gives out naive local time."""
    return None if local is None else local.astimezone(timezone.utc)
