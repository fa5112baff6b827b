"""What attempts have left on the disk of this node: scratch folders without a supervisor, checkpoints without a study.

A supervisor removes its own; these are of supervisors that were killed, and of tickets that were closed elsewhere.
The home may be shared: by containers, whose slots cannot be found here, and by machines, whose locks may not be.
A scratch folder is removed only where its lock is free and no slot's state names it. Checkpoints have no lock: they are
removed a week after their last change, when no study that needs them is known.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from highnoon.workers.folder_age import WEEK_S, unchanged_s
from highnoon.workers.slot_state import SlotState, SlotStates
from highnoon.workers.trial.scratch import remove_unused, work_dirs_below


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
    """Removes checkpoints that have not changed for a week, of studies that are over or unknown (None); how many.

    Raises what `is_over` raises.
    """
    return sum(_remove_if_over(study, is_over, home) for study in home.glob("checkpoints/*"))


def _remove_if_over(study: Path, is_over: Callable[[str], bool | None], home: Path) -> bool:
    # A study of another cluster with the same home may have the name of one that is over, or is unknown.
    if study.is_symlink() or is_over(study.name) is False or unchanged_s(study) <= WEEK_S:
        return False
    states = _states(home)
    if states is None or study.name in {state.study for state in states}:
        return False
    removed = study.with_name(f".removing-{uuid4().hex}")
    try:
        # It is new then: should this process end before the removal, no other node goes on with it for a week.
        os.utime(study)
        # A trial that begins from here on makes a folder of its own.
        study.rename(removed)
    except OSError:
        return False
    # Again: a person may have continued the study, and an attempt of it may have begun before the folder was renamed.
    is_kept = True
    try:
        is_kept = is_over(study.name) is False
    finally:
        if is_kept:
            _put_back(removed, study)
    if not is_kept:
        shutil.rmtree(removed, ignore_errors=True)
    return not is_kept


def _put_back(removed: Path, study: Path) -> None:
    try:
        removed.rename(study)
    except OSError:  # an attempt has made it again meanwhile: the folders of other tickets are put into it
        for ticket in removed.iterdir():
            if not os.path.lexists(study / ticket.name):
                ticket.rename(study / ticket.name)


def _states(home: Path) -> list[SlotState] | None:
    """Of all slots whose states are here; None where one cannot be read, which may be at work."""
    try:
        return [state for slots in home.glob("nodes/*/slots") for state in SlotStates(slots.parent).all_states()]
    except (OSError, ValueError):
        return None
