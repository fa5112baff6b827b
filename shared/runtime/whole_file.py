"""A file that appears under its name once all of it is on the disk, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path, *, mode: int = 0o600, draft: Path | None = None) -> Iterator[BinaryIO]:
    """To be written, for its owner alone unless `mode` is given; replaces an earlier one. Raises OSError.

    `draft` is written meanwhile: for a caller that removes what a process left that was killed.
    """
    draft = draft or path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink()
