"""EnterpriseMemoryManager: the guide's memory manager, for a training loop that calls it.

Owns the acts: the log lines, collecting garbage, the smaller prefetch, the stop, and releasing state afterwards.
`shared.memory` decides when one of them is due.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from typing_extensions import Self

from highnoon.shared.domain.errors import TrialCancelled, TrialStopped
from highnoon.shared.domain.memory_sizes import memory_limit
from highnoon.shared.domain.states import Cause
from highnoon.shared.memory.guard import Kind, MemoryGuard, Mitigation, Verdict
from highnoon.shared.memory.policy import MemoryPolicy, check_settings, fill_s
from highnoon.shared.memory.poller import MemoryPoller, MemorySample
from highnoon.shared.objective.attempt_endings import pruned_types
from highnoon.shared.objective.trial_context import memory_wishes

_log = logging.getLogger("highnoon.memory")

CHECK_EVERY_S = 0.5
"""Steps shorter than this are not all checked: ten steps of a millisecond are no grace in which anything could help.
The same interval as the supervisor's outside."""

CALM_CHECK_EVERY_S = 2.0
"""... and this while memory is plenty: a check costs up to 0.4 ms of a CPU whose caches hold a training."""

LONGEST_PAUSE_S = 10.0

COOLDOWN_S = 5.0
"""How long after a stop its memory may take to come back (checkpoint, unwinding, exit) before another trial stops."""

Source = Callable[[bool], MemorySample]
"""Gives the sample now; the argument is True while memory is short, when an exact one is worth its time."""


class EnterpriseMemoryManager:
    """Watches the memory of this process and its children. Raises InvalidInput with every mistake at once.

    A setting that is left out comes from the study whose trial runs here, else from the guide's table, by the least of
    machine, cgroups and `trial_memory_limit` (bytes, or "1500 MB"). As a context manager it releases Keras' state when
    the block fails; TrialPruned, TrialCancelled and Ctrl-C are no failures. Tests set `source` (readings of the
    machine), `cooldown` (shared by its trials) and `clock`.
    """

    def __init__(
        self,
        memory_warning_pct: float | None = None,
        memory_grace_steps: int | None = None,
        prefetch_buffer_size: int | None = None,
        trial_memory_limit: int | str | None = None,
        *,
        source: Source | None = None,
        cooldown: StopCooldown | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        wishes = memory_wishes()
        settings = (
            wishes.memory_warning_pct if memory_warning_pct is None else memory_warning_pct,
            wishes.memory_grace_steps if memory_grace_steps is None else memory_grace_steps,
            wishes.prefetch_buffer_size if prefetch_buffer_size is None else prefetch_buffer_size,
        )
        check_settings("EnterpriseMemoryManager", *settings, trial_memory_limit)
        # The least of both: what the worker enforces holds whatever the objective asks for.
        own_limit = memory_limit(trial_memory_limit)
        limits = [limit for limit in (own_limit, wishes.trial_memory_limit) if limit is not None]
        poller = MemoryPoller(trial_limit_bytes=min(limits, default=None)) if source is None else None
        self._source: Source = poller.read if poller else source  # type: ignore[assignment]
        self._sample = self._source(True)
        self.policy = MemoryPolicy.for_limit(self._sample.limit_bytes, *settings)
        self._guard = MemoryGuard(self.policy, self._sample)
        self._prefetch_buffer_size = self.policy.prefetch_buffer_size
        self._cooldown = cooldown or StopCooldown()
        self._clock = clock
        self._check_at = float("-inf")
        _write([start_line(self.policy)])
        if poller is not None:
            _write(missing_lines(poller.missing()))

    @property
    def prefetch_buffer_size(self) -> int | None:
        """For the next `dataset.prefetch`; None is AUTOTUNE. Under pressure it becomes 1: read it at each epoch."""
        return self._prefetch_buffer_size

    @property
    def peak_bytes(self) -> int:
        """The most memory that this process and its children have held so far."""
        return self._guard.peak_bytes

    def step(self) -> None:
        """Call it after each training step. Raises TrialStopped, as `memory_guard: <reason> (...)`, if it must end."""
        if self._clock() < self._check_at:
            return
        verdict = self.check()
        headroom_bytes = self._guard.headroom_bytes(self._sample)
        calm_s = min(LONGEST_PAUSE_S, max(CALM_CHECK_EVERY_S, fill_s(headroom_bytes)))
        self._check_at = self._clock() + (calm_s if headroom_bytes > 0 else CHECK_EVERY_S)
        if verdict.kind is Kind.STOP:
            raise TrialStopped(stop_message(verdict), constraint=verdict.excess, cause=verdict.cause)

    def check(self) -> Verdict:
        """Reads, logs and mitigates now; leaves a stop to the caller.

        A stop becomes a warning where another trial has just stopped for the same pressure.
        """
        self._sample = self._source(self._guard.is_short(self._sample))
        verdict = self._guard.judge(self._sample)
        if verdict.kind is Kind.STOP and not verdict.is_own and not self._cooldown.begin():
            verdict = replace(verdict, kind=Kind.WARN, cause="", reason="")
        _write(lines_of(verdict))
        if verdict.mitigation is Mitigation.GC:
            _collect()
        elif verdict.mitigation is Mitigation.SMALLER_PREFETCH:
            self._prefetch_buffer_size = 1
        return verdict

    def end_epoch(self) -> None:
        """Call it after each epoch: collects garbage."""
        gc.collect()

    def release(self, error: BaseException | None = None) -> None:
        """Releases what a failed training holds: the locals of the frames that `error` left, then Keras' state.

        In this order: a model that a traceback still refers to outlives every clearing of Keras. Its dtype policy
        stays.
        """
        if error is not None:
            traceback.clear_frames(error.__traceback__)
        keras = sys.modules.get("keras")
        if keras is not None:
            policy = keras.config.dtype_policy()
            keras.backend.clear_session()
            keras.config.set_dtype_policy(policy)
        _collect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, (*pruned_types(), TrialCancelled)):
            self.release(error)


class StopCooldown:
    """Trials on one machine see the same pressure, and one stop may be enough: then the others wait COOLDOWN_S.

    The file `path` (by default one for each account, in /dev/shm) holds the time of the last stop. Only a convention
    between trials that do not know one another; limits that must hold are kept by supervisor and kernel.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        shared = Path("/dev/shm")  # noqa: S108 - opened without following links; it holds a time
        folder = shared if shared.is_dir() else Path(tempfile.gettempdir())
        self._path = path or folder / f"highnoon-memory-{os.getuid()}.turn"
        self._clock = clock

    def begin(self) -> bool:
        """True when no other trial stopped within COOLDOWN_S: then others wait. True also if no file can be kept."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return True
        try:
            # Held for microseconds. Monotonic time is one for the whole machine, so that processes compare theirs.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            now = self._clock()
            with suppress(ValueError):  # a new file is empty
                if 0 <= now - float(os.pread(descriptor, 64, 0)) < COOLDOWN_S:
                    return False
            os.pwrite(descriptor, f"{now:020.6f}".encode(), 0)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return True


def _collect() -> None:
    """Collects garbage, and lets the C library return free pages to the kernel, which it does not do by itself."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # only glibc has it
        return


# --- the guide's log lines, word for word: a public contract. Numbers in MB of 2^20 bytes, as the guide's -------------

PREFIX = "[Memory] "


def start_line(policy: MemoryPolicy) -> str:
    """Once, when a manager is made."""
    if policy.limit_bytes is None:
        return f"{PREFIX}EnterpriseMemoryManager: memory cannot be seen here, the guard is off"
    threshold = policy.threshold_bytes(policy.limit_bytes)
    return (
        f"{PREFIX}EnterpriseMemoryManager: total={_mb(policy.limit_bytes)}MB, "
        f"warning_threshold={_mb(threshold)}MB ({threshold / policy.limit_bytes:.0%})"
    )


_reported: set[str] = set()
"""Missing sources that this process has reported: a study in process makes a manager for each trial."""


def missing_lines(missing: Sequence[str]) -> list[str]:
    """Beside the first line, for sources that have not been reported yet."""
    new = [words for words in missing if words not in _reported]
    _reported.update(new)
    return [f"{PREFIX}Not watched here: {'; '.join(new)}"] if new else []


def lines_of(verdict: Verdict) -> list[str]:
    """The log lines of one verdict; none for an ordinary OK."""
    if verdict.kind is Kind.OK:
        if not verdict.is_normalized:
            return []
        return [f"{PREFIX}Memory normalized: {verdict.usage:.1%}, resetting warning count"]
    lines = []
    if verdict.grace:
        lines.append(
            f"{PREFIX}WARNING ({verdict.count}/{verdict.grace}): System memory at {verdict.usage:.1%} "
            f"(process={_mb(verdict.process_bytes)}MB), trend={verdict.trend}"
        )
    if verdict.kind is Kind.STOP and verdict.cause == Cause.SWAP:
        change = verdict.reason.partition(":")[2]
        lines.append(f"{PREFIX}CRITICAL: Swap spike of {change}, {_mb(verdict.swap_used_bytes)}MB in use, stopping")
    elif verdict.kind is Kind.STOP:
        lines.append(f"{PREFIX}CRITICAL: stopping, {verdict.reason}")
    return lines


def stop_message(verdict: Verdict) -> str:
    """The message of a stopped trial: the cause for machines, then reason, peak and limit."""
    return f"{verdict.message} (peak {_mb(verdict.peak_bytes)}MB, limit {_mb(verdict.limit_bytes)}MB)"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f}"


def _write(lines: Sequence[str]) -> None:
    """As warnings: without any configuration of logging Python shows only these, and the guide promises them."""
    for line in lines:
        _log.warning("%s", line)
