"""EnterpriseMemoryManager: the guide's memory manager, for a training loop that calls it.

Owns the acts: the log lines, collecting garbage, the smaller prefetch, the stop, and giving state back afterwards.
Whether any of them is due is judged in `shared.memory`.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

from highnoon.shared.domain.errors import TrialStopped
from highnoon.shared.memory.guard import MemoryGuard
from highnoon.shared.memory.policy import MemoryPolicy, check_settings
from highnoon.shared.memory.reader import VitalsReader
from highnoon.shared.memory.sample import MemorySample
from highnoon.shared.memory.sampler import MemorySampler
from highnoon.shared.memory.turn import StopTurn
from highnoon.shared.memory.verdict import Easing, Kind, Verdict
from highnoon.shared.memory.words import lines_of, missing_line, start_line, stop_message
from highnoon.shared.objective.trial_context import memory_wishes

_log = logging.getLogger("highnoon.memory")

CHECK_EVERY_S = 0.5
"""Steps shorter than this are not all checked: ten steps of a millisecond are no grace in which anything could ease.
As often as the watchdog looks from outside."""

CALM_CHECK_EVERY_S = 2.0
"""... and this while memory is plenty: a check costs up to 0.4 ms of a CPU whose caches hold a training."""

LONGEST_PAUSE_S = 10.0
FASTEST_GROWTH_BYTES_PER_S = 2 << 30
"""What several threads can touch of new pages. While even that would stay far from a threshold, nobody need look."""

Source = Callable[[bool], MemorySample]
"""Gives the sample now; the argument says that memory is short, and an exact one worth its time."""


class EnterpriseMemoryManager:
    """Watches the memory of this process and its children. Raises InvalidInput with every mistake at once.

    What is left out comes from the study whose trial runs here, else from the guide's table, by the least of machine,
    cgroups and `trial_memory_limit` (bytes).
    As a context manager it gives Keras' state back when the block fails. `source` stands in for what is seen of the
    machine, `turn` for what the machine's trials agree on, `clock` for the time.
    """

    def __init__(
        self,
        memory_warning_pct: float | None = None,
        memory_grace_steps: int | None = None,
        prefetch_buffer_size: int | None = None,
        trial_memory_limit: int | None = None,
        *,
        source: Source | None = None,
        turn: StopTurn | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        wishes = memory_wishes()
        settings = (
            wishes.memory_warning_pct if memory_warning_pct is None else memory_warning_pct,
            wishes.memory_grace_steps if memory_grace_steps is None else memory_grace_steps,
            wishes.prefetch_buffer_size if prefetch_buffer_size is None else prefetch_buffer_size,
        )
        check_settings("EnterpriseMemoryManager", *settings, trial_memory_limit)
        # Whichever is the least: what the worker enforces holds whatever the objective asks for.
        limits = [limit for limit in (trial_memory_limit, wishes.trial_memory_limit) if limit is not None]
        sampler = MemorySampler(VitalsReader(), min(limits, default=None)) if source is None else None
        self._source: Source = sampler or source  # type: ignore[assignment]
        baseline = self._source(True)
        self.policy = MemoryPolicy.for_limit(baseline.limit_bytes, *settings)
        self._guard = MemoryGuard(self.policy, baseline)
        self._headroom_bytes, self._is_short = self._nearness(baseline)
        self._prefetch_buffer_size = self.policy.prefetch_buffer_size
        self._turn = turn or StopTurn()
        self._clock = clock
        self._check_at = float("-inf")
        _say([start_line(self.policy)])
        if sampler is not None:
            _say_once(sampler.missing())

    @property
    def prefetch_buffer_size(self) -> int | None:
        """For the next `dataset.prefetch`; None is AUTOTUNE. Under pressure it becomes 1: look at each epoch."""
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
        self._check_at = self._clock() + _pause_s(self._headroom_bytes)
        if verdict.kind is Kind.STOP:
            raise TrialStopped(stop_message(verdict), constraint=verdict.excess)

    def check(self) -> Verdict:
        """Looks now, logs and eases; leaves a stop to the caller. One that another trial's may spare is a warning."""
        sample = self._source(self._is_short)
        self._headroom_bytes, self._is_short = self._nearness(sample)
        verdict = self._guard.judge(sample)
        if verdict.kind is Kind.STOP and not verdict.is_own and not self._turn.take():
            verdict = verdict.as_warning()
        _say(lines_of(verdict))
        self._ease(verdict.easing)
        return verdict

    def end_epoch(self) -> None:
        """Call it after each epoch: collects garbage."""
        gc.collect()

    def release(self, error: BaseException | None = None) -> None:
        """Gives back what a failed training holds: the locals of the frames that `error` left, then Keras' state.

        In this order: a model that a traceback still refers to outlives every clearing of Keras.
        """
        if error is not None:
            traceback.clear_frames(error.__traceback__)
        keras = sys.modules.get("keras")
        if keras is not None:
            keras.backend.clear_session()
        _collect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.release(error)

    def _nearness(self, sample: MemorySample) -> tuple[int, bool]:
        return self._guard.headroom_bytes(sample), self._guard.is_short(sample)

    def _ease(self, easing: Easing | None) -> None:
        if easing is Easing.GC:
            _collect()
        elif easing is Easing.SMALLER_PREFETCH:
            self._prefetch_buffer_size = 1


def _pause_s(headroom_bytes: int) -> float:
    """Until the next check: as long as nothing can have come close meanwhile."""
    if headroom_bytes <= 0:
        return CHECK_EVERY_S
    return min(LONGEST_PAUSE_S, max(CALM_CHECK_EVERY_S, headroom_bytes / FASTEST_GROWTH_BYTES_PER_S))


def _collect() -> None:
    """Collects garbage, and lets the C library hand free pages to the kernel, which it does not by itself."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # only glibc has it
        return


_said: set[str] = set()
"""Which missing sources this process has named: a study in process makes a manager for each trial."""


def _say_once(missing: tuple[str, ...]) -> None:
    news = [words for words in missing if words not in _said]
    _said.update(news)
    if news:
        _say([missing_line(news)])


def _say(lines: list[str]) -> None:
    """As warnings: where nobody has set up logging Python shows no less, and the guide promises them."""
    for line in lines:
        _log.warning("%s", line)
