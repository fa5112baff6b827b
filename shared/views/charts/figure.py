"""What a figure is made from, what it is, and what all figures share: finite values, thinning, axes and scales.

A figure is plotly's JSON without plotly. A colour is a name with a `$`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

from highnoon.shared.domain.param import Categorical, Float, Int, Param, SearchSpace
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import ParamValue, Trial
from highnoon.shared.views import formats

if TYPE_CHECKING:
    from highnoon.shared.store.attempt_queries import AttemptSpan


Json = dict[str, Any]

MOST_POINTS = 2000
_MOST_TICKS = 20
_MOST_CATEGORIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What is drawn, and a note below it: what is left out, or why there is nothing to see."""

    data: Sequence[Json] = ()
    layout: Json = field(default_factory=dict)
    note: str = ""
    suits: bool = True
    """False where it is a figure for other studies; then the note has the reason."""

    def to_json(self, **more: str) -> Json:
        """For plotly, which takes text for a kind of HTML: names and messages of people must not be read as such."""
        return {"data": _literal(self.data), "layout": _literal(self.layout), "note": self.note, **_literal(more)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureInput:
    """What a figure is made from. Spans and causes come from the ledger; a study without a coordinator has none."""

    trials: Sequence[Trial]
    space: SearchSpace
    maximize: bool
    objectives: Sequence[str] = ()
    """The names of several objectives; then each trial's value is of the one at `objective`, which `maximize` is of."""
    directions: Sequence[str] = ()
    objective: int = 0
    params: Sequence[str] = ()
    """The parameters to show, or two objectives; empty: all of them."""
    raw: bool = False
    """Show the objective's own loss in the place of the score, where trials have both."""
    spans: Sequence[AttemptSpan] = ()
    causes: Sequence[tuple[str, str | None, int]] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    most_params: int | None = None
    """Of more parameters than that, show those that matter most."""

    @property
    def shown_params(self) -> list[str]:
        """The parameters of the search space that are to be shown."""
        names = [name for name in self.space if not self.params or name in self.params]
        if self.most_params is None or len(names) <= self.most_params:
            return names
        chosen = sorted(names, key=lambda name: -self.importance.get(name, 0.0))[: self.most_params]
        return [name for name in names if name in chosen]

    @property
    def hidden_params(self) -> str:
        """The note about parameters that are not shown."""
        total = sum(not self.params or name in self.params for name in self.space)
        shown = len(self.shown_params)
        return "" if shown == total else f"The {shown} of {total} parameters that matter most."

    @property
    def value_title(self) -> str:
        """What the values that are drawn are."""
        if self.objectives:
            return self.objectives[self.objective]
        if not any(trial.params_count is not None for trial in self.trials):
            return "value"
        return "loss" if self.raw else "score"

    def completed(self) -> list[Trial]:
        """Completed trials with a finite value."""
        return [trial for trial in self.trials if is_finite(trial, TrialState.COMPLETE)]

    def value(self, trial: Trial) -> float | None:
        """The value to draw of a trial."""
        return trial.loss if self.raw else trial.value

    def points(self) -> list[tuple[int, float]]:
        """Numbers and finite values of completed trials that are feasible."""
        valued = [(trial.number, self.value(trial)) for trial in self.completed() if trial.is_feasible]
        return [(number, value) for number, value in valued if value is not None and math.isfinite(value)]


def named(trial: Trial) -> str:
    return f"trial {trial.number}" if trial.is_feasible else f"trial {trial.number}, infeasible"


def is_finite(trial: Trial, state: TrialState) -> bool:
    return trial.state is state and trial.value is not None and math.isfinite(trial.value)


def nothing(why: str, *, suits: bool = True) -> Figure:
    return Figure(note=why, suits=suits)


def scatter(name: str, points: Sequence[tuple[Any, Any]], *, mode: str = "markers", **style: Any) -> Json:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return {"type": "scatter", "mode": mode, "name": name, "x": xs, "y": ys, **style}


def curves(name: str, points: Iterable[Iterable[tuple[Any, Any]]], **style: Any) -> Json:
    """Several lines as one trace, with a gap after each; a line of one point, which would not be seen, has a marker."""
    lines = [list(line) for line in points]
    trace = scatter(name, [point for line in lines for point in (*line, (None, None))], mode="lines", **style)
    sizes = [5 if len(line) == 1 else 0 for line in lines for _ in (*line, None)]
    return trace | {"mode": "lines+markers", "marker": {"size": sizes}} if any(sizes) else trace


def horizontal_bars(names: Sequence[str], values: Sequence[float], texts: Sequence[str], color: Any) -> Json:
    """Bars with a text on each; a few of them do not become blocks."""
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(names),
        "x": list(values),
        "text": list(texts),
        "textposition": "auto",
        "width": min(0.8, 0.14 * len(names)),
        "hoverinfo": "skip",
        "marker": {"color": color},
    }


def every(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[int(index * len(items) / most)] for index in range(most)] if most > 0 else []


def thinned_trials(trials: Sequence[Trial], most: int) -> list[Trial]:
    """A tenth of the space each for the lowest and the highest values, the rest evenly spaced over time."""
    if len(trials) <= most:
        return list(trials)
    by_value = sorted(trials, key=lambda trial: trial.value or 0.0)
    share = most // 10
    kept = [*by_value[:share], *by_value[-share:], *every(trials, most - 2 * share)]
    chosen = {trial.number: trial for trial in kept}
    return [chosen[number] for number in sorted(chosen)]


def left_out(shown: int, total: int, what: str = "") -> str:
    """The note about points that are not drawn; empty when all are."""
    if shown >= total:
        return ""
    return f"The {shown:,} {what} of {total:,}." if what else f"{shown:,} of {total:,} shown."


def notes(*parts: str) -> str:
    return " ".join(filter(None, parts))


def clip(axis: Json, values: Iterable[float], *, maximize: bool) -> str:
    """Limits an axis so that a few diverged values do not flatten all others; returns the note about it."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) < 20:
        return ""
    low, high = ordered[0], ordered[-1]
    middle = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    margin = 1.5 * ((middle[1] - middle[0]) or abs(middle[0]) or 1.0)
    bottom = max(low, middle[0] - margin) if maximize else low
    top = high if maximize else min(high, middle[1] + margin)
    if (bottom, top) == (low, high):
        return ""
    axis["range"] = [bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom)]
    beyond = sum(not bottom <= value <= top for value in ordered)
    return f"{beyond:,} far outliers are outside of the picture; a double click shows them." if beyond else ""


def _literal(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    return [_literal(item) for item in value] if isinstance(value, list | tuple) else value


class Scale:
    """A parameter's values laid out between 0 and 1."""

    def __init__(self, param: Param) -> None:
        self._param = param

    def place(self, value: ParamValue) -> float:
        match self._param:
            case Categorical(choices=choices):
                return (choices.index(value) + 0.5) / len(choices) if value in choices else 0.0
            case Float(low=low, high=high, log=True) | Int(low=low, high=high, log=True):
                return _share(math.log(max(float(value or low), 1e-300)), math.log(low), math.log(high))
            case _:
                return _share(float(value or 0), self._param.low, self._param.high)

    @property
    def checksum(self) -> int:
        """Another one where values have other places."""
        return crc32(repr(self._param).encode())

    def ticks(self) -> list[tuple[float, str]]:
        """A few places and their labels."""
        match self._param:
            case Categorical(choices=choices):
                ticks = [((index + 0.5) / len(choices), _word(choice)) for index, choice in enumerate(choices)]
                return every(ticks, _MOST_TICKS)
            case Float(low=low, high=high, log=True) | Int(low=low, high=high, log=True):
                return [(0.0, f"{low:.3g}"), (0.5, f"{math.sqrt(low) * math.sqrt(high):.2g}"), (1.0, f"{high:.3g}")]
            case _:
                low, high = self._param.low, self._param.high
                return [(0.0, f"{low:.4g}"), (0.5, f"{(low + high) / 2:.4g}"), (1.0, f"{high:.4g}")]


def axis_of(param: Param) -> Json:
    """An axis in the parameter's own values."""
    if not isinstance(param, Categorical):
        return {"type": "log"} if param.log else {}
    if len(param.choices) > _MOST_CATEGORIES:
        return {"type": "category"}  # those that were drawn, in the order of trials
    return {"type": "category", "categoryorder": "array", "categoryarray": list(map(_word, param.choices))}


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


def grid(count: int, most: int = 3) -> Json:
    """The layout of so many panels, at most `most` in a row."""
    columns = min(most, count)
    rows = math.ceil(count / columns)
    return {"grid": {"rows": rows, "columns": columns, "pattern": "independent"}, "height": 60 + 190 * rows}


def trace_axes(index: int) -> Json:
    """The axes of a panel's traces, in plotly's names."""
    suffix = "" if index == 0 else str(index + 1)
    return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}


def layout_axes(index: int) -> tuple[str, str]:
    """The same axes in the layout."""
    suffix = "" if index == 0 else str(index + 1)
    return f"xaxis{suffix}", f"yaxis{suffix}"


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _word(value: ParamValue) -> str:
    return formats.param(value, 12)


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
