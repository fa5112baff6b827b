"""Define-by-run: the object that an objective with Optuna's interface gets, `objective(trial)`.

Holds no study and imports no Optuna: every question goes through the trial's channel to the process that runs it, which
answers as Optuna would. Reports and attributes are stored as Optuna would store them.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from highnoon.shared.domain.scalars import Mistake, choice, listed, plain
from highnoon.shared.domain.states import LONGEST_KEY, RESERVED
from highnoon.shared.domain.trial import Params
from highnoon.shared.objective import trial_context
from highnoon.shared.objective.trial_events import MOST_TEXT

_NEARLY = 1e-8
"""How near to a whole number of steps a value must be, as Optuna has it."""

_TRIAL = "trial"
_ANNOTATIONS = ("Trial", "optuna.Trial", "optuna.trial.Trial")


class SuggestionChannel(Protocol):
    """What answers a defining trial. Each call may raise TrialStopped or TrialCancelled."""

    def suggest(self, name: str, domain: str) -> float | int:
        """The value of this parameter in Optuna's JSON of its domain; of choices the index. Raises ValueError."""

    def relative_params(self) -> Params:
        """What the sampler chose jointly."""

    def set_attr(self, key: str, value: Any) -> None:
        """Records an attribute of the user's: it is in the database with the next report, at the latest at the end."""

    def set_constraint(self, key: str, value: float) -> None:
        """Records a constraint of the user's: above 0 is infeasible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What pruning callbacks read of a trial's study."""

    study_name: str
    direction_names: tuple[str, ...]

    @property
    def direction(self) -> Any:
        """The direction of the only objective. Raises RuntimeError where there are several, as Optuna does."""
        if len(self.direction_names) > 1:
            raise RuntimeError("the study has several objectives: use trial.study.directions")
        return self.directions[0]

    @property
    def directions(self) -> list[Any]:
        """Optuna's StudyDirections, where the user's code has Optuna imported; else their names."""
        directions = getattr(sys.modules.get("optuna.study"), "StudyDirection", None)
        return [name if directions is None else directions[name.upper()] for name in self.direction_names]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"trial.study has no {name!r} on HighNoon: a trial's process holds no database. "
            "It has study_name, direction and directions."
        )


class DefinedTrial:
    """Optuna's Trial, as far as an objective uses it."""

    def __init__(
        self,
        channel: SuggestionChannel,
        number: int,
        study: StudyFacts | None = None,
        fixed: Container[str] = (),
    ) -> None:
        if study is not None:
            self.study = study
        self._channel = channel
        self._number = number
        self._fixed = fixed
        self._asked: dict[str, str] = {}
        self._answers: dict[str, float | int] = {}
        self._params: dict[str, Any] = {}
        self._user_attrs: dict[str, Any] = {}
        self._constraints: dict[str, float] = {}
        self._started_at = datetime.now()

    @property
    def number(self) -> int:
        """Of this trial in its study."""
        return self._number

    @property
    def params(self) -> dict[str, Any]:
        """Every value that was suggested so far."""
        return dict(self._params)

    @property
    def user_attrs(self) -> dict[str, Any]:
        """What `set_user_attr` recorded."""
        return dict(self._user_attrs)

    @property
    def constraints(self) -> dict[str, float]:
        """What `set_constraint` recorded."""
        return dict(self._constraints)

    @property
    def datetime_start(self) -> datetime:
        """When this attempt began, in local time."""
        return self._started_at

    @property
    def relative_params(self) -> Params:
        """What the sampler chose jointly for parameters that all earlier trials have."""
        return self._channel.relative_params()

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A real number from low to high."""
        bounds = {"low": float(low), "high": float(high), "step": None if step is None else float(step), "log": log}
        return float(self._suggest(name, "FloatDistribution", bounds))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number from low to high."""
        bounds = {"low": int(low), "high": int(high), "step": int(step), "log": log}
        return int(self._suggest(name, "IntDistribution", bounds))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices. What is no plain value is stored as its text, and returned as it is."""
        options = list(choices)
        stored = {"choices": [_stored(option, index) for index, option in enumerate(options)]}
        index = int(self._suggest(name, "CategoricalDistribution", stored))
        self._params[name] = options[index]
        return options[index]

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """The older name of `suggest_float`."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """The older name of `suggest_float` with `log=True`."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """The older name of `suggest_float` with a step."""
        return self.suggest_float(name, low, high, step=q)

    def report(self, value: float, step: int) -> None:
        """An intermediate value."""
        trial_context.channel().report(value, step)

    def should_prune(self) -> bool:
        """Whether the study's pruner would end this trial now."""
        return trial_context.channel().should_prune()

    def set_user_attr(self, key: str, value: Any) -> None:
        """Anything that JSON can hold, and NumPy's numbers and arrays, as numbers and lists.

        Raises TypeError for all else, ValueError for a name of ours or too much.
        """
        _check_key(key)
        try:
            text = json.dumps(value, default=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"the attribute {key!r} cannot be stored as JSON: {error}") from None
        if len(text) > MOST_TEXT:
            raise ValueError(f"the attribute {key!r} is longer than {MOST_TEXT:,} characters: write it to a file")
        self._channel.set_attr(key, json.loads(text))
        self._user_attrs[key] = value

    def set_constraint(self, key: str, value: float) -> None:
        """The first value of a constraint stays; above 0 is infeasible. Raises TypeError, ValueError for no number."""
        _check_key(key)
        number = float(value)
        if math.isnan(number):
            raise ValueError(f"the constraint {key!r} may not be NaN")
        if key not in self._constraints:
            self._channel.set_constraint(key, number)
            if trial_context.is_trial_running():
                trial_context.channel().set_constraint(key, number)
            self._constraints[key] = number

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a trial on HighNoon has no {name!r}: it holds no study and no database. "
            f"It has {', '.join(entry for entry in dir(type(self)) if not entry.startswith('_'))}."
        )

    def _suggest(self, name: str, kind: str, attributes: Mapping[str, Any]) -> float | int:
        domain = json.dumps({"name": kind, "attributes": attributes})
        if self._asked.get(name) == domain:
            return self._answers[name]
        answer = self._channel.suggest(name, domain)
        if name in self._fixed and name not in self._asked and not _holds(answer, attributes):
            shown = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()))
            message = f"Fixed parameter {name} with value {answer} is out of range for distribution {kind}({shown})."
            warnings.warn(message, stacklevel=3)  # as Optuna does, and runs it
        self._asked[name], self._answers[name] = domain, answer
        self._params[name] = answer
        return answer


def _holds(value: float, domain: Mapping[str, Any]) -> bool:
    if "low" not in domain:
        return True
    low, high, step = domain["low"], domain["high"], domain["step"]
    steps = (value - low) / (step or 1)
    return bool(low <= value <= high) and (step is None or abs(steps - round(steps)) < _NEARLY)


def _check_key(key: str) -> None:
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        raise ValueError(f"a name must be text of 1 to {LONGEST_KEY} printable characters (got {key!r})")
    if key.startswith(RESERVED):
        raise ValueError(f"attributes that begin with {RESERVED} are HighNoon's own (got {key!r})")


def _plain(value: object) -> object:
    """NumPy's scalars and arrays for JSON. Raises TypeError for all else."""
    converted = plain(listed(value))
    if converted is value:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return converted


def takes_trial(objective: Callable[..., object]) -> bool:
    """Whether an objective wants Optuna's interface: its argument is called `trial`, or annotated as one."""
    try:
        parameters = list(inspect.signature(objective).parameters.values())
    except (TypeError, ValueError):  # no signature, as some built-in functions have none
        return False
    if not parameters:
        return False
    return is_trial(parameters[0].name, parameters[0].annotation)


def is_trial(name: str, annotation: object) -> bool:
    """Whether an argument of this name and annotation, as an object or as it is written, is a trial."""
    written = annotation if isinstance(annotation, str) else _full_name(annotation)
    return name == _TRIAL or written.strip("\"'") in _ANNOTATIONS or written == "optuna.trial._trial.Trial"


def given_trial(
    objective: Callable[[Any], object], channel: SuggestionChannel, number: int, study: StudyFacts | None = None
) -> Callable[[Any], object]:
    """The objective as `attempt.run_attempt` calls it, with no parameters but those that are fixed before."""

    def run(fixed: Params) -> object:
        trial = DefinedTrial(channel, number, study, fixed)
        returned = objective(trial)
        for name in sorted(fixed.keys() - trial.params.keys()):
            with contextlib.suppress(UserWarning):  # where warnings are errors: the objective has returned
                warnings.warn(f"Fixed parameter {name} with value {fixed[name]!r} was never suggested.", stacklevel=2)
        return returned

    return run


def _full_name(annotation: object) -> str:
    return f"{getattr(annotation, '__module__', '')}.{getattr(annotation, '__qualname__', '')}"


def _stored(value: Any, index: int) -> Any:
    """The text of an object has its address, which no other process has."""
    try:
        return choice(value)
    except Mistake:
        return re.sub(" at 0x[0-9a-fA-F]+", f", choice {index}", repr(value))
