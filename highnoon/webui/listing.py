"""Choosing rows: filter, sort and page over trials and studies, the same for pages and API. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.webui.snapshot import cause_of, ending_of
from highnoon.webui.studies import Study

T = TypeVar("T")

MOST_PER_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some rows of many; `number` counts from 1."""

    items: Sequence[T]
    number: int
    per_page: int
    total: int

    @property
    def pages(self) -> int:
        """How many pages there are; 1 for no rows."""
        return max(1, math.ceil(self.total / self.per_page))

    @property
    def first(self) -> int:
        """The place of the first row, from 1; 0 without rows."""
        return (self.number - 1) * self.per_page + 1 if self.items else 0

    @property
    def last(self) -> int:
        """The place of the last row."""
        return self.first + len(self.items) - 1 if self.items else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWish:
    """Which trials, in which order. A sort key with a minus is descending; `params.x` sorts by a parameter."""

    state: str = ""
    cause: str = ""
    sort: str = "-number"
    page: int = 1
    per_page: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyWish:
    """Which studies, in which order."""

    text: str = ""
    state: str = ""
    sort: str = ""
    page: int = 1
    per_page: int = 50


def choose_trials(trials: Sequence[Trial], wish: TrialWish, names: Sequence[str]) -> Page[Trial]:
    """One page of trials. Raises InvalidInput for a state or a sort key that there is not."""
    state = wish.state.upper()
    if state and state not in TrialState.__members__:
        raise _unknown("state", wish.state, [str(known) for known in TrialState])
    chosen = [
        trial
        for trial in trials
        if (not state or trial.state == state) and (not wish.cause or wish.cause in (cause_of(trial), ending_of(trial)))
    ]
    return paged(_sorted(chosen, wish.sort, _trial_keys(names)), wish.page, wish.per_page)


def choose_studies(studies: Sequence[Study], wish: StudyWish) -> Page[Study]:
    """One page of studies. Raises InvalidInput for a sort key that there is not."""
    text = wish.text.lower()
    chosen = [
        study for study in studies if text in study.name.lower() and (not wish.state or study.state == wish.state)
    ]
    return paged(_sorted(chosen, wish.sort, _STUDY_KEYS), wish.page, wish.per_page)


def paged(items: Sequence[T], number: int, per_page: int) -> Page[T]:
    """One page; beyond the last one there is the last one."""
    size = max(1, min(per_page, MOST_PER_PAGE))
    number = max(1, min(number, math.ceil(len(items) / size) or 1))
    return Page(items=items[(number - 1) * size : number * size], number=number, per_page=size, total=len(items))


def _sorted(items: list[T], sort: str, keys: dict[str, Callable[[T], object]]) -> list[T]:
    """Rows without a value come last, whichever way the others go; numbers before words."""
    if not sort:
        return items
    name = sort.removeprefix("-")
    if name not in keys:
        raise _unknown("sort", sort, keys)
    key = keys[name]
    valued = [item for item in items if key(item) is not None]
    others = [item for item in items if key(item) is None]
    return [*sorted(valued, key=lambda item: _comparable(key(item)), reverse=sort.startswith("-")), *others]


def _comparable(value: object) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (0, float(value), "")
    return (1, 0.0, str(value))


def _trial_keys(names: Sequence[str]) -> dict[str, Callable[[Trial], object]]:
    def by_param(name: str) -> Callable[[Trial], object]:
        return lambda trial: trial.params.get(name)

    keys: dict[str, Callable[[Trial], object]] = {
        "number": lambda trial: trial.number,
        "value": lambda trial: trial.value,
        "state": lambda trial: str(trial.state),
        "cause": lambda trial: cause_of(trial) or None,
        "duration": lambda trial: trial.duration_s,
        "started": lambda trial: trial.started_at.timestamp() if trial.started_at else None,
    }
    return keys | {f"params.{name}": by_param(name) for name in names}


_STUDY_KEYS: dict[str, Callable[[Study], object]] = {
    "name": lambda study: study.name.lower(),
    "state": lambda study: study.state,
    "trials": lambda study: study.total,
    "best": lambda study: study.best,
    "running": lambda study: study.running,
    "age": lambda study: None if study.record is None else study.record.submitted_at,
}


def _unknown(key: str, value: str, valid: Sequence[str] | dict[str, Callable[[T], object]]) -> InvalidInput:
    problem = Problem(key=key, message="is not known", value=value, hint=nearest(value, list(valid)))
    return InvalidInput("request", [problem])
