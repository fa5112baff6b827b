"""Checkpoints of trainings inside trials, which may share a folder. The model is a fake one, without Keras."""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from highnoon.lm.training import checkpoint_folder
from highnoon.lm.training.checkpoint_folder import CheckpointFolder, writing_into
from highnoon.lm.training.whole_folder import appearing
from highnoon.shared.objective import trial_context

OPTIMIZER = SimpleNamespace(variables=[])


class Model:
    """Has no variables; its file of weights is text."""

    weights: tuple[Any, ...] = ()
    variables: tuple[Any, ...] = ()

    def save_weights(self, path: Path) -> None:
        path.write_text("weights")


def in_a_trial(folder: Path) -> CheckpointFolder:
    """The folder as a training that begins inside a trial writes into it."""
    channel: Any = object()
    with trial_context.bound(channel), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = writing_into(folder, None, 0)
    assert found is not None
    return found


def save(folder: CheckpointFolder, step: int) -> Path:
    return folder.write(step, Model(), OPTIMIZER, {"step": step})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_trials_that_share_a_folder_keep_the_three_newest_of_all(tmp_path: Path) -> None:
    # Given a trial that has written late steps
    for number, step in enumerate((70, 80, 90)):
        written = save(in_a_trial(tmp_path), step)
        os.utime(written, (1000 + number, 1000 + number))

    # When the next trial writes early ones
    second = in_a_trial(tmp_path)
    save(second, 1)
    assert names_in(tmp_path) == ["latest", "step-00000001", "step-00000080", "step-00000090"]
    for step in (2, 3, 4):
        save(second, step)

    # Then nothing was moved, and three are there in all
    assert names_in(tmp_path) == ["latest", "step-00000002", "step-00000003", "step-00000004"]
    assert (tmp_path / "latest").resolve().name == "step-00000004"


def test_checkpoint_just_written_stays_also_where_the_others_seem_newer(tmp_path: Path) -> None:
    for step in (70, 80, 90):
        os.utime(save(in_a_trial(tmp_path), step), (2**32, 2**32))

    written = save(in_a_trial(tmp_path), 1)

    assert written.is_dir() and len(names_in(tmp_path)) == 4


def test_checkpoint_that_another_trial_removes_at_the_same_moment_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (70, 80, 90):
        save(in_a_trial(tmp_path), step)
    remove = checkpoint_folder.remove

    def remove_after_another(*folders: Path) -> None:
        for folder in folders:
            shutil.rmtree(folder)
        remove(*folders)

    monkeypatch.setattr(checkpoint_folder, "remove", remove_after_another)
    assert save(in_a_trial(tmp_path), 1).is_dir()


def test_trials_that_write_the_same_steps_at_once_all_go_on(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(4)

    def train() -> None:
        folder = CheckpointFolder(tmp_path, None, 0, in_trial=True)
        try:
            for step in range(1, 21):
                together.wait(timeout=60)
                save(folder, step)
        except BaseException as error:
            errors.append(error)
            together.abort()

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    found = names_in(tmp_path)
    assert found[0] == "latest" and 1 <= len(found) - 1 <= 3
    assert names_in(tmp_path / "step-00000020") == ["model.weights.h5", "optimizer.npz", "random.npz", "state.json"]


def test_drafts_of_killed_processes_are_removed_after_an_hour(tmp_path: Path) -> None:
    old, young = (tmp_path / f".{kind}-step-00000007-{'0' * 32}" for kind in ("writing", "replaced"))
    for draft in (old, young):
        draft.mkdir()
    os.utime(old, (1000, 1000))

    save(in_a_trial(tmp_path), 8)

    assert names_in(tmp_path) == [young.name, "latest", "step-00000008"]


def test_folder_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half"), appearing(tmp_path / "new") as partial:
        (partial / "file").write_text("half")
        raise ValueError("half")

    assert names_in(tmp_path) == []
