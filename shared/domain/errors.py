"""Every error and every signal of HighNoon, in two trees.

Faults: something is wrong.

    HighNoonError
    ├── UserInputError           a person wrote something that cannot work; exit code 2, never retried
    │   ├── InvalidInput         one or more Problems, all reported at once
    │   ├── UnknownStudy         no study of that name
    │   ├── UnknownWorker        no worker of that id is there
    │   ├── WorkerConflict       a worker's state forbids what is asked of it
    │   ├── StudyConflict        a study of that name exists and asks another question
    │   ├── NoCompletedTrial     a best trial was asked for, and none has completed
    │   ├── MissingExtra         what was used belongs to an extra of the package that is not installed
    │   └── DoesNotFit           a model or a training that cannot fit into memory, by forecast
    ├── ServiceError             an outside system does not do its part; exit code 3
    │   ├── ServiceUnavailable   not reachable; retried with backoff by the holder of the connection
    │   │   ├── RowLocked        another client holds a row for too long; that study alone waits
    │   │   └── TooManyConnections  its limit of connections is reached; retried as any outage
    │   ├── ServiceRefused       reachable, but it denies us a right; never retried
    │   ├── FileStoreError       the store of artifacts and checkpoints does not take or give a file
    │   ├── EmbeddedServiceError a service that `start` runs itself cannot be started
    │   └── SchemaMismatch       the ledger was made by another version; never retried
    ├── SpaceExhausted           every point of a grid has been asked for; the study closes as exhausted
    ├── LeaseLost                a fenced statement touched no row; the attempt stops and writes nothing
    ├── BundleRefused            a bundle without a valid signature, or no plain archive; the trial FAILs
    ├── PluginFailed             a study's own sampler or pruner is at fault; nothing of it is started for a while
    ├── ObjectiveError           the user's objective is at fault; the trial FAILs
    │   ├── InvalidObjectiveResult  it gave something that is no number, or none that the study can score
    │   ├── MissingParamCount    the study scores by size, and the trial did not report its own
    │   ├── TrainingDiverged     the loss or a gradient stopped being a number; with the step
    │   └── EveryTrialFailed     `optimize` ended without one trial that did not fail
    ├── NoTrialRunning           `report` or `should_prune` called outside a trial
    └── InvariantBroken          our own promise is broken: a bug in HighNoon, logged and never hidden

Signals: a trial ends early, and nothing is wrong. They are another branch on purpose, so that
`except HighNoonError` in an objective does not swallow them.

    TrialSignal
    ├── TrialPruned              raised by the user's objective after `should_prune()` said yes
    ├── TrialStopped             raised inside the trial when it must not go on (memory, drain, hard budget)
    └── TrialCancelled           raised inside the trial when a person cancelled it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum

from highnoon.shared.domain.states import Cause


class HighNoonError(Exception):
    """Root of all faults. Catch it at a border (command line, tick, child), nowhere else."""


class UserInputError(HighNoonError):
    """A person wrote something that cannot work. The message has what, where and the nearest right thing."""


class Absent(Enum):
    """Nothing was written: None is a value that people write."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in something a person wrote.

    `key` is dotted (`search_space.learning_rate`), `value` is what was written there (its repr is shown, also of
    None), `hint` names the nearest valid choice or the remedy; empty when there is none to name.
    """

    key: str
    message: str
    value: object = ABSENT
    hint: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is ABSENT else f" (got {_shortened(repr(self.value))})"
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.key}: {self.message}{shown}.{hint}"


class InvalidInput(UserInputError):
    """A study file, a setting or an argument has mistakes; `problems` holds all of them, `source` is where.

    The message fits on one screen: of more than a dozen Problems it shows the first, and how many there are.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        shown = [f"  {problem}" for problem in self.problems[:_MOST_PROBLEMS]]
        if len(self.problems) > _MOST_PROBLEMS:
            shown.append(f"  … and {len(self.problems) - _MOST_PROBLEMS} more")
        super().__init__("\n".join([f"{source}:", *shown]))

    @classmethod
    def of(cls, source: str, key: str, message: str, *, value: object = ABSENT, hint: str = "") -> InvalidInput:
        """With a single mistake."""
        return cls(source, [Problem(key=key, message=message, value=value, hint=hint)])


class UnknownStudy(UserInputError):
    """No study of that name is in the ledger. Raised by look-ups, shown by the command line."""

    @classmethod
    def of(cls, name: str, known: Sequence[str]) -> UnknownStudy:
        """With the nearest of the known names."""
        return cls(f"no study named {name!r}. {nearest(name, known) or 'There is none yet.'}")


class UnknownWorker(UserInputError):
    """No worker of that id is there. Raised by who would drain or reinstate it."""


class WorkerConflict(UserInputError):
    """A worker's state forbids what is asked of it: who drains cannot be reinstated. Raised by who steers workers."""


class StudyConflict(UserInputError):
    """A study of that name exists with another search space, direction or objective. Raised by submit."""


class NoCompletedTrial(UserInputError):
    """A best trial was asked for before any completed. With how many trials there are and how they ended."""


class DoesNotFit(UserInputError):
    """A model or its training cannot fit into memory, by a careful forecast. Raised before it is built, outside trials.

    Inside a trial the same is a TrialStopped with the cause `memory_forecast`.
    """


class MissingExtra(UserInputError, ModuleNotFoundError):
    """What was used belongs to an extra of the package that is not installed. The message has the remedy."""


class ServiceError(HighNoonError):
    """An outside system (database, broker, embedded service) does not do its part."""


class ServiceUnavailable(ServiceError):
    """Not reachable now. Retried with backoff by the holder of the connection; `doctor` explains it."""


class RowLocked(ServiceUnavailable):
    """Reachable, but another client has held a lock on a row for longer than we wait. Retried as an outage where work
    would be lost; supervisors and coordinator go on with other studies instead."""


class TooManyConnections(ServiceUnavailable):
    """The database takes no further connection. Retried as an outage; the message names the setting and the remedy."""


class ServiceRefused(ServiceError):
    """Reachable, but it denies us a right (to create tables, say). Not retried; the message names the remedy."""


class FileStoreError(ServiceError):
    """The store of artifacts and checkpoints does not take or give a file. The trial goes on, and ends, without it."""


class NoSuchFile(FileStoreError):
    """The store has no file of this name: it is another store, or the file is gone."""


class EmbeddedServiceError(ServiceError):
    """A service that `coordinator start` runs itself cannot be started. Not retried; the message names the remedy."""


class SchemaMismatch(ServiceError):
    """The ledger in this database was made by another version of HighNoon. Not retried."""


class SpaceExhausted(HighNoonError):
    """Every point of a grid has been asked for. Raised by `ask`; the study closes as exhausted, nothing is retried."""


class LeaseLost(HighNoonError):
    """A fenced statement touched no row: another worker owns the ticket now. Stop, write nothing."""


class BundleRefused(HighNoonError):
    """A bundle without a valid signature, or one that holds more than plain files. Nothing of it is run."""


class PluginFailed(HighNoonError):
    """The sampler or pruner that a study brings cannot be made, raised, or gave no answer. Its page shows it."""


class ObjectiveError(HighNoonError):
    """The user's objective is at fault. Ends the attempt as failed."""


class InvalidObjectiveResult(ObjectiveError):
    """The objective gave something that is no number, or none that the study can score. Ends the attempt as failed."""


class MissingParamCount(ObjectiveError):
    """The study has a parameter budget, and the trial has no parameter count. Ends the attempt as failed."""


class TrainingDiverged(ObjectiveError):
    """The loss or a gradient is NaN or infinite from `step` on. Raised by Trainer; nothing is saved after it."""

    def __init__(self, message: str, step: int) -> None:
        self.step = step
        super().__init__(message)


class EveryTrialFailed(ObjectiveError):
    """`optimize` ended, its trials did nothing but fail, and the study has no best one. Carries the tracebacks."""


class NoTrialRunning(HighNoonError):
    """`report` or `should_prune` was called where no trial is running. A mistake in the caller's code."""


class InvariantBroken(HighNoonError):
    """A promise of our own is broken (for example two different outcomes recorded for one trial). A bug; logged."""


class TrialSignal(Exception):
    """Root of what ends a trial early without a fault."""


class TrialPruned(TrialSignal):
    """The trial is not promising. Raised by the objective, recorded as PRUNED with the last report."""


class TrialStopped(TrialSignal):
    """The trial must not go on; the argument is the reason. Raised inside `report`, `should_prune`, `report_params`.

    `constraint` is by how much it missed what it had to keep, as a share of that: above 0, for the sampler.
    `cause` is the class of the reason, for machines; leave it out in code of your own.
    """

    def __init__(self, reason: str = "", *, constraint: float | None = None, cause: str = Cause.STOPPED.value) -> None:
        super().__init__(reason)
        self.constraint = constraint
        self.cause = cause


class TrialCancelled(TrialSignal):
    """A person cancelled the trial. Raised inside `report` and `should_prune`."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """The hint for a name that does not exist: the valid one nearest to it, or all of them where none is near."""
    valid = list(choices)
    close = did_you_mean(word, valid)
    more = ", …" if len(valid) > _MOST_CHOICES else ""
    return close or (f"Valid: {', '.join(valid[:_MOST_CHOICES])}{more}." if valid else "")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The hint that names the nearest valid choice; empty where none is near."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    near = get_close_matches(word.lower(), by_lower_case, n=1)
    return f"Did you mean {by_lower_case[near[0]]}?" if near else ""


_MOST_CHOICES = 24
_MOST_PROBLEMS = 12


def _shortened(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
