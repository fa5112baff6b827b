"""What crosses Redis, and every name used there, made and parsed in this one file.

Ids only, never parameters, code or credentials: whatever stands in Redis is a hint that PostgreSQL confirms.

    highnoon.cpu, highnoon.gpu   lists, one per resource: RunTrial messages (Celery's own envelope)
    highnoon:bell                pub/sub channel: the ledger has changed; a lost notification costs one tick
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

PROTOCOL_VERSION = 1

RUN_TRIAL_TASK = "highnoon.run_trial"
NOTIFICATION_CHANNEL = "highnoon:bell"
RESOURCES = ("cpu", "gpu")


def queue_name(resource: str) -> str:
    """The Celery queue of a resource (`cpu` -> `highnoon.cpu`)."""
    return f"highnoon.{resource}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTrial:
    """ "Ticket `ticket` of study `study` may be claimed." The study's name is there for people who read Flower."""

    study: str
    ticket: int
    version: int = PROTOCOL_VERSION

    def to_kwargs(self) -> dict[str, Any]:
        """The task's keyword arguments."""
        return {"study": self.study, "ticket": self.ticket, "version": self.version}

    def shown(self) -> str:
        """How Flower shows them."""
        return f"{self.study}, ticket {self.ticket}"

    @property
    def is_newer(self) -> bool:
        """True for a message of a later protocol version: its ticket is declined, for a worker that can read it."""
        return self.version > PROTOCOL_VERSION

    @classmethod
    def from_kwargs(cls, kwargs: Mapping[str, Any]) -> RunTrial:
        """Raises ValueError unless study, ticket and version are there: every version has them."""
        study, ticket, version = kwargs.get("study"), kwargs.get("ticket"), kwargs.get("version")
        if not isinstance(study, str) or not _is_id(ticket) or not _is_id(version):
            raise ValueError(f"study={_short(study)} ticket={_short(ticket)} version={_short(version)}")
        return cls(study=study, ticket=ticket, version=version)


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63


def _short(value: object) -> str:
    return repr(value)[:100]
