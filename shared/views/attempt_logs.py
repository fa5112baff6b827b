"""What an attempt printed: its file where it ran on this host, else the end that the ledger has."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highnoon.shared.store.attempt_records import AttemptRecord


def is_elsewhere(attempt: AttemptRecord) -> bool:
    """Whether it ran on another host, so that a file of that name here would be another one."""
    return attempt.host != socket.gethostname()


def printed_by(attempt: AttemptRecord) -> str:
    """All that is kept of it: a full file was rotated, and its first part has the ending `.1`."""
    parts = []
    if attempt.log_path is not None and not is_elsewhere(attempt):
        path = Path(attempt.log_path)
        for part in (path.with_name(path.name + ".1"), path):
            with contextlib.suppress(OSError):
                parts.append(part.read_bytes().decode("utf-8", errors="replace"))
    return "".join(parts) or attempt.log_tail or ""
