"""Choosing rows: filter, sort and page over trials and studies, the same for pages and API. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.trial import Trial
from highnoon.shared.views.studies import StudySummary
from highnoon.shared.views.trials import cause_of, ending_of, in_order

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
        """The position of the first row, from 1; 0 without rows."""
        return (self.number - 1) * self.per_page + 1 if self.items else 0

    @property
    def last(self) -> int:
        """The position of the last row."""
        return self.first + len(self.items) - 1 if self.items else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialQuery:
    """Which trials, in which order. A sort key with a minus is descending; `params.x` sorts by a parameter."""

    state: str = ""
    cause: str = ""
    sort: str = "-number"
    page: int = 1
    per_page: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyQuery:
    """Which studies, in which order."""

    text: str = ""
    state: str = ""
    sort: str = ""
    page: int = 1
    per_page: int = 50


def choose_trials(trials: Sequence[Trial], query: TrialQuery, names: Sequence[str]) -> Page[Trial]:
    """One page of trials. Raises InvalidInput for an unknown state or sort key."""
    state = query.state.upper()
    if state and state not in TrialState.__members__:
        raise _unknown("state", query.state, [str(known) for known in TrialState])
    chosen = [
        trial
        for trial in trials
        if (not state or trial.state == state)
        and (not query.cause or query.cause in (cause_of(trial), ending_of(trial)))
    ]
    return paged(_sorted(chosen, query.sort, _trial_keys(names)), query.page, query.per_page)


def choose_studies(studies: Sequence[StudySummary], query: StudyQuery) -> Page[StudySummary]:
    """One page of studies. Raises InvalidInput for an unknown sort key."""
    text = query.text.lower()
    chosen = [
        study for study in studies if text in study.name.lower() and (not query.state or study.state == query.state)
    ]
    return paged(_sorted(chosen, query.sort, _STUDY_KEYS), query.page, query.per_page)


def paged(items: Sequence[T], number: int, per_page: int) -> Page[T]:
    """One page; for a number beyond the last page the last one."""
    size = max(1, min(per_page, MOST_PER_PAGE))
    number = max(1, min(number, math.ceil(len(items) / size) or 1))
    return Page(items=items[(number - 1) * size : number * size], number=number, per_page=size, total=len(items))


def _sorted(items: list[T], sort: str, keys: dict[str, Callable[[T], object]]) -> list[T]:
    if not sort:
        return items
    name = sort.removeprefix("-")
    if name not in keys:
        raise _unknown("sort", sort, keys)
    return in_order(items, keys[name], descending=sort.startswith("-"))


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


_STUDY_KEYS: dict[str, Callable[[StudySummary], object]] = {
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
