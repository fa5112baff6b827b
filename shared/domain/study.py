"""The study: the question that is asked, as a person wrote it and as the ledger keeps it.

Owns the keys of a study file, their defaults, and every check that runs no user code. The text of a file is read by
`study_file`, samplers and pruners are named in `strategy`, the objective's source is judged by `objective`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_serializer, field_validator

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.grid import grid_problems
from highnoon.shared.domain.memory_sizes import MemoryWishes, bytes_of, nearest_size
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.scalars import is_storable
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.space import KINDS, SearchSpace, read_space, written_form
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.strategy import Count, Natural, Strict
from highnoon.shared.domain.strategy import PrunerSpec as PrunerSpec
from highnoon.shared.domain.strategy import SamplerSpec as SamplerSpec
from highnoon.shared.domain.validation import Key, problems_in, refusal

MOST_TRIALS = 1_000_000
NAME_LIMIT = 100
LEAST_MEMORY_BYTES = 16 << 20
"""A Python process that has imported nothing holds about this much: a smaller size was meant in another unit."""
MOST_MEMORY_BYTES = 1 << 60

FIRST_FAILURES = 5
"""So many failed trials in a row before the first that did not fail end a study that names no number of its own."""

QUESTION = ("direction", "objective", "search_space", "param_budget", "lambda_efficiency")
"""What makes a study another study; everything else may differ between two that share a name.

The last two set the scale of its scores: on another scale they cannot be compared.
"""

OWN_FAILURES = frozenset({Ending.FAILED, Ending.TIMED_OUT})
"""Failures that count before the first success: those of the study's own code, not of a node."""


def failure_limit(spec: Mapping[str, Any]) -> int:
    """How many failures in a row end the study that this describes; 0 where none do."""
    most = spec.get("max_failures_in_a_row")
    return FIRST_FAILURES if most is None else int(most)


Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
"""Up to 31 years: beyond that, databases cannot add it to a time."""


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StudySpec(Strict):
    """Everything about a study that a person decides. Times are in seconds, memory_warning_pct is a fraction."""

    name: str
    direction: Literal["minimize", "maximize"] = "minimize"
    n_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 50
    objective: str
    sampler: SamplerSpec = SamplerSpec(name="tpe")
    pruner: PrunerSpec = PrunerSpec(name="median")
    search_space: SearchSpace
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    resources: Literal["cpu", "gpu"] = "cpu"
    isolation: Literal["fork", "spawn", "none"] = "fork"

    timeout: Seconds | None = None
    trial_timeout: Seconds | None = None
    stall_timeout: Seconds | None = None
    target_value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max_failures_in_a_row: Natural | None = None
    """0 is never; left out, FIRST_FAILURES end a study that had no success yet."""
    max_attempts: Count = 3
    retry_errors: Natural = 0

    param_budget: Count | None = None
    lambda_efficiency: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    param_budget_hard: bool = False
    memory_warning_pct: float | None = None
    memory_grace_steps: Count | None = None
    prefetch_buffer_size: Count | None = None
    trial_memory_limit: int | None = None
    admission: Literal["slots", "measured"] = "slots"

    code_dir: str | None = None
    bundle: Digest | None = None
    code: Digest | None = None
    """The digest of the objective's source tree where it was submitted; `submit` writes it."""

    @field_validator("name")
    @classmethod
    def _name_fits_into_paths_and_addresses(cls, name: str) -> str:
        fits = len(name) <= NAME_LIMIT and name.isprintable() and "/" not in name and name == name.strip()
        if not fits or not name.strip("."):
            message = f"must be 1 to {NAME_LIMIT} printable characters, without slashes and surrounding blanks"
            raise refusal([Problem(key="name", message=message, value=name)])
        return name

    @field_validator("objective")
    @classmethod
    def _objective_is_a_reference(cls, objective: str) -> str:
        try:
            return str(ObjectiveRef.parse(objective))
        except InvalidInput as invalid:
            raise refusal(invalid.problems) from None

    @field_validator("search_space", mode="plain")
    @classmethod
    def _search_space_suits_the_sampler(cls, written: object, info: ValidationInfo) -> SearchSpace:
        space, problems = read_space(written)
        sampler = info.data.get("sampler")
        if sampler is not None and sampler.name == "grid":
            problems += grid_problems(space, sampler.options.get("points"))
        if problems:
            raise refusal(map(_moved_up, problems))
        return space

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
        size = None if written is None else bytes_of(written)
        if written is None or (size is not None and LEAST_MEMORY_BYTES <= size <= MOST_MEMORY_BYTES):
            return size
        hint = f'Write for example "{nearest_size(written, least_bytes=LEAST_MEMORY_BYTES)}".'
        message = 'must be a size of memory like "2 GB" or a number of bytes, at least 16 MiB'
        raise refusal([Problem(key="trial_memory_limit", message=message, value=written, hint=hint)])

    @field_validator("code_dir")
    @classmethod
    def _code_dir_is_absolute(cls, code_dir: str | None) -> str | None:
        if code_dir is None or (Path(code_dir).is_absolute() and is_storable(code_dir)):
            return code_dir
        raise refusal([Problem(key="code_dir", message="must be an absolute path in UTF-8", value=code_dir)])

    @field_serializer("search_space")
    def _written_space(self, space: SearchSpace) -> dict[str, Any]:
        return {name: written_form(param) for name, param in space.items()}

    @property
    def objective_ref(self) -> ObjectiveRef:
        """The objective's reference, taken apart."""
        return ObjectiveRef.parse(self.objective)

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
        both_unscored = self.scoring.terms is None and other.scoring.terms is None
        return [key for key in different if key != "lambda_efficiency" or not both_unscored]


_EXAMPLES = {
    ("name",): 'Write for example name = "digits".',
    ("objective",): 'Write for example objective = "train.py:objective".',
    ("search_space",): 'Write for example search_space = {learning_rate = ["log_uniform", 1e-5, 1e-3]}.',
    ("sampler", "name"): f"Valid: {', '.join(SamplerSpec.kinds)}.",
    ("pruner", "name"): f"Valid: {', '.join(PrunerSpec.kinds)}.",
}


def validate(written: Mapping[str, Any]) -> tuple[StudySpec | None, list[Problem]]:
    """The study that `written` describes, or None, with every problem found. Does not look for the objective."""
    try:
        return StudySpec.model_validate(written), []
    except ValidationError as error:
        return None, problems_in(error, written, lambda key, kind: _hint_for(key, kind, written))


def _hint_for(key: Key, kind: str, written: Mapping[str, Any]) -> str:
    if kind == "missing":
        return _EXAMPLES.get(key, "")
    if kind != "extra_forbidden":
        return ""
    *tables, name = key
    if not tables:
        return _belongs_into_space(written[name]) or nearest(name, StudySpec.model_fields)
    if name in StudySpec.model_fields:
        return _move_up(name, tables[0])
    return nearest(name, _options(tables[0], written))


def _options(table: str, written: Mapping[str, Any]) -> list[str]:
    kinds = {"sampler": SamplerSpec.kinds, "pruner": PrunerSpec.kinds}[table]
    return list(kinds[written[table]["name"]].model_fields)


def _belongs_into_space(value: object) -> str:
    is_domain = isinstance(value, list | tuple) and value and isinstance(value[0], str) and value[0] in KINDS
    return "A parameter stands under [search_space]." if is_domain else ""


def _moved_up(problem: Problem) -> Problem:
    """TOML takes every key below [search_space] for a parameter, also one that was meant for the study."""
    _, _, name = problem.key.partition(".")
    if name not in StudySpec.model_fields or isinstance(problem.value, list | tuple):
        return problem
    return replace(problem, hint=_move_up(name, "search_space"))


def _move_up(name: str, table: str) -> str:
    return f"Move {name} above [{table}], to the keys of the study."


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)
