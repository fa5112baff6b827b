"""What every ending of an objective means: an exception of the user's code, a signal of ours, `sys.exit`.

KeyboardInterrupt is the one thing that is no outcome: a person wants out.
"""

from __future__ import annotations

import reprlib
import sys

from highnoon.shared.domain.errors import (
    InvalidObjectiveResult,
    MissingParamCount,
    TrialCancelled,
    TrialPruned,
    TrialStopped,
)
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.tracebacks import shortened, storable, text_of, user_traceback
from highnoon.shared.domain.trial import Outcome, Params


def outcome_of_exception(error: BaseException, params: Params, last: float | None) -> Outcome:
    """How an attempt ended whose objective raised this; `last` is the score of its last report, None for NaN."""
    if isinstance(error, InvalidObjectiveResult):
        return Outcome(ending=Ending.FAILED, cause=Cause.INVALID_RESULT, message=storable(str(error)))
    if isinstance(error, MissingParamCount):
        return Outcome(ending=Ending.FAILED, cause=Cause.NO_PARAM_COUNT, message=storable(str(error)))
    if isinstance(error, SystemExit):
        return _exited(error)
    return _early_end(error, last) or _failure(error, params)


def _early_end(error: BaseException, last: float | None) -> Outcome | None:
    """The outcome of a signal that ends a trial without a fault; None for everything else."""
    if isinstance(error, pruned_types()):
        return Outcome(ending=Ending.PRUNED, value=last, cause=Cause.PRUNER, message=storable(text_of(error)))
    if isinstance(error, TrialStopped):
        message, constraint = storable(text_of(error)), error.constraint
        return Outcome(ending=Ending.STOPPED, value=last, cause=error.cause, message=message, constraint=constraint)
    if isinstance(error, TrialCancelled):
        return Outcome(ending=Ending.CANCELLED, cause=Cause.CANCELLED, message=storable(text_of(error)))
    return None


def pruned_types() -> tuple[type[BaseException], ...]:
    """Ours, and Optuna's own if the user's code has imported it: either spelling prunes."""
    theirs = getattr(sys.modules.get("optuna"), "TrialPruned", None)
    return (TrialPruned, theirs) if isinstance(theirs, type) and issubclass(theirs, BaseException) else (TrialPruned,)


_HINT_OF_A_DICT = (
    "With a search_space the objective gets a dict: params['x'], hn.report(value, step). "
    "Leave the search_space out, and it gets a trial"
)

_shown = reprlib.Repr()
_shown.maxother = _shown.maxstring = 80


def _exited(error: SystemExit) -> Outcome:
    code = error.code
    return Outcome(
        ending=Ending.FAILED,
        cause=Cause.EXITED,
        message=storable(f"the objective called sys.exit({'' if code is None else _shown.repr(code)})"),
        traceback=user_traceback(error),
        exit_status=code if isinstance(code, int) else 0 if code is None else 1,
    )


def _failure(error: BaseException, params: Params) -> Outcome:
    """A fault of the objective's, or what it was given did not fit into memory: that the sampler is to learn."""
    text = " ".join(text_of(error).split())
    if isinstance(error, AttributeError) and error.obj is params:
        text += f". {_HINT_OF_A_DICT}"
    name = type(error).__name__
    cause = _cause_of(error)
    return Outcome(
        ending=Ending.FAILED if cause == Cause.EXCEPTION else Ending.STOPPED,
        cause=cause,
        message=storable(f"{name}: {shortened(text, 500)}" if text else name),
        traceback=user_traceback(error),
    )


def _cause_of(error: BaseException) -> Cause:
    """Memory that ran out has causes of its own; TensorFlow's error is known by name, as we never import it."""
    if isinstance(error, MemoryError):
        return Cause.OUT_OF_MEMORY
    if any(cls.__name__ == "ResourceExhaustedError" for cls in type(error).__mro__):
        return Cause.OUT_OF_MEMORY if "device:CPU" in text_of(error) else Cause.OOM_GPU
    return Cause.EXCEPTION
