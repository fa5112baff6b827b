"""In which order a study's trials are listed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.trial import ParamValue, Trial

_KEYS: dict[str, Callable[[Trial], ParamValue]] = {
    "number": lambda trial: trial.number,
    "score": lambda trial: trial.value,
    "loss": lambda trial: trial.loss,
    "size": lambda trial: trial.params_count,
    "duration": lambda trial: trial.duration_s,
}
_BEST_FIRST = frozenset({"score", "loss"})


def ordered(
    trials: Sequence[Trial], key: str, *, names: Sequence[str], maximize: bool, reverse: bool = False
) -> list[Trial]:
    """By a key of its own or a parameter's name; trials without a value come last either way.

    Raises InvalidInput for a key that there is not.
    """
    look = _KEYS.get(key) or _of_param(key, names)
    falling = reverse != (maximize and key in _BEST_FIRST)
    valued = [trial for trial in trials if look(trial) is not None]
    others = [trial for trial in trials if look(trial) is None]
    return [*sorted(valued, key=lambda trial: _comparable(look(trial)), reverse=falling), *others]


def _of_param(name: str, names: Sequence[str]) -> Callable[[Trial], ParamValue]:
    if name not in names:
        hint = nearest(name, [*_KEYS, *names])
        problem = Problem(key="--sort", message="is neither a column nor a parameter", value=name, hint=hint)
        raise InvalidInput("command line", [problem])
    return lambda trial: trial.params.get(name)


def _comparable(value: ParamValue) -> tuple[int, float, str]:
    """Numbers before words: the choices of one parameter may be of both kinds."""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
