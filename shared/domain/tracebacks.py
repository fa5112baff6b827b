"""An error of user code in words: bounded, free of our own frames, and fit for a database row.

Pure text, no I/O. What the error means for the trial is decided by `execution`.
"""

from __future__ import annotations

import importlib
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

TRACEBACK_LIMIT = 8_192
"""Longest traceback that is kept, in characters: it goes into a database row and onto a page."""

_NOT_THE_USERS = (
    f"{Path(__file__).parents[2]}{os.sep}",
    f"{Path(importlib.__file__).parent}{os.sep}",
    "<frozen importlib",
)
"""Files of frames that say nothing about the user's code: ours, and what every import goes through."""
_LIBRARIES = tuple({f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platlib", "purelib")})
_FRAME = re.compile(
    r'^  File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)\n(?:    (?P<code>.*)\n)?', re.MULTILINE
)
_MOST_GROUPS = 5


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


def failure_groups(failures: Iterable[tuple[str, str]]) -> list[str]:
    """Failures, each a message and a traceback, by their message: the most frequent first, three lines each.

    How often and what, the user's own line where it happened, and what stands there.
    """
    groups: dict[str, list[str]] = {}
    for message, trace in failures:
        groups.setdefault(message, []).append(trace)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    lines = []
    for message, traces in ordered[:_MOST_GROUPS]:
        lines.append(f"  {len(traces)} x {message or 'without a message'}")
        lines += [f"      {line}" for line in _place(next(filter(None, reversed(traces)), ""))]
    if len(ordered) > _MOST_GROUPS:
        lines.append(f"  … and {len(ordered) - _MOST_GROUPS} other messages")
    return lines


def _place(trace: str) -> list[str]:
    """The last frame that is neither ours nor a library's; the last of all where there is none such."""
    frames = list(_FRAME.finditer(trace))
    own = [frame for frame in frames if not frame["file"].startswith(_LIBRARIES)]
    if not frames:
        return []
    frame = (own or frames)[-1]
    where = f"{frame['file']}:{frame['line']}, in {frame['function']}"
    return [where, frame["code"].strip()] if frame["code"] else [where]
