"""Parameters of every kind laid out along an axis."""

from __future__ import annotations

import math
from typing import Any

from highnoon.shared.domain.space import Categorical, Int, LogUniform, Param
from highnoon.shared.domain.trial import ParamValue
from highnoon.shared.views.charts.figure import Json


class Scale:
    """A parameter's values laid out between 0 and 1."""

    def __init__(self, param: Param) -> None:
        self._param = param

    def place(self, value: ParamValue) -> float:
        match self._param:
            case Categorical(choices=choices):
                return (choices.index(value) + 0.5) / len(choices) if value in choices else 0.0
            case LogUniform(low=low, high=high) | Int(low=low, high=high, log=True):
                return _share(math.log(max(float(value or low), 1e-300)), math.log(low), math.log(high))
            case _:
                return _share(float(value or 0), self._param.low, self._param.high)

    def ticks(self) -> list[tuple[float, str]]:
        """A few places and their labels."""
        match self._param:
            case Categorical(choices=choices):
                return [((index + 0.5) / len(choices), _word(choice)) for index, choice in enumerate(choices)]
            case LogUniform(low=low, high=high) | Int(low=low, high=high, log=True):
                return [(0.0, f"{low:.3g}"), (0.5, f"{math.sqrt(low) * math.sqrt(high):.2g}"), (1.0, f"{high:.3g}")]
            case _:
                low, high = self._param.low, self._param.high
                return [(0.0, f"{low:.4g}"), (0.5, f"{(low + high) / 2:.4g}"), (1.0, f"{high:.4g}")]


def axis_of(param: Param) -> Json:
    """An axis in the parameter's own values."""
    if isinstance(param, LogUniform) or (isinstance(param, Int) and param.log):
        return {"type": "log"}
    if isinstance(param, Categorical):
        return {"type": "category", "categoryorder": "array", "categoryarray": list(map(_word, param.choices))}
    return {}


def coordinate(param: Param, value: ParamValue) -> Any:
    """A value on the axis that `axis_of` gives."""
    return _word(value) if isinstance(param, Categorical) else value


def unit_axis(scale: Scale, name: str) -> Json:
    """An axis from 0 to 1 with the scale's ticks."""
    ticks = scale.ticks()
    return {
        "title": {"text": shortened(name, 36)},
        "range": [0, 1],
        "tickvals": [place for place, _ in ticks],
        "ticktext": [text for _, text in ticks],
        "zeroline": False,
    }


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _word(value: ParamValue) -> str:
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
