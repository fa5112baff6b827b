"""Whether the node's disk takes what is written, and which errors mean that it does not.

A node that cannot write runs no trial: it hands back what it has and leaves the rotation until there is room again.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from highnoon.shared.domain.states import Cause

_PROBE_BYTES = 1 << 20
_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def is_full(error: BaseException) -> bool:
    """True for an error of the disk, false for a wrong path or a missing permission."""
    return isinstance(error, OSError) and error.errno in _ERRORS


def disk_trouble(*folders: Path) -> str | None:
    """Why a megabyte cannot be written into one of `folders`, for people; None when it can."""
    for folder in folders:
        try:
            # Without a name: nothing is left where this process is killed, and nodes that share it do not conflict.
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(_PROBE_BYTES))
                probe.flush()
        except OSError as error:
            return f"{Cause.DISK}: {folder} cannot be written ({error.strerror or os.strerror(error.errno or 0)})"
    return None
