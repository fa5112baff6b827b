"""Choosing rows: filter, sort and page over trials and studies, the same for pages and API. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

from highnoon.shared.domain.errors import InvalidInput, nearest
from highnoon.shared.domain.param import Categorical, SearchSpace
from highnoon.shared.domain.states import Cause, Ending, TrialState
from highnoon.shared.domain.trial import ParamValue, Trial
from highnoon.shared.views.formats import param
from highnoon.shared.views.studies import STATES, StudySummary
from highnoon.shared.views.trials import SORT_COLUMNS, cause_of, ending_of, in_order, sort_keys

T = TypeVar("T")

MOST_PER_PAGE = 500

_CAUSES = list(dict.fromkeys([*map(str, Ending), *(state.lower() for state in TrialState), *map(str, Cause)]))
"""What `cause` may be; a program may have made up others."""


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


class _Query(BaseModel):
    """The query of an address."""

    page: Annotated[int, Field(ge=1, le=10_000_000, description="From 1.")] = 1
    per_page: Annotated[int, Field(ge=1, le=MOST_PER_PAGE)] = 50


class TrialQuery(_Query):
    """Which trials, in which order. A sort key with a minus is descending; `params.x` sorts by a parameter."""

    state: Annotated[str, Field(description="WAITING, RUNNING, COMPLETE, PRUNED or FAIL.")] = ""
    cause: Annotated[str, Field(description="A cause or an ending, such as exception or timed_out.")] = ""
    param: Annotated[str, Field(description="A parameter; `value` selects one of its values.")] = ""
    value: Annotated[str, Field(description="A value as the table shows it, or a range: 0.001..0.1, 8.., ..0.5.")] = ""
    sort: Annotated[str, Field(description=f"{', '.join(SORT_COLUMNS)}, params.NAME, values.OBJECTIVE.")] = "-number"


class StudyQuery(_Query):
    """Which studies, in which order."""

    q: Annotated[str, Field(description="Part of the name.")] = ""
    state: str = ""
    sort: Annotated[str, Field(description="name, state, trials, best, running, age; with - descending.")] = ""


def choose_trials(
    trials: Sequence[Trial], query: TrialQuery, space: SearchSpace, objectives: Sequence[str] = ()
) -> Page[Trial]:
    """One page of trials. Raises InvalidInput for an unknown sort key, and for a filter that no trial can pass."""
    state = query.state.upper()
    if query.param:
        _check_value(query, space)
    elif query.value.strip():
        hint = nearest("", space)
        raise InvalidInput.of("request", "value", "needs the param that it is of", value=query.value, hint=hint)
    if state and state not in TrialState.__members__:
        raise _unknown("state", query.state, [str(known) for known in TrialState])
    chosen = list(trials)
    if query.cause:
        chosen = [trial for trial in chosen if query.cause in (cause_of(trial), ending_of(trial))]
        if not chosen and query.cause not in _CAUSES:
            raise _unknown("cause", query.cause, _CAUSES)
    if state:
        chosen = [trial for trial in chosen if trial.state == state]
    if query.param:
        chosen = [trial for trial in chosen if _has_value(trial, query)]
    return paged(_sorted(chosen, query.sort, sort_keys(space, objectives)), query)


def _check_value(query: TrialQuery, space: SearchSpace) -> None:
    """Raises InvalidInput for an unknown parameter, and a value that it cannot have."""
    if query.param not in space:
        raise _unknown("param", query.param, list(space))
    domain, wanted = space[query.param], query.value.strip()
    low, dots, high = map(str.strip, wanted.partition(".."))
    if isinstance(domain, Categorical):
        has_numbers = any(isinstance(choice, int | float) for choice in domain.choices)
        if wanted and not (dots and has_numbers) and not any(wanted in _texts(choice) for choice in domain.choices):
            raise _unknown("value", query.value, list(map(param, domain.choices)))
    elif not (_is_bound(low) and _is_bound(high)) or (low and high and float(low) > float(high)):
        hint = "Write for example 8, 8.. or 0.001..0.1."
        raise InvalidInput.of("request", "value", "must be a number or a range", value=query.value, hint=hint)


def _has_value(trial: Trial, query: TrialQuery) -> bool:
    """Whether the trial has the parameter, with this value or one within the range."""
    if query.param not in trial.params:
        return False
    found, wanted = trial.params[query.param], query.value.strip()
    low, dots, high = wanted.partition("..")
    if not dots or not all(map(_is_bound, (low, high))) or isinstance(found, str | bool) or found is None:
        return not wanted or wanted in _texts(found)
    return (not low.strip() or found >= float(low)) and (not high.strip() or found <= float(high))


def _texts(value: ParamValue) -> tuple[str, ...]:
    """How a value may be written."""
    return param(value), param(value, 17), str(value)


def _is_bound(text: str) -> bool:
    try:
        return not text.strip() or not math.isnan(float(text))
    except ValueError:
        return False


def choose_studies(studies: Sequence[StudySummary], query: StudyQuery) -> Page[StudySummary]:
    """One page of studies. Raises InvalidInput for an unknown state or sort key."""
    if query.state and query.state not in STATES:
        raise _unknown("state", query.state, STATES)
    text = query.q.lower()
    chosen = [
        study for study in studies if text in study.name.lower() and (not query.state or study.state == query.state)
    ]
    return paged(_sorted(chosen, query.sort, _STUDY_KEYS), query)


def paged(items: Sequence[T], query: _Query) -> Page[T]:
    """One page; for a number beyond the last page the last one."""
    size = query.per_page
    number = min(query.page, math.ceil(len(items) / size) or 1)
    return Page(items=items[(number - 1) * size : number * size], number=number, per_page=size, total=len(items))


def _sorted(items: list[T], sort: str, keys: dict[str, Callable[[T], object]]) -> list[T]:
    if not sort:
        return items
    name = sort.removeprefix("-")
    if name not in keys:
        raise _unknown("sort", sort, keys)
    return in_order(items, keys[name], descending=sort.startswith("-"))


_STUDY_KEYS: dict[str, Callable[[StudySummary], object]] = {
    "name": lambda study: study.name.lower(),
    "state": lambda study: study.state,
    "trials": lambda study: study.total,
    "best": lambda study: study.best,
    "running": lambda study: study.running,
    "age": lambda study: None if study.record is None else study.record.submitted_at,
}


def _unknown(key: str, value: str, valid: Sequence[str] | dict[str, Callable[[T], object]]) -> InvalidInput:
    return InvalidInput.of("request", key, "is not known", value=value, hint=nearest(value, list(valid)))
