"""The format of log lines: one event, one line, the same ids in the same order.

    2026-05-04T03:02:01.123Z INFO action=claim study=digits ticket=17 attempt=2 worker=a1

Owns the format and nothing else: no files, no rotation, no records for user code. The guide's `[Memory] ...` lines
are ordinary messages and pass through word for word.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

IDS = ("study", "ticket", "attempt", "trial", "worker")
ROOT = "highnoon"
"""Our loggers are below this one."""


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends all records to `stream` (stderr); ours from `level` on, other libraries' warnings. Replaces handlers."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(ROOT).setLevel(level.upper())


def event(logger: logging.Logger, action: str, /, *, level: int = logging.INFO, **fields: Any) -> None:
    """Logs one event. `action` is a stable verb for machines; fields that are None are left out. Never fails."""
    if logger.isEnabledFor(level):
        logger.log(level, "%s", logfmt(action, fields))


def logfmt(action: str, fields: dict[str, Any]) -> str:
    """The event in logfmt: the action, the ids in their fixed order, then the other fields as they were given."""
    ordered = {"action": action} | {name: fields[name] for name in IDS if name in fields} | fields
    return " ".join(f"{name}={_value(value)}" for name, value in ordered.items() if value is not None)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    bare = text.isprintable() and text and not set(text) & set(' "=')
    return text if bare else json.dumps(text, ensure_ascii=False)
