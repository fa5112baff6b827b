"""Where a training reads and writes checkpoints: the folder it was given, or the trial's own; apart in a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from highnoon.lm.training.checkpointing import LATEST
from highnoon.rehearsal import REHEARSAL_FOLDER, apart_in_rehearsal, is_rehearsal
from highnoon.shared.domain.errors import UserInputError
from highnoon.shared.objective.trial_context import checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPaths:
    """What one call of `train` reads and writes."""

    folder: Path | None
    """Where checkpoints are written; None: none are."""
    resumed: Path | None
    """The checkpoint that the training continues; None: it begins."""
    own: Path | None = None
    """The folder where it is the trial's own for this training, which the attempt after a lost one finds."""


def checkpoint_paths(
    checkpoint_dir: str | Path | None, resume_from: str | Path | None, *, save: bool, in_trial: bool
) -> CheckpointPaths:
    """The paths for `train`'s arguments. Raises UserInputError for a checkpoint that does not exist, NoTrialRunning.

    `in_trial`: without a `checkpoint_dir` the trial's own folder is used, where another attempt would find it.
    """
    if save and in_trial and checkpoint_dir is None and (own := _folder_of_the_trial()) is not None:
        return CheckpointPaths(folder=own, resumed=_to_resume(resume_from or LATEST, own), own=own)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir).expanduser()
    resumed = _to_resume(resume_from, folder)
    if is_rehearsal():  # begins at its first step: its model is smaller than the one that was saved
        resumed = None
    return CheckpointPaths(folder=apart_in_rehearsal(folder) if folder and save else None, resumed=resumed)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint itself, or the latest of a folder of them. Raises UserInputError when there is none.

    In a rehearsal the one that a rehearsal has written there goes before.
    """
    folder = Path(path).expanduser()
    folders = [folder / REHEARSAL_FOLDER, folder.parent / REHEARSAL_FOLDER / folder.name] if is_rehearsal() else []
    for candidate in (name for one in (*folders, folder) for name in (one, one / LATEST)):
        if (candidate / "state.json").is_file():
            return candidate.resolve()
    raise UserInputError(f"there is no checkpoint in {folder}: expected a folder step-N, or one with a link {LATEST!r}")


def fits_the_rehearsal(checkpoint: Path) -> bool:
    """False in a rehearsal, whose models are smaller, for a checkpoint that no rehearsal has written."""
    return not is_rehearsal() or REHEARSAL_FOLDER in (checkpoint.name, checkpoint.parent.name)


def _folder_of_the_trial() -> Path | None:
    """Where the running trial saves this training, so that the attempt after a lost one finds it.

    None where no attempt follows. Raises NoTrialRunning.
    """
    folder = checkpoints()
    return folder.for_next_training() if folder.lasting else None


def _to_resume(resume_from: str | Path | None, checkpoint_dir: Path | None) -> Path | None:
    """The checkpoint to resume, None to begin a new training. Raises UserInputError when the named one does not exist.

    "latest" is the newest in `checkpoint_dir`, and none where there is none yet.
    """
    if resume_from is None:
        return None
    if str(resume_from) != LATEST:
        return find_checkpoint(resume_from)
    if checkpoint_dir is None:
        raise UserInputError(f"resume_from={LATEST!r} is the newest checkpoint in checkpoint_dir; give that, too")
    newest = checkpoint_dir / LATEST
    return find_checkpoint(newest) if newest.is_dir() else None
