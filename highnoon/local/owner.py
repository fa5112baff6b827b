"""Which call of which process runs a trial of `HPOTrialManager`, so that the next one can end what another has left.

A pid alone is reused: its start time and the machine's boot go with it. What cannot be judged from here (another host,
another container) is left alone.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from highnoon.shared.runtime.processes import identify

OWNER = "highnoon:owner"
"""The trial's system attribute that holds what `owner_of` gives."""


_calls: set[str] = set()
"""The calls of this process that have not ended; several threads may have one."""


@contextmanager
def active_call(call: str) -> Iterator[None]:
    """Until its end the trials of this call are its own."""
    _calls.add(call)
    try:
        yield
    finally:
        _calls.discard(call)


def owner_of(call: str) -> dict[str, Any]:
    """Host, process and call, as JSON."""
    me = identify(os.getpid())
    return {**_machine(), "pid": os.getpid(), "started_ticks": me.started_ticks if me else None, "call": call}


def is_gone(owner: Mapping[str, Any]) -> bool:
    """True when its process was on this machine and has ended, or is this one and the call has ended.

    A restart of the machine ends a process, too.
    """
    here = _machine()
    if any(owner.get(key) != here[key] for key in ("host", "machine")):
        return False
    if owner.get("boot") != here["boot"]:
        return True
    if owner.get("namespace") != here["namespace"]:
        return False
    alive = identify(int(owner.get("pid", 0)))
    if alive is None or alive.started_ticks != owner.get("started_ticks"):
        return True
    return alive.pid == os.getpid() and owner.get("call") not in _calls


def _machine() -> dict[str, str]:
    """`machine` tells apart hosts that have the same name, `namespace` containers whose pids overlap."""
    return {
        "host": platform.node(),
        "machine": _text("/etc/machine-id"),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _link("/proc/self/ns/pid"),
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
