"""One study as pages and API see it, whoever made it: the ledger's and Optuna's others as one kind of value. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from highnoon.shared.domain.states import INFRASTRUCTURE_ENDINGS, Ending, StudyState, TicketState, TrialState
from highnoon.shared.store.overview import Standing
from highnoon.shared.store.studies import StudyRecord
from highnoon.shared.store.study_view import StudyEntry

STATES = (*(str(state) for state in StudyState), "external")
"""What `Study.state` may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study, whoever made it. `record` is None for one that no coordinator knows: such a one is only read."""

    name: str
    direction: str
    total: int
    complete: int
    pruned: int
    failed: int
    running: int
    waiting: int
    best: float | None
    record: StudyRecord | None = None

    @property
    def state(self) -> str:
        """The ledger's word; `external` for a study that is steered elsewhere."""
        return "external" if self.record is None else str(self.record.state)

    @property
    def id(self) -> int | None:
        """The ledger's id."""
        return None if self.record is None else self.record.id

    @property
    def over(self) -> int:
        """Trials that have ended."""
        return self.complete + self.pruned + self.failed

    @property
    def is_live(self) -> bool:
        """Whether something about it may change by itself."""
        return self.running > 0 or (self.record is not None and not self.record.is_over)

    @property
    def spec(self) -> Mapping[str, Any]:
        """What a person decided; empty for a study of somebody else."""
        return {} if self.record is None else self.record.spec

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximize"


def named(key: str, studies: Sequence[Study]) -> Study | None:
    """The one of that name, else of that id."""
    by_id = (study for study in studies if str(study.id) == key)
    return next((study for study in studies if study.name == key), None) or next(by_id, None)


def of_ledger(standing: Standing) -> Study:
    """A study that a coordinator runs."""
    counts = standing.counts
    failed = {Ending.FAILED, Ending.TIMED_OUT, *INFRASTRUCTURE_ENDINGS}
    return Study(
        name=standing.record.name,
        direction=standing.record.spec["direction"],
        total=counts.total - counts.by_state.get(TicketState.CANCELLED, 0),
        complete=counts.by_ending.get(Ending.COMPLETED, 0),
        pruned=counts.by_ending.get(Ending.PRUNED, 0) + counts.by_ending.get(Ending.STOPPED, 0),
        failed=sum(count for ending, count in counts.by_ending.items() if ending in failed),
        running=counts.running,
        waiting=sum(counts.by_state.get(state, 0) for state in (TicketState.WAITING, TicketState.QUEUED)),
        best=standing.best_value,
        record=standing.record,
    )


def of_optuna(entry: StudyEntry, best: float | None) -> Study:
    """A study that no coordinator knows."""
    return Study(
        name=entry.name,
        direction=entry.direction,
        total=entry.total,
        complete=entry.by_state.get(TrialState.COMPLETE, 0),
        pruned=entry.by_state.get(TrialState.PRUNED, 0),
        failed=entry.by_state.get(TrialState.FAIL, 0),
        running=entry.by_state.get(TrialState.RUNNING, 0),
        waiting=entry.by_state.get(TrialState.WAITING, 0),
        best=best,
    )
