"""CPU time, memory and connections of the processes of a cluster, read from outside."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from highnoon.coordinator.local.stack import Stack


@dataclass(slots=True, kw_only=True)
class Role:
    """One process with its children: PostgreSQL's backends, say."""

    process: psutil.Process
    memory_mb: list[float] = field(default_factory=list)
    """One figure for each `read_memory`."""

    def cpu_s(self) -> float:
        """CPU seconds since it began, with children that have ended."""
        mine = self.process.cpu_times()
        total = mine.children_user + mine.children_system
        for one in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system
        return float(total)

    def read_memory(self) -> None:
        """Records the memory now (PSS: shared pages count by their parts)."""
        total = 0
        for one in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_full_info().pss
        self.memory_mb.append(total / 1e6)


def postgres_of(stack: Stack) -> psutil.Process:
    """The server of an embedded stack."""
    return psutil.Process(int((stack.home.postgres / "postmaster.pid").read_text().splitlines()[0]))


def redis_of(stack: Stack) -> psutil.Process:
    """The server of an embedded stack of this process."""
    data = str(stack.home.root)
    servers = [one for one in psutil.Process().children(recursive=True) if one.name().startswith(("redis", "valkey"))]
    return next(one for one in servers if data in one.cwd() or data in " ".join(one.cmdline()))
