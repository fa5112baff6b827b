"""The bodies of requests to the API, each with its keys, types and limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from highnoon.shared.domain.note import MOST_TAGS

_Tags = Annotated[list[str], Field(max_length=MOST_TAGS)]


class _Body(BaseModel):
    """The body of a request; a key that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


class NotePatch(_Body):
    """What a person writes beside it; what is left out stays."""

    note: str | None = None
    tags: _Tags | None = None


class StudyPatch(NotePatch):
    """What to change: a state to go to, trials to add, its share of the slots, note, tags."""

    state: Literal["running", "paused", "cancelled"] | None = None
    add_trials: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    priority: Annotated[int, Field(strict=True)] | None = None
    max_running: Annotated[int, Field(strict=True, description="0 is no limit.")] | None = None


class WorkerPatch(_Body):
    """The state that a worker is to go to."""

    state: Literal["draining", "active"]


class Point(_Body):
    """Parameters to try; what is left out is sampled."""

    params: dict[str, bool | int | float | str | None]


class LongerTraining(_Body):
    """What the objective of a trial that trains longer reads by `hn.trial_settings()`."""

    settings: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
