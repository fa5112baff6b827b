"""What our studies need to do to trials, as values and one seam: Optuna's own storage interface cannot do it whole.

Two implementations pass one contract suite: `sql.SqlTrials` on a database, where each act is one transaction, and
`memory.MemoryTrials` in a single process. Both leave sampling and every decision to `study`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from optuna.trial import TrialState

from highnoon.shared.domain.trial import Params, Report
from highnoon.shared.search.samplers import Distributions

TICKET = "highnoon:ticket"
ATTEMPT = "highnoon:attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose trial it is: the attempt of a ticket. Written with the trial, so that no orphan is nameless."""

    ticket: int
    attempt: int

    @property
    def attrs(self) -> dict[str, int]:
        """As Optuna user attributes."""
        return {TICKET: self.ticket, ATTEMPT: self.attempt}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A RUNNING trial and its point. `number` is what people see and the ledger keeps, `trial_id` what acts on it."""

    trial_id: int
    number: int
    params: Params


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedTrial:
    """A RUNNING trial that carries an Owner."""

    trial_id: int
    number: int
    owner: Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """All that is written when a trial starts."""

    params: Params
    distributions: Distributions
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A trial that a person enqueued, with what they fixed."""

    trial_id: int
    number: int
    fixed: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that is written when a trial ends. A PRUNED one without a value takes its last report."""

    state: TrialState
    value: float | None = None
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a trial had ended already."""

    state: TrialState
    value: float | None


def owner_in(user_attrs: Mapping[str, Any]) -> Owner | None:
    """The Owner that a trial's user attributes name; None for a trial that is not ours."""
    try:
        return Owner(ticket=int(user_attrs[TICKET]), attempt=int(user_attrs[ATTEMPT]))
    except (KeyError, TypeError, ValueError):
        return None


class Trials(Protocol):
    """The trials of one study. Each act is one transaction where there are transactions."""

    def create(self, birth: Birth) -> Asked:
        """A new RUNNING trial. Raises UnknownStudy when the study was deleted."""

    def start_waiting(self, prepare: Callable[[Waiting], Birth]) -> Asked | None:
        """Takes the oldest WAITING trial for this caller alone; None without one. Raises whatever `prepare` raises."""

    def add_reports(self, trial_id: int, reports: Sequence[Report]) -> None:
        """The first report of a step stays. Does nothing to a trial that is not RUNNING."""

    def finish(self, trial_id: int, verdict: Verdict) -> Standing | None:
        """None once the trial ended so; how it stands, unchanged, when it had ended before. Raises UnknownStudy."""

    def owned_running(self) -> list[OwnedTrial]:
        """Every RUNNING trial with an Owner, without loading the study."""

    def latest_domains(self) -> Distributions:
        """The parameters of the newest trial that was started, as it has them."""
