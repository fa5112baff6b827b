"""The checks of a study's keys, each in the light of the keys before it: what `StudySpec` runs when it is read.

A check returns what the study keeps, and raises what `validation.refusal` makes of its Problems. What a key means alone
is judged by the file of its grammar: `space`, `goals`, `param_constraints`, `notification`, `memory_sizes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationInfo

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.goals import prune_on_problem, read_constraints, read_objectives
from highnoon.shared.domain.grid import grid_problems
from highnoon.shared.domain.memory_sizes import memory_limit, memory_limit_problem, warning_fraction_problem
from highnoon.shared.domain.notification import notify_problems, notify_table
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.param import Categorical, Float, SearchSpace
from highnoon.shared.domain.param_constraints import read_param_constraints
from highnoon.shared.domain.pruner_spec import PrunerSpec
from highnoon.shared.domain.scalars import is_storable
from highnoon.shared.domain.space import read_space
from highnoon.shared.domain.strategy import several_problems
from highnoon.shared.domain.study_hints import moved_up
from highnoon.shared.domain.trial_environment import environment_problems
from highnoon.shared.domain.validation import refusal

NAME_LIMIT = 100
NAME_BYTES = 255
"""As many as the name of a folder can have."""

_FOR_SEVERAL = {
    "target_value": "End it by n_trials or timeout.",
    "early_stop": "End it by n_trials or timeout.",
    "repeats": "Take the mean within the objective.",
    "param_budget": 'Make the size an objective, params = "minimize", or a constraint, params = "<= 5e6".',
}


def name_fits_into_paths_and_addresses(name: str) -> str:
    """The name becomes a file's name, an address and an argument."""
    wrong = name_flaw(name)
    if wrong:
        meant = name.replace("/", "-").strip().lstrip("-")
        hint = "" if name_flaw(meant) else f'Write for example "{meant}".'
        raise refusal([Problem(key="name", message=wrong, value=name, hint=hint)])
    return name


def objective_is_a_reference(objective: str) -> str:
    """The objective, as ObjectiveRef writes it."""
    try:
        return str(ObjectiveRef.parse(objective))
    except InvalidInput as invalid:
        raise refusal(invalid.problems) from None


def pruner_suits_the_sampler(pruner: PrunerSpec, info: ValidationInfo) -> PrunerSpec:
    """A sampler that ends trials itself has none: neither the default one nor another."""
    sampler = info.data.get("sampler")
    if sampler is None or not sampler.goes_on_from_checkpoints:
        return pruner
    if pruner in (PrunerSpec(name="median"), PrunerSpec(name="none")):
        return PrunerSpec(name="none")
    message = f"is not asked by the sampler {sampler.name}, which ends trials itself"
    raise refusal([Problem(key="pruner", message=message, value=pruner.name, hint="Leave it out.")])


def repeats_suit_the_sampler(repeats: int, info: ValidationInfo) -> int:
    """Of several runs of a point none could go on."""
    sampler = info.data.get("sampler")
    if repeats > 1 and sampler is not None and sampler.goes_on_from_checkpoints:
        message = f"is not possible with the sampler {sampler.name}, whose trials go on from one another"
        raise refusal([Problem(key="repeats", message=message, value=repeats, hint="Leave it out.")])
    return repeats


def objectives_suit_the_strategy(written: object, info: ValidationInfo) -> dict[str, str] | None:
    """Several objectives, in the grammar of `goals`, which sampler and pruner can serve."""
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


def prune_on_is_an_objective(written: object, info: ValidationInfo) -> str | None:
    """One of the objectives, which a pruner that is asked for needs."""
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


def constraints_are_bounds(written: object) -> dict[str, str]:
    """Bounds on metrics, in the grammar of `goals`."""
    constraints, problems = read_constraints(written)
    if problems:
        raise refusal(problems)
    return constraints


def is_for_one_objective(written: Any, info: ValidationInfo) -> Any:
    """Refuses keys that have no meaning for several objectives."""
    key = str(info.field_name)
    if written != (1 if key == "repeats" else None) and info.data.get("objectives"):
        value = written.model_dump() if isinstance(written, BaseModel) else written
        raise refusal([Problem(key=key, message="is for one objective", value=value, hint=_FOR_SEVERAL[key])])
    return written


def search_space_suits_the_sampler(cls: type[BaseModel], written: object, info: ValidationInfo) -> SearchSpace:
    """The parameters; a grid needs a finite space, and some samplers need one at all."""
    sampler = info.data.get("sampler")
    if written is None:
        if sampler is not None and sampler.needs_space:
            raise refusal([Problem(key="search_space", message=f"the sampler {sampler.name} needs one")])
        return {}
    space, problems = read_space(written)
    if sampler is not None and sampler.is_exhaustive:
        problems += grid_problems(space, sampler.options.get("points"))
    if space and sampler is not None and sampler.goes_on_from_checkpoints:
        problems += _mutation_problems(space, sampler.options.get("mutate"))
    if problems:
        raise refusal(moved_up(problem, cls.model_fields) for problem in problems)
    return space


def _mutation_problems(space: SearchSpace, mutate: Sequence[str] | None) -> list[Problem]:
    """Of the parameters that a member changes when it goes on. A space of one point has none that could."""
    if all(isinstance(param, Categorical) and len(param.choices) == 1 for param in space.values()):
        return []
    floats = [name for name, param in space.items() if isinstance(param, Float)]
    if mutate is None and not floats:
        message = "the sampler pbt changes real numbers, and there are none"
        hint = f'Name what may change between two checkpoints: mutate = ["{next(iter(space))}"].'
        return [Problem(key="sampler.mutate", message=message, hint=hint)]
    unknown = [name for name in mutate or () if name not in space]
    message = "is no parameter of the search_space"
    return [Problem(key="sampler.mutate", message=message, value=name, hint=nearest(name, space)) for name in unknown]


def param_constraints_suit_the_space(written: object, info: ValidationInfo) -> tuple[str, ...]:
    """Conditions on parameters that the space has; a grid must have points that keep them."""
    # Without a space that could be read, every name in a constraint would seem wrong.
    space, sampler = info.data.get("search_space"), info.data.get("sampler")
    constraints, problems = read_param_constraints(written, space)
    if constraints and space and sampler is not None and sampler.is_exhaustive:
        problems = [*problems, *grid_problems(space, sampler.options.get("points"), constraints)]
    if problems:
        raise refusal(problems)
    return tuple(map(str, constraints))


def warm_start_names_other_studies(written: object, info: ValidationInfo) -> tuple[str, ...]:
    """A list of other studies' names."""
    hint = 'Write for example warm_start = ["first-study"].'
    if not isinstance(written, list | tuple) or not all(
        isinstance(name, str) and name and is_storable(name) for name in written
    ):
        raise refusal([Problem(key="warm_start", message="must be a list of names", value=written, hint=hint)])
    if written and info.data.get("search_space") == {}:
        raise refusal([Problem(key="warm_start", message="needs a search_space", value=written)])
    if info.data.get("name") in written:
        message = "names the study itself, whose trials its sampler knows anyway"
        raise refusal([Problem(key="warm_start", message=message, value=written)])
    return tuple(written)


def environment_suits_trials(written: object, info: ValidationInfo) -> dict[str, str]:
    """Variables for processes of trials."""
    problems = environment_problems(written)
    if written and info.data.get("isolation") == "none":
        message = "needs a process for each trial, and isolation is none"
        problems.append(Problem(key="environment", message=message, value=written))
    if problems or not isinstance(written, Mapping):
        raise refusal(problems)
    return dict(written)


def notify_is_a_table(written: object) -> dict[str, Any] | None:
    """Where notifications are sent, in the grammar of `notification`."""
    problems = [] if written is None else notify_problems(written)
    if problems:
        raise refusal(problems)
    return notify_table(written) if isinstance(written, Mapping) else None


def early_stop_is_a_table(written: object) -> object:
    """A table, which the model reads."""
    if written is None or isinstance(written, Mapping | BaseModel):
        return written
    message, hint = "must be a table with a patience", "Write for example early_stop = {patience = 30}."
    raise refusal([Problem(key="early_stop", message=message, value=written, hint=hint)])


def a_hard_budget_is_a_budget(is_hard: bool, info: ValidationInfo) -> bool:
    """A hard budget needs one."""
    if is_hard and info.data.get("param_budget", 0) is None:
        hint = "Write for example param_budget = 1000000."
        raise refusal([Problem(key="param_budget_hard", message="needs a param_budget", value=is_hard, hint=hint)])
    return is_hard


def memory_warning_pct_is_a_fraction(fraction: float | None) -> float | None:
    """A fraction, not a percentage."""
    if problem := warning_fraction_problem(fraction):
        raise refusal([problem])
    return fraction


def trial_memory_limit_is_a_size(written: object) -> int | None:
    """Bytes, or a text such as 2 GB."""
    size = None if written is None else memory_limit(written)
    if written is not None and size is None:
        raise refusal([memory_limit_problem(written)])
    return size


def code_dir_is_absolute(code_dir: str | None) -> str | None:
    """An absolute path in UTF-8."""
    if code_dir is None or (Path(code_dir).is_absolute() and is_storable(code_dir)):
        return code_dir
    raise refusal([Problem(key="code_dir", message="must be an absolute path in UTF-8", value=code_dir)])


def name_flaw(name: str) -> str:
    """Why a study cannot have this name; empty when it can. It becomes a file's name, an address and an argument."""
    if not name.strip("."):
        return "must not be only dots" if name else f"must be 1 to {NAME_LIMIT} printable characters"
    if name.startswith("-"):
        return "must not begin with -, or command lines would take it for an option"
    if len(name) > NAME_LIMIT or not name.isprintable() or "/" in name or name != name.strip():
        return f"must be 1 to {NAME_LIMIT} printable characters, without slashes and surrounding blanks"
    return "" if len(name.encode()) <= NAME_BYTES else f"must have at most {NAME_BYTES} bytes, as the name of a folder"
