"""What a figure is made from, and what it is: plotly's JSON without plotly. A colour is a name with a `$`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from highnoon.shared.domain.states import Ending
from highnoon.shared.store.overview import AttemptSpan
from highnoon.webui.snapshot import Snapshot

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What the page draws, and what it says below: what is left out, or why there is nothing to see."""

    data: Sequence[Json] = ()
    layout: Json = field(default_factory=dict)
    note: str = ""

    def to_json(self) -> Json:
        """For plotly, which takes text for a kind of HTML: names and messages of people must not be read as such."""
        return {"data": _literal(self.data), "layout": _literal(self.layout), "note": self.note}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a figure is made from. Spans and causes are the ledger's; a study of somebody else has none."""

    snapshot: Snapshot
    x: str = ""
    y: str = ""
    raw: bool = False
    """Show the objective's own loss in the place of the score, where trials have both."""
    spans: Sequence[AttemptSpan] = ()
    causes: Sequence[tuple[Ending, str | None, int]] = ()
    importance: Mapping[str, float] = field(default_factory=dict)


def nothing(why: str) -> Figure:
    return Figure(note=why)


def scatter(name: str, points: Sequence[tuple[Any, Any]], *, mode: str = "markers", **style: Any) -> Json:
    return {
        "type": "scatter",
        "mode": mode,
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        **style,
    }


def bar_width(count: int) -> float:
    """Of `count` bars in a figure of the usual height: a few of them do not become blocks."""
    return min(0.8, 0.14 * count)


def _literal(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    return [_literal(item) for item in value] if isinstance(value, list | tuple) else value
