"""The node: its identity, its files and the lock on them, and what the agent hands to its pool.

Credentials travel from the agent to the pool through a pipe, as the JSON of a Node, never through the
environment: `/proc/<pid>/environ` of a trial process would show them to user code.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from highnoon.shared.memory.cores import usable_cores
from highnoon.shared.runtime.environment_record import EnvironmentRecord
from highnoon.shared.runtime.secret_files import SECRET_VARIABLES
from highnoon.shared.runtime.settings import Settings
from highnoon.workers.folder_age import WEEK_S, unchanged_s
from highnoon.workers.trial.confinement import Confinement

_LOCK = "agent.lock"
_ORDER_CHARS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One boot of one worker. `worker_id` is random, so that a restarted node is never taken for its predecessor."""

    slots: int
    resources: tuple[str, ...]
    settings: Settings
    worker_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=socket.gethostname)
    gpus: tuple[str, ...] = ()
    """For each slot the UUID of its GPU; empty where slots are not pinned."""
    fork_works: bool = True
    """False when a forked trial could not use its GPU here: trials are spawned then."""
    environment: EnvironmentRecord | None = None
    """What its attempts run in; the pool reads it."""

    confinement: Confinement | None = None
    """Of its trials; None where they are not confined."""

    def to_json(self) -> str:
        """With secrets: for a pipe between our own processes only."""
        return _NODE.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> Node:
        """The inverse of `to_json`. Raises ValueError."""
        try:
            return _NODE.validate_json(text)
        except ValueError:  # it quotes what it was given, which holds secrets
            raise ValueError("no node came through the pipe from the agent") from None

    @property
    def folder(self) -> Path:
        """Files of this boot: drain order, health file, slot states."""
        return self.settings.home / "nodes" / self.worker_id

    @property
    def written_folders(self) -> tuple[Path, Path]:
        """Where agent and trials write. In containers the first is often in memory, and the second on a shared disk."""
        runs = self.settings.home / "runs"
        # Not pathlib's, which raises for a disk that fails.
        return self.folder, runs if os.path.isdir(runs) else self.settings.home  # noqa: PTH112

    @property
    def health_file(self) -> Path:
        """Touched by the agent while node and pool are well: a health probe looks at its age and costs nothing."""
        return self.folder / "health"

    @property
    def drain(self) -> DrainOrder:
        """The order to drain, as agent and supervisors share it."""
        return DrainOrder(self.folder / "drain")

    def log_path(self, study: str, trial_number: int | None) -> Path:
        """Where the output of one attempt goes; every attempt is an Optuna trial of its own.

        None for a number that is not known yet: `{number}` stands in its place.
        """
        number = "{number}" if trial_number is None else f"{trial_number:05d}"
        return self.settings.home / "logs" / study / f"trial-{number}.log"

    def work_dir(self, study: str, trial_number: int) -> Path:
        """The working directory of one attempt."""
        return self.settings.home / "runs" / study / f"trial-{trial_number:05d}"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of all tickets, by study."""
        return self.settings.home / "checkpoints"

    def checkpoint_dir(self, study: str, ordinal: int) -> Path:
        """The checkpoints of one ticket, whichever attempt has saved them."""
        return self.checkpoints / study / f"ticket-{ordinal:05d}"


_NODE = TypeAdapter(Node)


@dataclass(slots=True)
class DrainOrder:
    """A file with the time until which running trials may go on, by this machine's monotonic clock.

    An order is never taken back: it holds as well while its file cannot be read or written, as on a network disk that
    gives errors.
    """

    path: Path
    _last_due_at: float | None = field(default=None, init=False)

    def prepare(self) -> None:
        """Makes the file, so that an order needs no further space on the disk. Raises OSError."""
        self.path.write_text(" " * _ORDER_CHARS)

    def give(self, *, allowed_s: float) -> None:
        """Orders the node to be drained within `allowed_s` seconds; a second order replaces the first. Raises OSError.

        Written in place: its last character makes it valid.
        """
        self._last_due_at = time.monotonic() + allowed_s
        order = f"{self._last_due_at:.6f}".rjust(_ORDER_CHARS - 1) + "\n"
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(order)

    def is_given(self) -> bool:
        """True once the node drains: claim nothing."""
        return self._due_at() is not None

    def is_due(self) -> bool:
        """True when running trials must be handed back now."""
        due_at = self._due_at()
        return due_at is not None and time.monotonic() >= due_at

    def _due_at(self) -> float | None:
        with contextlib.suppress(OSError, ValueError):
            with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123 (several times for each short trial)
                order = file.read(_ORDER_CHARS)
            if order.endswith(b"\n"):
                self._last_due_at = float(order)
        return self._last_due_at


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that pool, supervisors and trials may see."""
    return {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}


def threads_per_slot(slots: int) -> int:
    """Cores that one slot may count on: slots that each use every core only slow each other down."""
    return max(1, usable_cores() // slots)


@contextlib.contextmanager
def node_lock(folder: Path) -> Iterator[None]:
    """Makes the folder of a node, and locks it as long as its agent runs.

    The kernel releases the lock however its holder dies, also where two containers share the folders and have separate
    process namespaces. The file names the machine, since other machines may not see the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{_LOCK}.new"
    with contextlib.ExitStack() as held:
        try:
            file = held.enter_context(os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "w"))
            file.write("\n".join(_machine()))
            file.flush()
            # Locked before it has its name: it is never found free while its agent runs.
            fcntl.flock(file, fcntl.LOCK_EX)
            draft.rename(folder / _LOCK)
        except OSError:  # a full disk: without the lock no other node would find this folder
            shutil.rmtree(folder, ignore_errors=True)
            raise
        yield


def dead_nodes(nodes: Path) -> list[Path]:
    """The folders whose agent was killed; each has the name of its worker.

    Of another machine that shares the home, those that have not changed for a week: an agent touches its health file.
    """
    return [lock.parent for lock in nodes.glob(f"*/{_LOCK}") if _is_free(lock)]


def _is_free(lock: Path) -> bool:
    # Not only to be read: NFS would give no exclusive lock.
    with contextlib.suppress(OSError), lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return not _machine().isdisjoint(file.read().split("\n")) or unchanged_s(lock.parent) > WEEK_S
    return False


def _machine() -> set[str]:
    """By its name, and by the start of its kernel, which all its containers have in common."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {socket.gethostname(), *(boot.read_text().split() if boot.exists() else ())}
