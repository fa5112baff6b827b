"""Where a training may go on: which checkpoint is meant, and whether it belongs to the same plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from highnoon.lm.training.checkpoints import LATEST, find_checkpoint
from highnoon.shared.domain.errors import InvalidInput, Problem, UserInputError
from highnoon.shared.objective.trial_context import checkpoints


def folder_of_the_trial() -> Path | None:
    """Where this training of the running trial is saved and found again by the attempt that follows a lost one.

    None where none follows. Raises NoTrialRunning.
    """
    folder = checkpoints()
    return folder.for_next_training() if folder.outlives_its_attempt else None


def checkpoint_to_resume(resume_from: str | Path | None, checkpoint_dir: str | Path | None) -> Path | None:
    """The checkpoint to go on from, None to begin anew. Raises UserInputError when the one that was named is not there.

    "latest" is the newest in `checkpoint_dir`, and none where there is none yet.
    """
    if resume_from is None:
        return None
    if str(resume_from) != LATEST:
        return find_checkpoint(resume_from)
    if checkpoint_dir is None:
        raise UserInputError(f"resume_from={LATEST!r} is the newest checkpoint in checkpoint_dir; give that, too")
    newest = Path(checkpoint_dir).expanduser() / LATEST
    return find_checkpoint(newest) if newest.is_dir() else None


def refuse_another_plan(source: str, found: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raises InvalidInput when the plans differ: steps are counted along it, so that a position would mean other text.

    Both are states as checkpoints hold them; `source` says where `found` comes from.
    """
    before, now = found["plan"], mine["plan"]
    if before is None:
        return
    problems = [
        Problem(
            key=f"{stage['stage']}.{key}", message=f"was {then[key]!r} when the checkpoint was written", value=value
        )
        for then, stage in zip(before, now, strict=False)
        for key, value in stage.items()
        if then[key] != value
    ]
    if len(before) != len(now):
        problems.append(Problem(key="stages", message=f"were {len(before)}, and are {len(now)} now"))
    if problems:
        raise InvalidInput(f"resuming from {source}", problems)
