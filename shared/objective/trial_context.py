"""The trial that runs here: the channel of `report`, `should_prune` and `report_params` in this process,
what its study asks of memory, the folder of its checkpoints, and the files that it saves.

In a worker the folder of checkpoints belongs to the ticket: the attempt after a lost one finds what that one had saved.
In process nothing is tried again, and the folder is a temporary one.

Bound by `attempt.run_attempt`, read by the SDK. One trial at a time per thread of
control; a thread started inside an objective gets the trial that was bound last in its process.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from highnoon.shared.domain.errors import NoTrialRunning
from highnoon.shared.domain.memory_sizes import NO_WISHES, MemoryWishes
from highnoon.shared.domain.trial import MetricHistory, ParamValue
from highnoon.shared.objective.staged_files import SavedFile


class Channel(Protocol):
    """What a running objective may say and ask. Each call may raise TrialStopped or TrialCancelled."""

    def report(self, value: float, step: int) -> None:
        """Records an intermediate value; the first value of a step wins, as in Optuna."""

    def should_prune(self) -> bool:
        """True when the study's pruner would end this trial now."""

    def report_params(self, total: int, active: int | None = None) -> None:
        """Reports how large the model of this trial is; the last count before the first report counts."""


class AttemptChannel(Channel, Protocol):
    """What the runner of an attempt uses."""

    def progress(self) -> None:
        """Shows that the trial goes on, where its report is not the study's."""

    def save_file(self, saved: SavedFile) -> None:
        """Has a copy stored, in place of an earlier one of its name."""

    def keep_history(self, history: MetricHistory) -> None:
        """The curves of what was logged so far, in case that the trial has no result."""


class TrialChannel(Channel, Protocol):
    """The channel as an objective meets it."""

    def log(self, metrics: Mapping[str, object], step: object = None) -> None:
        """Keeps numbers beside the value: the last of each, and a curve of those logged again. Raises InvalidInput."""

    def set_constraint(self, name: str, miss: float) -> None:
        """The trial is infeasible where the miss is above 0."""

    def save_artifact(self, path: object, name: object = None) -> None:
        """Keeps a copy of a file, to be stored with the trial. Raises InvalidInput, OSError."""

    def checkpoint_saved(self) -> None:
        """The folder of checkpoints has a whole one now: it may be packed, and from now on at these calls only."""


class CheckpointFolder:
    """Made when it is first asked for, so that a trial that saves nothing leaves nothing."""

    def __init__(self, lasting: Path | None) -> None:
        self._lasting = lasting
        self._temporary = ScratchFolder()
        self._trainings = itertools.count(1)

    @property
    def lasting(self) -> Path | None:
        """The folder that outlives this attempt, made or not; None where no other attempt would follow a lost one."""
        return self._lasting

    def path(self) -> Path:
        """The folder itself. Raises OSError when it cannot be made."""
        if self._lasting is not None:
            _make(self._lasting)
            return self._lasting
        return self._temporary.path()

    def for_next_training(self) -> Path:
        """A folder for each training of the trial, in their order, so that none goes on where another had stopped."""
        return self.path() / f"training-{next(self._trainings)}"

    def close(self) -> None:
        """The trial is over: a temporary folder goes. Others are removed by the supervisor that holds the ticket."""
        self._temporary.close()


class ScratchFolder:
    """Made when it is first asked for; removed with all that is in it when the trial, or its repeat, is over."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def path(self) -> Path:
        """The folder itself. Raises OSError when it cannot be made."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="highnoon-scratch-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def close(self) -> None:
        """Removes it."""
        if self._folder is not None:
            self._folder.cleanup()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _BoundTrial:
    channel: TrialChannel
    memory: MemoryWishes
    checkpoints: CheckpointFolder
    seed: int
    settings: Mapping[str, ParamValue]
    scratch: ScratchFolder = field(default_factory=ScratchFolder)


NO_SETTINGS: Mapping[str, ParamValue] = MappingProxyType({})

_mine: ContextVar[_BoundTrial | None] = ContextVar("trial", default=None)
"""The trial whose objective this thread of control is in."""

_bound: list[_BoundTrial] = []
"""Every trial bound in this process, oldest first: a thread that an objective starts inherits no context."""


@contextmanager
def bound(
    channel: TrialChannel,
    *,
    memory: MemoryWishes = NO_WISHES,
    checkpoints: Path | None = None,
    seed: int = 0,
    settings: Mapping[str, ParamValue] = NO_SETTINGS,
) -> Iterator[None]:
    """Makes `channel` the one that the trial running here uses.

    `checkpoints` is a folder that outlives this attempt; without one the trial gets a temporary one if it asks.
    """
    folder = CheckpointFolder(checkpoints)
    trial = _BoundTrial(channel=channel, memory=memory, checkpoints=folder, seed=seed, settings=settings)
    token = _mine.set(trial)
    _bound.append(trial)
    try:
        yield
    finally:
        _bound.remove(trial)
        _mine.reset(token)
        folder.close()
        trial.scratch.close()


def is_trial_running() -> bool:
    """True inside an objective that a manager or a worker runs."""
    return bool(_bound)


def channel() -> TrialChannel:
    """The running trial's channel. Raises NoTrialRunning outside an objective."""
    return _required().channel


def checkpoints() -> CheckpointFolder:
    """The running trial's folder for checkpoints. Raises NoTrialRunning outside an objective."""
    return _required().checkpoints


def seed() -> int:
    """The running trial's seed, or its repeat's. Raises NoTrialRunning outside an objective."""
    return _required().seed


def scratch() -> ScratchFolder:
    """The running trial's folder for scratch files. Raises NoTrialRunning outside an objective."""
    return _required().scratch


def settings() -> Mapping[str, ParamValue]:
    """What a person set for the running trial. Raises NoTrialRunning outside an objective."""
    return _required().settings


def memory_wishes() -> MemoryWishes:
    """What the study of the trial running here asks of memory; nothing outside a trial."""
    found = _here()
    return NO_WISHES if found is None else found.memory


def _required() -> _BoundTrial:
    found = _here()
    if found is None:
        raise NoTrialRunning(
            "no trial is running here: report(), should_prune(), log(), report_params(), trial_seed(), "
            "trial_settings(), save_artifact(), checkpoint_saved(), checkpoint_dir() and scratch_dir() may only be "
            "called inside an objective that HPOTrialManager.optimize() or a worker runs"
        )
    return found


def _here() -> _BoundTrial | None:
    return _mine.get() or (_bound[-1] if _bound else None)


def _make(folder: Path) -> None:
    while not folder.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # another trial's end has just removed a parent that was empty until now
            continue
