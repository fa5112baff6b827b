"""The study: the question that is asked, as a person wrote it and as the ledger keeps it.

Owns the keys of a study file and their defaults; `study_checks` checks them, and runs no user code. The text of a file
is read by `study_file`, samplers and pruners are in `sampler_spec` and `pruner_spec`, `objective` judges the source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_serializer, field_validator

from highnoon.shared.domain import study_checks as checks
from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.extension import KEPT_CHECKPOINTS
from highnoon.shared.domain.limits import MOST_FAILURES, MOST_PATIENCE
from highnoon.shared.domain.memory_sizes import MemoryWishes
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.param import SearchSpace, written_form
from highnoon.shared.domain.param_constraints import ParamConstraint, parsed_constraints
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.strategy import Count, Natural, Strict
from highnoon.shared.domain.study_hints import hint_for
from highnoon.shared.domain.validation import Key, problems_in

MOST_TRIALS = 1_000_000
QUESTION = ("direction", "objectives", "constraints", "objective", "param_budget", "lambda_efficiency")
"""What makes a study another study; everything else may differ between two that share a name. For the search space
there is a rule of its own: `space_change`.

The last two set the scale of its scores: on another scale they cannot be compared.
"""

Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
"""Up to 31 years: beyond that, databases cannot add it to a time."""


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EarlyStop(Strict):
    """Ends a study that does not get better: no better value in the last `patience` trials that ended."""

    patience: Annotated[int, Field(ge=1, le=MOST_PATIENCE)]


class StudySpec(Strict):
    """Everything about a study that a person decides. Times are in seconds, memory_warning_pct is a fraction."""

    name: str
    direction: Literal["minimize", "maximize"] = "minimize"
    n_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 50
    objective: str
    sampler: SamplerSpec = SamplerSpec(name="tpe")
    pruner: Annotated[PrunerSpec, Field(validate_default=True)] = PrunerSpec(name="median")
    objectives: dict[str, str] | None = None
    """Several, by name: minimize or maximize. `direction` is not for them."""
    prune_on: Annotated[str | None, Field(validate_default=True)] = None
    """The one of several objectives that is reported, and pruned by."""
    constraints: dict[str, str] = Field(default_factory=dict)
    """Bounds on metrics, such as "<= 20". A trial that does not keep one is infeasible."""
    search_space: SearchSpace = Field(default=None, validate_default=True)
    """Empty: the objective takes a trial and defines its space as it runs."""
    param_constraints: Sequence[str] = ()
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    warm_start: Sequence[str] = ()
    """Studies of the same database whose trials the sampler knows too. They are not counted."""
    resources: Literal["cpu", "gpu"] = "cpu"
    priority: Annotated[int, Field(ge=1, le=1000)] = 1
    max_running: Count | None = None
    isolation: Literal["fork", "spawn", "none"] = "fork"
    environment: Mapping[str, str] = Field(default_factory=dict)

    timeout: Seconds | None = None
    trial_timeout: Seconds | None = None
    stall_timeout: Seconds | None = None
    target_value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max_failures_in_a_row: Annotated[int, Field(ge=0, le=MOST_FAILURES)] | None = None
    """0 is never; left out, 5 end a study that had no success yet."""
    early_stop: EarlyStop | None = None
    keep_best: Count | None = None
    """Only the best so many trials keep their artifacts."""
    keep_checkpoints: Natural = KEPT_CHECKPOINTS
    """The best so many trials keep their last checkpoint, so that they can train longer."""
    max_attempts: Count = 3
    retry_errors: Natural = 0
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often a point is run, each time with a seed of its own; its value is the mean."""

    param_budget: Count | None = None
    lambda_efficiency: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    param_budget_hard: bool = False
    memory_warning_pct: float | None = None
    memory_grace_steps: Count | None = None
    prefetch_buffer_size: Count | None = None
    trial_memory_limit: int | None = None
    notify: Mapping[str, Any] | None = None
    admission: Literal["slots", "measured"] = "slots"

    code_dir: str | None = None
    bundle: Digest | None = None
    code: Digest | None = None
    """The digest of the objective's source tree where it was submitted; `submit` writes it."""
    git: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}\+?$")] | None = None
    """The commit of its folder then, with `+` where files differed from it; `submit` writes it."""

    _check_name = field_validator("name")(checks.name_fits_into_paths_and_addresses)
    _check_objective = field_validator("objective")(checks.objective_is_a_reference)
    _check_pruner = field_validator("pruner")(checks.pruner_suits_the_sampler)
    _check_objectives = field_validator("objectives", mode="plain")(checks.objectives_suit_the_strategy)
    _check_prune_on = field_validator("prune_on", mode="plain")(checks.prune_on_is_an_objective)
    _check_constraints = field_validator("constraints", mode="plain")(checks.constraints_are_bounds)
    _check_single_objective = field_validator("target_value", "early_stop", "param_budget", "repeats")(
        checks.is_for_one_objective
    )
    _check_repeats = field_validator("repeats")(checks.repeats_suit_the_sampler)
    _check_search_space = field_validator("search_space", mode="plain")(checks.search_space_suits_the_sampler)
    _check_param_constraints = field_validator("param_constraints", mode="plain")(
        checks.param_constraints_suit_the_space
    )
    _check_warm_start = field_validator("warm_start", mode="plain")(checks.warm_start_names_other_studies)
    _check_environment = field_validator("environment", mode="plain")(checks.environment_suits_trials)
    _check_notify = field_validator("notify", mode="plain")(checks.notify_is_a_table)
    _check_early_stop = field_validator("early_stop", mode="before")(checks.early_stop_is_a_table)
    _check_param_budget_hard = field_validator("param_budget_hard")(checks.a_hard_budget_is_a_budget)
    _check_memory_warning_pct = field_validator("memory_warning_pct")(checks.memory_warning_pct_is_a_fraction)
    _check_trial_memory_limit = field_validator("trial_memory_limit", mode="before")(
        checks.trial_memory_limit_is_a_size
    )
    _check_code_dir = field_validator("code_dir")(checks.code_dir_is_absolute)

    @field_serializer("search_space")
    def _written_space(self, space: SearchSpace) -> dict[str, Any] | None:
        return {name: written_form(param) for name, param in space.items()} or None

    @property
    def defines_by_run(self) -> bool:
        """Whether its objective takes a trial, as Optuna's do, and suggests parameters as it runs."""
        return not self.search_space

    @property
    def point_constraints(self) -> tuple[ParamConstraint, ...]:
        """What its points must keep."""
        return parsed_constraints(self.param_constraints)

    @property
    def objective_ref(self) -> ObjectiveRef:
        """The objective's reference, taken apart."""
        return ObjectiveRef.parse(self.objective)

    @property
    def ends_trials_early(self) -> bool:
        """Whether what its trials report may end them."""
        decides = self.pruner.name != "none" or self.sampler.goes_on_from_checkpoints
        return decides and (not self.objectives or self.prune_on is not None)

    @property
    def keeps_last_checkpoints(self) -> bool:
        """Whether another trial may go on from what one has left."""
        is_wanted = self.keep_checkpoints > 0 or self.sampler.goes_on_from_checkpoints
        return is_wanted and self.repeats == 1

    @property
    def plugins(self) -> dict[str, ObjectiveRef]:
        """The classes of its own code that sample or prune for it."""
        found = {"sampler": self.sampler.plugin, "pruner": self.pruner.plugin}
        return {kind: ref for kind, ref in found.items() if ref is not None}

    @property
    def memory(self) -> MemoryWishes:
        """The settings of its trials' memory guards."""
        return MemoryWishes(
            memory_warning_pct=self.memory_warning_pct,
            memory_grace_steps=self.memory_grace_steps,
            prefetch_buffer_size=self.prefetch_buffer_size,
            trial_memory_limit=self.trial_memory_limit,
        )

    @property
    def scoring(self) -> Scoring:
        """How this study turns losses into scores."""
        return Scoring(
            direction=self.direction,
            param_budget=self.param_budget,
            lambda_efficiency=self.lambda_efficiency,
            param_budget_hard=self.param_budget_hard,
            objectives=self.objectives or {},
            constraints=self.constraints,
            last_report_counts=self.sampler.goes_on_from_checkpoints,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only, in the grammar of a study file."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, data: Mapping[str, Any], source: str = "stored study") -> StudySpec:
        """The inverse of `to_json`; does not look for the objective. Raises InvalidInput with all problems."""
        spec, problems = validate(data)
        if spec is None:
            raise InvalidInput(source, problems)
        return spec

    def distinct_from(self, other: StudySpec) -> list[str]:
        """The keys that make this another question than `other`: two such studies cannot share a name."""
        # As text, because to Python the choices 1, 1.0 and True are equal.
        mine, theirs = self.to_json(), other.to_json()
        different = [key for key in QUESTION if _canonical(mine[key]) != _canonical(theirs[key])]
        # Their order is the order of the values.
        if list(self.objectives or ()) != list(other.objectives or ()) and "objectives" not in different:
            different.append("order of objectives")
        both_unscored = self.scoring.terms is None and other.scoring.terms is None
        return [key for key in different if key != "lambda_efficiency" or not both_unscored]

    def grid_changes(self, other: StudySpec) -> list[str]:
        """The keys by which its grid has other points than `other` at the same numbers; none where it is no grid."""
        if not self.sampler.is_exhaustive:
            return []
        mine, theirs = self.to_json(), other.to_json()
        keys = ("sampler", "search_space", "param_constraints")
        return [key for key in keys if _canonical(mine[key]) != _canonical(theirs[key])]


def validate(written: Mapping[str, Any]) -> tuple[StudySpec | None, list[Problem]]:
    """The study that `written` describes, or None, with every problem found. Does not look for the objective."""

    def hints(key: Key, kind: str) -> str:
        return hint_for(key, kind, written, StudySpec.model_fields, EarlyStop.model_fields)

    try:
        return StudySpec.model_validate(written), []
    except ValidationError as error:
        return None, problems_in(error, written, hints)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)
