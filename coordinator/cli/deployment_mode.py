"""Whether a command means everything on this machine, or a cluster."""

from __future__ import annotations

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.runtime.settings import Settings


def is_embedded(settings: Settings) -> bool:
    """True when no addresses are set: everything runs on this machine. Raises InvalidInput when only one is."""
    missing = [name for name in ("database_url", "redis_url") if getattr(settings, name) is None]
    if len(missing) == 1:
        problem = Problem(
            key=f"HIGHNOON_{missing[0].upper()}",
            message="is not set, but the other address is",
            hint="Set both for a cluster, or none to run everything on this machine.",
        )
        raise InvalidInput("environment", [problem])
    return bool(missing)
