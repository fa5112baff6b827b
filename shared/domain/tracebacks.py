"""An error of user code in words: bounded, free of our own frames, and fit for a database row.

Pure text, no I/O. What the error means for the trial is decided by `execution`.
"""

from __future__ import annotations

import importlib
import os
import traceback
from pathlib import Path

TRACEBACK_LIMIT = 8_192
"""Longest traceback that is kept, in characters: it goes into a database row and onto a page."""

_NOT_THE_USERS = (
    f"{Path(__file__).parents[1]}{os.sep}",
    f"{Path(importlib.__file__).parent}{os.sep}",
    "<frozen importlib",
)
"""Files of frames that say nothing about the user's code: ours, and what every import goes through."""


def user_traceback(error: BaseException) -> str:
    """The traceback as the user needs it: without our frames and imports' own; too long a one loses its middle."""
    formatted = traceback.TracebackException.from_exception(error, compact=True)
    part: traceback.TracebackException | None = formatted
    while part is not None:
        part.stack[:] = [frame for frame in part.stack if not frame.filename.startswith(_NOT_THE_USERS)]
        part = part.__cause__ or part.__context__
    return shortened(storable("".join(formatted.format())), TRACEBACK_LIMIT)


def text_of(error: BaseException) -> str:
    """str(error), or nothing where the user's `__str__` raises."""
    try:
        return str(error)
    except Exception:  # user code
        return ""


def shortened(text: str, limit: int) -> str:
    """Cuts out the middle: the first lines say where it was called, the last ones what went wrong."""
    if len(text) <= limit:
        return text
    gap = f"\n... {len(text) - limit} characters left out ...\n" if "\n" in text else " ... "
    head = limit // 4
    return text[:head] + gap + text[head + len(gap) - limit :]


def storable(text: str) -> str:
    """Text that UTF-8 and PostgreSQL accept: an error message may hold NUL bytes or lone surrogates."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
