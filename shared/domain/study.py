"""The study: the question that is asked, as a person wrote it and as the ledger keeps it.

Owns the keys of a study file, their defaults, and every check that runs no user code. The text of a file is read by
`study_file`, samplers and pruners are named in `strategy`, the objective's source is judged by `objective`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_serializer, field_validator

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.extension import KEPT_CHECKPOINTS
from highnoon.shared.domain.goals import prune_on_problem, read_constraints, read_objectives
from highnoon.shared.domain.grid import grid_problems
from highnoon.shared.domain.memory_sizes import MemoryWishes, memory_limit, memory_limit_problem
from highnoon.shared.domain.notification import notify_problems, notify_table
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.param_constraints import ParamConstraint, parsed_constraints
from highnoon.shared.domain.param_constraints import read_constraints as read_param_constraints
from highnoon.shared.domain.scalars import is_storable
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.space import SearchSpace, read_space, written_form
from highnoon.shared.domain.strategy import Count, Natural, Strict, several_problems
from highnoon.shared.domain.strategy import PrunerSpec as PrunerSpec
from highnoon.shared.domain.strategy import SamplerSpec as SamplerSpec
from highnoon.shared.domain.study_hints import hint_for, moved_up
from highnoon.shared.domain.trial_environment import environment_problems
from highnoon.shared.domain.validation import Key, problems_in, refusal

MOST_TRIALS = 1_000_000
NAME_LIMIT = 100
QUESTION = ("direction", "objectives", "constraints", "objective", "param_budget", "lambda_efficiency")
"""What makes a study another study; everything else may differ between two that share a name. For the search space
there is a rule of its own: `space_change`.

The last two set the scale of its scores: on another scale they cannot be compared.
"""

Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
"""Up to 31 years: beyond that, databases cannot add it to a time."""


_FOR_SEVERAL = {
    "target_value": "End it by n_trials or timeout.",
    "early_stop": "End it by n_trials or timeout.",
    "repeats": "Take the mean within the objective.",
    "param_budget": 'Make the size an objective, params = "minimize", or a constraint, params = "<= 5e6".',
}

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EarlyStop(Strict):
    """Ends a study that does not get better: no better value in the last `patience` trials that ended."""

    patience: Count


class StudySpec(Strict):
    """Everything about a study that a person decides. Times are in seconds, memory_warning_pct is a fraction."""

    name: str
    direction: Literal["minimize", "maximize"] = "minimize"
    n_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 50
    objective: str
    sampler: SamplerSpec = SamplerSpec(name="tpe")
    pruner: PrunerSpec = PrunerSpec(name="median")
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
    max_failures_in_a_row: Natural | None = None
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

    @field_validator("name")
    @classmethod
    def _name_fits_into_paths_and_addresses(cls, name: str) -> str:
        wrong = name_flaw(name)
        if wrong:
            meant = name.replace("/", "-").strip().lstrip("-")
            hint = "" if name_flaw(meant) else f'Write for example "{meant}".'
            raise refusal([Problem(key="name", message=wrong, value=name, hint=hint)])
        return name

    @field_validator("objective")
    @classmethod
    def _objective_is_a_reference(cls, objective: str) -> str:
        try:
            return str(ObjectiveRef.parse(objective))
        except InvalidInput as invalid:
            raise refusal(invalid.problems) from None

    @field_validator("objectives", mode="plain")
    @classmethod
    def _objectives_suit_the_strategy(cls, written: object, info: ValidationInfo) -> dict[str, str] | None:
        if written is None:
            return None
        objectives, problems = read_objectives(written)
        if info.data.get("direction") == "maximize":
            hint = "Leave it out: each objective has its own."
            problems.append(Problem(key="direction", message="is for one objective", value="maximize", hint=hint))
        problems += several_problems(info.data.get("sampler"), info.data.get("pruner"))
        if problems:
            raise refusal(problems)
        return objectives

    @field_validator("prune_on", mode="plain")
    @classmethod
    def _prune_on_is_an_objective(cls, written: object, info: ValidationInfo) -> str | None:
        objectives, pruner = info.data.get("objectives"), info.data.get("pruner")
        if written is None:
            if objectives and pruner is not None and pruner not in (PrunerSpec(name="median"), PrunerSpec(name="none")):
                hint = f'Write for example prune_on = "{next(iter(objectives))}".'
                message = "prunes by one of several objectives, which prune_on names"
                raise refusal([Problem(key="pruner", message=message, value=pruner.name, hint=hint)])
            return None
        # Of objectives that could not be read, every name would seem wrong.
        problem = prune_on_problem(written, objectives or {}) if "objectives" in info.data else None
        if problem is not None:
            raise refusal([problem])
        return str(written)

    @field_validator("constraints", mode="plain")
    @classmethod
    def _constraints_are_bounds(cls, written: object) -> dict[str, str]:
        constraints, problems = read_constraints(written)
        if problems:
            raise refusal(problems)
        return constraints

    @field_validator("target_value", "early_stop", "param_budget", "repeats")
    @classmethod
    def _is_for_one_objective(cls, written: Any, info: ValidationInfo) -> Any:
        if written not in (None, 1) and info.data.get("objectives"):
            key = str(info.field_name)
            value = written.model_dump() if isinstance(written, EarlyStop) else written
            raise refusal([Problem(key=key, message="is for one objective", value=value, hint=_FOR_SEVERAL[key])])
        return written

    @field_validator("search_space", mode="plain")
    @classmethod
    def _search_space_suits_the_sampler(cls, written: object, info: ValidationInfo) -> SearchSpace:
        sampler = info.data.get("sampler")
        if written is None:
            if sampler is not None and sampler.needs_space:
                raise refusal([Problem(key="search_space", message=f"the sampler {sampler.name} needs one")])
            return {}
        space, problems = read_space(written)
        if sampler is not None and sampler.is_exhaustive:
            problems += grid_problems(space, sampler.options.get("points"))
        if problems:
            raise refusal(moved_up(problem, cls.model_fields) for problem in problems)
        return space

    @field_validator("param_constraints", mode="plain")
    @classmethod
    def _param_constraints_suit_the_space(cls, written: object, info: ValidationInfo) -> tuple[str, ...]:
        # Without a space that could be read, every name in a constraint would seem wrong.
        space, sampler = info.data.get("search_space"), info.data.get("sampler")
        constraints, problems = read_param_constraints(written, space)
        if constraints and space and sampler is not None and sampler.is_exhaustive:
            problems = [*problems, *grid_problems(space, sampler.options.get("points"), constraints)]
        if problems:
            raise refusal(problems)
        return tuple(map(str, constraints))

    @field_validator("warm_start", mode="plain")
    @classmethod
    def _warm_start_names_other_studies(cls, written: object, info: ValidationInfo) -> tuple[str, ...]:
        hint = 'Write for example warm_start = ["first-study"].'
        if not isinstance(written, list | tuple) or not all(isinstance(name, str) and name for name in written):
            raise refusal([Problem(key="warm_start", message="must be a list of names", value=written, hint=hint)])
        if written and info.data.get("search_space") == {}:
            raise refusal([Problem(key="warm_start", message="needs a search_space", value=written)])
        if info.data.get("name") in written:
            message = "names the study itself, whose trials its sampler knows anyway"
            raise refusal([Problem(key="warm_start", message=message, value=written)])
        return tuple(written)

    @field_validator("environment", mode="plain")
    @classmethod
    def _environment_suits_trials(cls, written: object, info: ValidationInfo) -> dict[str, str]:
        problems = environment_problems(written)
        if written and info.data.get("isolation") == "none":
            message = "needs a process for each trial, and isolation is none"
            problems.append(Problem(key="environment", message=message, value=written))
        if problems or not isinstance(written, Mapping):
            raise refusal(problems)
        return dict(written)

    @field_validator("notify", mode="plain")
    @classmethod
    def _notify_is_a_table(cls, written: object) -> dict[str, Any] | None:
        problems = [] if written is None else notify_problems(written)
        if problems:
            raise refusal(problems)
        return notify_table(written) if isinstance(written, Mapping) else None

    @field_validator("early_stop", mode="before")
    @classmethod
    def _early_stop_is_a_table(cls, written: object) -> object:
        if written is None or isinstance(written, Mapping | EarlyStop):
            return written
        message, hint = "must be a table with a patience", "Write for example early_stop = {patience = 30}."
        raise refusal([Problem(key="early_stop", message=message, value=written, hint=hint)])

    @field_validator("param_budget_hard")
    @classmethod
    def _a_hard_budget_is_a_budget(cls, is_hard: bool, info: ValidationInfo) -> bool:
        if is_hard and info.data.get("param_budget", 0) is None:
            hint = "Write for example param_budget = 1000000."
            raise refusal([Problem(key="param_budget_hard", message="needs a param_budget", value=is_hard, hint=hint)])
        return is_hard

    @field_validator("memory_warning_pct")
    @classmethod
    def _memory_warning_pct_is_a_fraction(cls, fraction: float | None) -> float | None:
        if fraction is None or 0 < fraction <= 1:
            return fraction
        hint = f"Write {fraction / 100:g}." if 1 < fraction <= 100 else ""
        message = "must be a fraction between 0 and 1"
        raise refusal([Problem(key="memory_warning_pct", message=message, value=fraction, hint=hint)])

    @field_validator("trial_memory_limit", mode="before")
    @classmethod
    def _trial_memory_limit_is_a_size(cls, written: object) -> int | None:
        size = None if written is None else memory_limit(written)
        if written is not None and size is None:
            raise refusal([memory_limit_problem(written)])
        return size

    @field_validator("code_dir")
    @classmethod
    def _code_dir_is_absolute(cls, code_dir: str | None) -> str | None:
        if code_dir is None or (Path(code_dir).is_absolute() and is_storable(code_dir)):
            return code_dir
        raise refusal([Problem(key="code_dir", message="must be an absolute path in UTF-8", value=code_dir)])

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

    def has_space_of(self, other: StudySpec) -> bool:
        """Whether both have the same points, as far as their spaces decide."""
        mine, theirs = self.to_json(), other.to_json()
        return all(_canonical(mine[key]) == _canonical(theirs[key]) for key in ("search_space", "param_constraints"))


def validate(written: Mapping[str, Any]) -> tuple[StudySpec | None, list[Problem]]:
    """The study that `written` describes, or None, with every problem found. Does not look for the objective."""

    def hints(key: Key, kind: str) -> str:
        return hint_for(key, kind, written, StudySpec.model_fields, EarlyStop.model_fields)

    try:
        return StudySpec.model_validate(written), []
    except ValidationError as error:
        return None, problems_in(error, written, hints)


def name_flaw(name: str) -> str:
    """Why a study cannot have this name; empty when it can. It becomes a file's name, an address and an argument."""
    if not name.strip("."):
        return "must not be only dots" if name else f"must be 1 to {NAME_LIMIT} printable characters"
    if name.startswith("-"):
        return "must not begin with -, or command lines would take it for an option"
    if len(name) > NAME_LIMIT or not name.isprintable() or "/" in name or name != name.strip():
        return f"must be 1 to {NAME_LIMIT} printable characters, without slashes and surrounding blanks"
    return ""


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)
