"""What the monitor of a trial needs of its supervisor. No method waits: the monitor never waits for a database."""

from __future__ import annotations

from typing import Any, Protocol

from highnoon.shared.domain.safe_reports import SafeReports
from highnoon.shared.domain.trial import MetricHistory, Outcome, Report
from highnoon.shared.objective.staged_files import SavedFile
from highnoon.shared.objective.trial_pipe import Event

Answer = dict[str, Any]
"""{"value": ...}, or {"error": ...} for a question that Optuna would refuse with a ValueError."""


class SuggestionService(Protocol):
    """What a trial suggests and sets. No method waits."""

    def ask(self, question: Event) -> None:
        """Asks the sampler."""

    def answer(self) -> Answer | None:
        """The answer to `ask`; None while there is none. Raises LeaseLost."""

    def take(self, setting: Event) -> bool:
        """Keeps an attribute or a constraint; False when there are so many that it is left out."""


class FileService(Protocol):
    """What a trial saves. No method waits."""

    def take(self, saved: SavedFile) -> None:
        """Has a copy stored. Raises ValueError for one too many."""


class Services(Protocol):
    """What the supervisor does for a running trial. No method waits."""

    @property
    def wakeup_fd(self) -> int:
        """Readable when an answer may be there."""

    @property
    def suggestions(self) -> SuggestionService:
        """For a trial that defines its space as it runs."""

    @property
    def files(self) -> FileService:
        """For a trial that saves files."""

    def take_report(self, report: Report) -> bool:
        """Keeps one intermediate value; False when there are so many that others are left out."""

    def take_history(self, history: MetricHistory) -> None:
        """Keeps the curves of what was logged, in the place of those before."""

    def ask_should_prune(self) -> None:
        """Asks for the pruner's decision on the reports so far."""

    def prune_answer(self) -> bool | None:
        """The answer to `ask_should_prune`; None while it is worth waiting for."""

    def safe_reports(self) -> SafeReports | None:
        """After the answer "go on": which further reports need no question; None where each one does."""

    def interruption(self) -> Outcome | None:
        """Why study or node want the trial to end; None when it may go on. Raises LeaseLost: the trial is killed."""
