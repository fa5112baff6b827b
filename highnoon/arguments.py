"""Checks of what `HPOTrialManager` and `submit` are given: every mistake at once, by the name of its argument."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

from highnoon.local.process import is_trial_process
from highnoon.shared.domain.errors import InvalidInput, Problem, UserInputError
from highnoon.shared.domain.kept_constraints import kept_constraints_problems
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.trial_context import is_trial_running
from highnoon.shared.runtime.urls import normalise

NOT_KNOWN_YET: dict[str, Any] = {
    "objective": "in.process:objective",
    "search_space": {"unknown": ["categorical", [None]]},
}
"""Replaces what only `optimize` knows, so that everything else can be checked before."""

GUARD = "Guard the call with: if __name__ == '__main__':"
"""For a call that the import of an objective's module must not make."""

_IN_A_WORKERS_TRIAL = "HIGHNOON_TICKET"
"""Set by workers in the environment of a trial process."""


def checked(source: str, written: Mapping[str, Any], found: Sequence[Problem]) -> StudySpec:
    try:
        spec = StudySpec.from_json(written)
    except InvalidInput as invalid:
        own = [replace(problem, key="study_name") if problem.key == "name" else problem for problem in invalid.problems]
        raise InvalidInput(source, [*own, *found]) from None
    problems = [*kept_constraints_problems(spec), *found]
    if problems:
        raise InvalidInput(source, problems)
    return spec


def storage_problems(storage: object) -> Sequence[Problem]:
    if storage is None:
        return ()
    if not isinstance(storage, str):
        return [Problem(key="storage", message="must be the address of a database, or None", value=storage)]
    try:
        normalise(storage, key="storage")
    except InvalidInput as invalid:
        return invalid.problems
    return ()


def place_problems(place: object) -> Sequence[Problem]:
    if place is None or (isinstance(place, str | Path) and str(place)):
        return ()
    message, hint = "must be a folder or an address of fsspec", 'Write for example "artifacts".'
    return [Problem(key="artifacts", message=message, value=place, hint=hint)]


def callable_problems(key: str, values: Iterable[object]) -> list[Problem]:
    return [Problem(key=key, message="must be callable", value=value) for value in values if not callable(value)]


def listed_callbacks(given: Any) -> Any:
    """Returns the callbacks as a list; accepts one callback or an iterator. Anything else is returned as it is."""
    if callable(given):
        return [given]
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else given


def callback_problems(called: object) -> list[Problem]:
    if isinstance(called, list):
        return callable_problems("callbacks", called)
    return [Problem(key="callbacks", message="must be functions of (study, trial)", value=called)]


def trial_number(given: object) -> int:
    """The number of a trial, also NumPy's. Raises InvalidInput for anything else, which no database would take."""
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise InvalidInput.of("trial", "number", "must be the number of a trial, such as 7", value=given)
    return int(given)


def name_of_plugin(given: object) -> object:
    """The name of an object's class for a sampler or pruner of Optuna's interface; everything else as it is."""
    kinds = [getattr(sys.modules.get(f"optuna.{module}"), name, ()) for module, name in _OPTUNA]
    kind = type(given)
    return f"{kind.__module__}:{kind.__name__}" if isinstance(given, tuple(filter(None, kinds))) else given


def sampler_problems(given: object) -> list[Problem]:
    """Optuna's BruteForceSampler looks for its trial among the stored ones, and a point is chosen before that."""
    refused = getattr(sys.modules.get("optuna.samplers"), "BruteForceSampler", ())
    if not isinstance(given, refused):
        return []
    message, hint = "must not be Optuna's BruteForceSampler", 'Write sampler="brute_force", and give a search space.'
    return [Problem(key="sampler", message=message, value=type(given).__name__, hint=hint)]


_OPTUNA = (("samplers", "BaseSampler"), ("pruners", "BasePruner"))
"""Not imported for this: without it there is no such object."""


def jobs_problems(n_jobs: object, isolation: str | None) -> list[Problem]:
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, Integral) or (int(n_jobs) < 1 and n_jobs != -1):
        hint = "Write -1 for one per core."
        return [Problem(key="n_jobs", message="must be an integer of at least 1, or -1", value=n_jobs, hint=hint)]
    if n_jobs != 1 and isolation == "none":
        message, hint = 'needs processes, and isolation is "none"', 'Leave isolation out, or write "fork".'
        return [Problem(key="n_jobs", message=message, value=n_jobs, hint=hint)]
    return []


def refuse_in_a_workers_trial(what: str, remedy: str) -> None:
    if _IN_A_WORKERS_TRIAL in os.environ:
        raise UserInputError(f"{what}: a worker's trial runs in this process, without any database. {remedy}")


def refuse_where_an_objective_is_imported(what: str) -> None:
    """In a worker's trial, and while the new interpreter of a trial imports the objective's module: it would start
    another one, without end. Studies within a running trial are none of this."""
    refuse_in_a_workers_trial(what, GUARD)
    if is_trial_process() and not is_trial_running():
        raise UserInputError(f"{what}: the new interpreter of a trial imports this module, for the objective. {GUARD}")


def refuse_lost_plugins(what: str, plugins: Mapping[str, object]) -> None:
    """Where a sampler or pruner was given as an object, and the manager has come from another process."""
    lost = [kind for kind in ("sampler", "pruner") if kind not in plugins]
    if lost:
        are_objects, them = ("is an object", "it") if len(lost) == 1 else ("are objects", "them")
        raise UserInputError(
            f"{what}: {' and '.join(lost)} {are_objects} of another process. Give {them} again, to an HPOTrialManager "
            "that is made here."
        )
