"""One attempt, from parameters to Outcome: the core that the SDK in process and the worker's trial process share.

Owns what every ending of the user's code means: a return value, an exception, a signal of ours, `sys.exit`.
It knows no study, no database and no process: whoever calls it gives a Channel and persists the Outcome.
What happens to the process itself (kill, segfault, `os._exit`) is seen and judged by the worker's supervisor.

KeyboardInterrupt is the one thing that passes through: a person wants out. In process, `HPOTrialManager.optimize`
tells the trial FAIL and raises it on; in a worker, the trial process ends by it and its supervisor sees that.
"""

from __future__ import annotations

import math
import operator
import reprlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import SupportsFloat, SupportsIndex, TypeVar

from shared.current import Channel, bound
from shared.errors import (
    InvalidInput,
    InvalidObjectiveResult,
    Problem,
    TrialCancelled,
    TrialPruned,
    TrialStopped,
)
from shared.states import Ending
from shared.tracebacks import shortened, storable, text_of, user_traceback
from shared.trial import Outcome, Params, ParamValue, Report

T = TypeVar("T")

Objective = Callable[[Params], object]
"""What a user writes: takes a plain dict of parameters, returns one number; inf is legal and ranks last."""

_shown = reprlib.Repr()
_shown.maxother = _shown.maxstring = 80


def run_attempt(objective: Objective, params: Mapping[str, ParamValue], channel: Channel) -> Outcome:
    """Calls `objective(params)` and says how it ended. Raises nothing but KeyboardInterrupt, whatever the user does."""
    reports = _Reports(channel)
    started = time.monotonic()
    with bound(reports):
        outcome = _ending_of(objective, dict(params), reports)
    return replace(outcome, duration_s=time.monotonic() - started)


class _Reports:
    """The channel as the objective meets it: refuses what is not a report and remembers the last one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.last: Report | None = None

    def report(self, value: object, step: object) -> None:
        """Raises InvalidInput for a value that is no number, or a step that is not an int >= 0."""
        report = _checked_report(value, step)
        if self.last is None or report.step > self.last.step:
            self.last = report
        self._channel.report(report.value, report.step)

    def should_prune(self) -> bool:
        """As the study's pruner says."""
        return self._channel.should_prune()


def _ending_of(objective: Objective, params: Params, reports: _Reports) -> Outcome:
    try:
        return Outcome(ending=Ending.COMPLETED, value=_result(objective(params)))
    except KeyboardInterrupt:
        raise
    except InvalidObjectiveResult as error:
        return Outcome(ending=Ending.FAILED, cause="invalid_result", message=storable(str(error)))
    except SystemExit as error:
        return _exited(error)
    except BaseException as error:  # the border to user code: whatever it raises is an outcome, never our crash
        return _early_end(error, reports) or _failure(error)


def _early_end(error: BaseException, reports: _Reports) -> Outcome | None:
    """The outcome of a signal that ends a trial without a fault; None for everything else."""
    if isinstance(error, _pruned_types()):
        last = None if reports.last is None or math.isnan(reports.last.value) else reports.last.value
        return Outcome(ending=Ending.PRUNED, value=last, cause="pruner", message=storable(text_of(error)))
    if isinstance(error, TrialStopped):
        reason = storable(text_of(error))
        return Outcome(ending=Ending.STOPPED, cause=reason.partition(":")[0] or "stopped", message=reason)
    if isinstance(error, TrialCancelled):
        return Outcome(ending=Ending.CANCELLED, cause="cancelled", message=storable(text_of(error)))
    return None


def _pruned_types() -> tuple[type[BaseException], ...]:
    """Ours, and Optuna's own if the user's code has imported it: either spelling prunes."""
    theirs = getattr(sys.modules.get("optuna"), "TrialPruned", None)
    return (TrialPruned, theirs) if isinstance(theirs, type) and issubclass(theirs, BaseException) else (TrialPruned,)


def _exited(error: SystemExit) -> Outcome:
    code = error.code
    return Outcome(
        ending=Ending.FAILED,
        cause="exited",
        message=storable(f"the objective called sys.exit({'' if code is None else _shown.repr(code)})"),
        traceback=user_traceback(error),
        exit_status=code if isinstance(code, int) else 0 if code is None else 1,
    )


def _failure(error: BaseException) -> Outcome:
    text = " ".join(text_of(error).split())
    name = type(error).__name__
    return Outcome(
        ending=Ending.FAILED,
        cause=_cause_of(error),
        message=storable(f"{name}: {shortened(text, 500)}" if text else name),
        traceback=user_traceback(error),
    )


def _cause_of(error: BaseException) -> str:
    """Memory that ran out has causes of its own; TensorFlow's error is known by name, as we never import it."""
    if isinstance(error, MemoryError):
        return "out_of_memory"
    if any(cls.__name__ == "ResourceExhaustedError" for cls in type(error).__mro__):
        return "out_of_memory" if "device:CPU" in text_of(error) else "oom_gpu"
    return "exception"


def _result(returned: object) -> float:
    """The one number that an objective owes. Raises InvalidObjectiveResult with what it returned instead."""
    expected = "expected one number, such as the validation loss"
    if isinstance(returned, dict):
        expected += " (a dict is not accepted)"
    value = _or_none(_number, returned)
    if value is None:
        raise InvalidObjectiveResult(f"the objective returned {_described(returned)}; {expected}")
    if math.isnan(value):
        raise InvalidObjectiveResult(f"the objective returned {value}; {expected}")
    return value


def _checked_report(value: object, step: object) -> Report:
    number, index = _or_none(_number, value), _or_none(_index, step)
    problems = []
    if number is None:
        problems.append(Problem(key="value", message=f"must be one number, not {_described(value)}"))
    if index is None or index < 0:
        problems.append(Problem(key="step", message=f"must be an integer >= 0, not {_described(step)}"))
    if number is None or index is None or problems:
        raise InvalidInput("report(value, step)", problems)
    return Report(step=index, value=number)


def _or_none(convert: Callable[[object], T], value: object) -> T | None:
    try:
        return convert(value)
    except Exception:  # user code again: their __float__ and __index__ may raise anything
        return None


def _index(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError
    number: SupportsIndex = value  # type: ignore[assignment]
    return operator.index(number)


def _number(value: object) -> float:
    """float() for what is one real number (Python, NumPy, TensorFlow). Raises TypeError, or what their code raises."""
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError
    dtype = getattr(value, "dtype", None)
    if dtype is not None and str(getattr(dtype, "name", dtype)).startswith(("bool", "complex")):
        raise TypeError
    number: SupportsFloat = value  # type: ignore[assignment]
    return float(number)


def _described(value: object) -> str:
    if value is None or type(value) in (int, float):
        return _shown.repr(value)
    shape = getattr(value, "shape", None)
    extent = "" if shape is None else f", shape {_shown.repr(shape)}"
    return f"a value of type {type(value).__name__}{extent}: {' '.join(_shown.repr(value).split())}"
