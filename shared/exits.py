"""The exit codes of our command lines, by name. The README's table is made from these."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a calling program may rely on."""

    OK = 0
    """Done; for a study: it is finished and has a best trial."""
    NO_RESULT = 1
    """The study is over without a completed trial, or was cancelled."""
    USER_INPUT = 2
    """A mistake in what a person wrote; the message names key, value and the nearest valid choice."""
    SERVICE = 3
    """An outside service is away or does not fit; `coordinator doctor` explains."""
    POOL_BROKEN = 4
    """A worker's pool cannot live: a preload fails, or it dies again and again."""
    INTERRUPTED = 130
    """Ended by Ctrl-C or SIGTERM, in order."""
