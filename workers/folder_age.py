"""For how long nothing in a folder has changed: what no lock protects is kept for a week after its last change."""

from __future__ import annotations

import os
import time
from pathlib import Path

WEEK_S = 7 * 86_400.0


def unchanged_s(folder: Path) -> float:
    """Since the last change in the folder or below it; 0 where it cannot be read. Follows no link."""
    try:
        newest = folder.lstat().st_mtime
        if not folder.is_symlink():
            for path, folders, files in os.walk(folder, onerror=_raise):
                newest = max([newest, *(Path(path, name).lstat().st_mtime for name in (*folders, *files))])
    except OSError:  # also of a file that is removed at this moment: the folder is in use
        return 0.0
    return time.time() - newest


def _raise(error: OSError) -> None:
    raise error
