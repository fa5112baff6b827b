"""Whose folder this is: a lock that an agent holds on the folder of its node for as long as it lives.

What the agents of `kill -9` left is found by the lock that nobody holds, and removed by the next one. The kernel gives
it up however its holder dies, also where two containers share the folders and neither sees the other's processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = "agent.lock"


@contextmanager
def resident(folder: Path) -> Iterator[None]:
    """Makes the folder, and lives in it."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{_LOCK}.new"
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Locked before it has its name: nobody ever finds it free while its agent lives.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        draft.rename(folder / _LOCK)
        yield
    finally:
        os.close(descriptor)


def sweep_deserted(nodes: Path) -> int:
    """Removes the folders whose agent is dead. How many there were."""
    deserted = [lock.parent for lock in nodes.glob(f"*/{_LOCK}") if _is_free(lock)]
    for folder in deserted:
        shutil.rmtree(folder, ignore_errors=True)
    return len(deserted)


def _is_free(lock: Path) -> bool:
    with contextlib.suppress(OSError), lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
