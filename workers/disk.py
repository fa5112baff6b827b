"""Whether the node's disk takes what is written, and which errors mean that it does not.

A node that cannot write runs no trial: it hands back what it has and leaves the rotation until there is room again.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

FULL = "disk"
"""The cause of an attempt that was handed back for this."""

_PROBE_BYTES = 1 << 20
_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def is_full(error: BaseException) -> bool:
    """True for an error of the disk, false for a wrong path or a missing permission."""
    return isinstance(error, OSError) and error.errno in _ERRORS


def disk_trouble(folder: Path) -> str | None:
    """Why a megabyte cannot be written into `folder`, for people; None when it can."""
    probe = folder / "disk-probe"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError as error:
        return f"disk: {folder} cannot be written ({error.strerror or os.strerror(error.errno or 0)})"
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None
