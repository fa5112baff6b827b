"""Training longer: a trial that goes on from the checkpoint of one that has ended. Values and their limits; no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from highnoon.shared.domain.artifact import OF_ANOTHER_TICKET, Checkpoint
from highnoon.shared.domain.errors import Problem
from highnoon.shared.domain.result_parsing import can_name
from highnoon.shared.domain.scalars import Mistake, choice
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import ParamValue

EXTENDS = "highnoon:extends"
"""Attribute of a trial: the number of the one that it goes on from."""

EXTENSION = "highnoon:extension"
"""Optuna's system attribute of such a trial, from the moment it is enqueued: what `Extension.to_json` gives."""

KEPT_CHECKPOINTS = 3
"""How many trials of a study keep their last checkpoint by default."""

MOST_SETTINGS = 20

EXTENDABLE = frozenset({Ending.COMPLETED, Ending.PRUNED, Ending.STOPPED, Ending.TIMED_OUT, Ending.CANCELLED})
"""Endings after which a last checkpoint is stored: training longer makes sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """Trial `of` goes on as a new one from this checkpoint; the objective reads `settings` by `hn.trial_settings()`."""

    of: int
    checkpoint: Checkpoint
    settings: Mapping[str, ParamValue] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Extension:
        """The inverse of `to_json`. Raises KeyError, TypeError for what another program wrote."""
        return cls(of=data["of"], checkpoint=Checkpoint(**data["checkpoint"]), settings=dict(data["settings"]))

    @property
    def first_checkpoint(self) -> Checkpoint:
        """What the new ticket begins with: older than all that its own attempts save."""
        return replace(self.checkpoint, attempt=OF_ANOTHER_TICKET)


def setting_problems(settings: object) -> Iterator[Problem]:
    """Every mistake in what is set for the longer training."""
    hint = 'Write for example {"epochs": 20}.'
    if not isinstance(settings, Mapping):
        yield Problem(key="settings", message="must be a dict of names and values", value=settings, hint=hint)
        return
    if len(settings) > MOST_SETTINGS:
        yield Problem(key="settings", message=f"has {len(settings)} entries, and {MOST_SETTINGS} at most are possible")
    for name, value in settings.items():
        if not isinstance(name, str) or not can_name(name):
            yield Problem(key=str(name), message="cannot be the name of a setting", value=name, hint=hint)
            continue
        try:
            choice(value)
        except Mistake as mistake:
            yield Problem(key=name, message=mistake.message, value=value, hint=mistake.hint)
