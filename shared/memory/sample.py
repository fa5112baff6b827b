"""What the guard knows of one moment. A value: made by `sampler` from vitals, by tests from nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One limit that may be hit: the machine's, a cgroup's, the trial's own. Reclaimable cache is not used memory."""

    name: str
    limit_bytes: int
    used_bytes: int
    is_own: bool = False
    """Only this trial fills it, so that no neighbour can be the reason."""

    @property
    def free_bytes(self) -> int:
        """What is left before somebody is killed; 0 when over the limit."""
        return max(0, self.limit_bytes - self.used_bytes)

    @property
    def usage(self) -> float:
        """The share in use; above 1 when over the limit."""
        return self.used_bytes / self.limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """`at_s` is monotonic. The process is the trial with all its descendants, swap the machine's or the cgroup's."""

    at_s: float
    scopes: tuple[Scope, ...]
    process_bytes: int
    process_swap_bytes: int = 0
    peak_bytes: int = 0
    swap_used_bytes: int = 0
    is_largest: bool = True
    """No process outside of the trial, as far as can be seen, is larger than its largest."""
    stalled_share: float = 0.0
    """The share of the last 10 s in which every task waited for memory."""
    gpu_used_bytes: int | None = None
    gpu_total_bytes: int | None = None

    @property
    def limit_bytes(self) -> int | None:
        """The least of all limits; None when nothing can be seen."""
        return min((scope.limit_bytes for scope in self.scopes), default=None)

    def scope(self, name: str) -> Scope | None:
        """The scope of that name; None when it could not be read at this moment."""
        return next((scope for scope in self.scopes if scope.name == name), None)
