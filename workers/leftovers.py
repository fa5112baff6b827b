"""What attempts have left on the disk of this node: scratch folders without a supervisor, checkpoints without a study.

A supervisor removes its own; these are of supervisors that were killed, and of tickets that were closed elsewhere.
The home may be shared: by containers, whose slots cannot be found here, and by machines, whose locks may not be.
Both are asked: a folder goes only where its lock is free and no slot's state names it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from highnoon.workers.slot_state import SlotState, SlotStates
from highnoon.workers.trial.scratch import remove_unused, work_dirs_below

_UNKNOWN_KEPT_S = 7 * 86_400.0
"""A study that this database does not know is a deleted one, or belongs to another cluster with the same home."""


def remove_stray_scratch(home: Path) -> int:
    """Removes the scratch folders that no supervisor uses; how many there were."""
    # In this order: a slot's state has its folder before that is made.
    found = work_dirs_below(home / "runs")
    states = _states(home)
    if states is None:
        return 0
    # Another node may reach the same home by another path.
    used = {Path(state.work_dir).parts[-2:] for state in states if state.work_dir is not None}
    return sum(remove_unused(work_dir) for work_dir in found if work_dir.parts[-2:] not in used)


def remove_old_checkpoints(home: Path, is_over: Callable[[str], bool | None]) -> int:
    """Removes the checkpoints of studies that are over, and in time of those that are unknown (None); how many studies.

    Raises what `is_over` raises.
    """
    return sum(_remove_if_over(study, is_over, home) for study in home.glob("checkpoints/*"))


def _remove_if_over(study: Path, is_over: Callable[[str], bool | None], home: Path) -> bool:
    over = is_over(study.name)
    if over is None:
        over = time.time() - _changed_at([study, *study.rglob("*")]) > _UNKNOWN_KEPT_S
    if not over:
        return False
    # After the question: an ended study that is continued at this moment has a slot before it has checkpoints.
    states = _states(home)
    if states is None or study.name in {state.study for state in states}:
        return False
    shutil.rmtree(study, ignore_errors=True)
    return True


def _states(home: Path) -> list[SlotState] | None:
    """Of all slots whose states are here; None where one cannot be read, which may be at work."""
    try:
        return [state for slots in home.glob("nodes/*/slots") for state in SlotStates(slots).all_states()]
    except (OSError, ValueError):
        return None


def _changed_at(paths: Iterable[Path]) -> float:
    newest = 0.0
    for path in paths:
        try:
            newest = max(newest, path.lstat().st_mtime)
        except FileNotFoundError:  # at this moment: it is in use
            return time.time()
    return newest
