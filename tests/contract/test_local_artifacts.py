"""Artifacts of trials in this process: in memory and in a database, in one process and in several."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta

import highnoon as hn
from highnoon.coordinator.cli.artifacts import artifacts
from highnoon.local import files
from highnoon.shared.domain.errors import EveryTrialFailed, FileStoreError, InvalidInput, UserInputError
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.staged_files import StagedFiles
from highnoon.shared.runtime.file_store import file_store
from highnoon.shared.store.optuna_study import OptunaStudy

SPACE = {"x": ("int", 0, 3)}


def objective(params: dict[str, Any]) -> float:
    path = Path("model.txt")
    path.write_text("an early version")
    hn.save_artifact(path)
    path.write_text(f"x = {params['x']}")
    hn.save_artifact(path)
    path.unlink()
    return float(params["x"])


@pytest.mark.parametrize("storage", [None, "sqlite"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_best_trials_keep_what_they_saved(
    storage: str | None, n_jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a study whose trials save a file twice by the same name
    monkeypatch.chdir(tmp_path)
    url = storage and f"sqlite:///{tmp_path}/hpo.db"
    manager = hn.HPOTrialManager("digits", storage=url, sampler="grid", n_trials=4, artifacts="models", keep_best=2)

    # When its trials run in this process, or in processes of their own
    if n_jobs == 1:
        manager.optimize(objective, SPACE)
    else:
        manager.optimize(_in_a_folder_of_its_own, SPACE, n_jobs=n_jobs)

    # Then the two best have the last version, and the store has nothing else
    by_value = {trial.number: trial.value for trial in manager.trials}
    listed = manager.artifacts()
    assert sorted(by_value[number] for number, _ in listed) == [0.0, 1.0]
    assert {path.name for path in Path("models").iterdir()} == {artifact.id for _, artifact in listed}
    best = manager.best_trial.number
    assert manager.artifact(best, "model.txt", to="down").read_text() == "x = 0"
    with pytest.raises(UserInputError, match=r"trial \d has no artifact 'modle.txt'. Did you mean model.txt"):
        manager.artifact(best, "modle.txt")
    with pytest.raises(UserInputError, match="trial 99 has no artifact"):
        manager.artifact(99, "model.txt")

    # And Optuna finds them too, and the command line
    if url is not None:
        with pytest.raises(
            FileStoreError,
            match=r"artifacts: there is no such .*; HIGHNOON_ARTIFACTS_URL must name the place of the study",
        ):
            artifacts("digits", best, Path("copied"), url, False)
        assert not Path("copied").exists()
        with pytest.raises(InvalidInput, match=r"TRIAL: .* has this number \(got 44\). It has trials 0 to 3."):
            artifacts("digits", 44, None, url, False)
        storage_ = optuna.storages.get_storage(url)
        found = optuna.load_study(study_name="digits", storage=storage_).best_trial
        assert [meta.filename for meta in get_all_artifact_meta(found, storage=storage_)] == ["model.txt"]
        monkeypatch.setenv("HIGHNOON_ARTIFACTS_URL", str(tmp_path / "models"))
        artifacts("digits", best, Path("copied"), url, False)
        assert (tmp_path / "copied" / str(best) / "model.txt").read_text() == "x = 0"


def _in_a_folder_of_its_own(params: dict[str, Any]) -> float:
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        return objective(params)


def test_what_cannot_be_stored_costs_the_trial_nothing(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("no folder")
    manager = hn.HPOTrialManager("digits", n_trials=1, artifacts=tmp_path / "models")

    def saves(params: dict[str, Any]) -> float:
        (tmp_path / "model.txt").write_text("x")
        hn.save_artifact(tmp_path / "model.txt")
        return 0.5

    manager.optimize(saves, {"x": ("uniform", 0.0, 1.0)})
    assert manager.best_value == 0.5 and manager.artifacts() == []
    assert "not stored: model.txt" in str(manager.best_trial.attrs["highnoon:message"])


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_copy_goes_when_the_next_one_of_its_name_comes(
    n_jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = tmp_path / "model.txt"

    def saves(params: dict[str, Any]) -> float:
        for epoch in range(3):
            model.write_text(str(epoch))
            hn.save_artifact(model)
            hn.report(0.0, epoch)
            hn.should_prune()  # what came before has been handled then
        return float(sum(path.is_file() for copies in tmp_path.glob("highnoon-files-*") for path in copies.rglob("*")))

    manager = hn.HPOTrialManager("digits", n_trials=1, artifacts=tmp_path / "models", pruner="none")
    manager.optimize(saves, SPACE, n_jobs=n_jobs)

    assert manager.best_value == 1


def test_copies_go_with_their_trial_and_not_with_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left: list[Path] = []

    def look(study: Any, trial: Any) -> None:
        left.extend(path for copies in tmp_path.glob("highnoon-files-*") for path in copies.rglob("*"))

    manager = hn.HPOTrialManager("digits", n_trials=2, artifacts="models")
    manager.optimize(objective, SPACE, callbacks=[look])

    assert left == []


def test_a_wrong_file_fails_its_trial_with_the_reason(tmp_path: Path) -> None:
    manager = hn.HPOTrialManager("digits", n_trials=1, artifacts=tmp_path)
    with pytest.raises(EveryTrialFailed, match="path: there is no such file"):
        manager.optimize(lambda params: hn.save_artifact("nowhere.bin"), {"x": ("uniform", 0.0, 1.0)})


@pytest.mark.parametrize("isolation", ["none", "fork"])
def test_the_environments_limit_holds_in_process(
    isolation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIGHNOON_ARTIFACT_LIMIT_BYTES", "10")
    (tmp_path / "model.txt").write_text("x" * 11)
    manager = hn.HPOTrialManager("digits", n_trials=1, artifacts=tmp_path / "models", isolation=isolation)
    with pytest.raises(EveryTrialFailed, match=r"has 11 bytes, and .* may have 10 .*_LIMIT_BYTES"):
        manager.optimize(lambda params: hn.save_artifact(tmp_path / "model.txt"), SPACE)


def test_wrong_settings_do_not_fail_a_trial_that_saves_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGHNOON_ARTIFACT_LIMIT_BYTES", "much")
    monkeypatch.chdir(tmp_path)
    manager = hn.HPOTrialManager("digits", n_trials=1, artifacts="models")
    manager.optimize(objective, SPACE)
    assert "HIGHNOON_ARTIFACT_LIMIT_BYTES" in str(manager.best_trial.attrs["highnoon:message"])


def test_folder_may_be_named_from_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    manager = hn.HPOTrialManager("digits", n_trials=1, artifacts="~/models")
    manager.optimize(objective, SPACE)
    assert len(list((tmp_path / "home" / "models").iterdir())) == 1
    assert manager.artifact(0, "model.txt", to="down").is_file()


def test_wrong_arguments_are_named() -> None:
    wrong: Any = {"artifacts": 3, "keep_best": 0}
    with pytest.raises(InvalidInput, match=r"(?s)keep_best: .*artifacts: must be a folder"):
        hn.HPOTrialManager("digits", **wrong)


def test_an_interrupted_run_leaves_no_file(tmp_path: Path) -> None:
    manager = hn.HPOTrialManager("digits", n_trials=1, artifacts=tmp_path / "models")

    def interrupted(params: dict[str, Any]) -> float:
        (tmp_path / "model.txt").write_text("x")
        hn.save_artifact(tmp_path / "model.txt")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manager.optimize(interrupted, {"x": ("uniform", 0.0, 1.0)})
    assert not (tmp_path / "models").exists() and manager.artifacts() == []


class CountingStore:
    """A folder that counts what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self._store, self.asked = file_store(folder), 0

    def __getattr__(self, name: str) -> Any:
        self.asked += 1
        return getattr(self._store, name)


@pytest.mark.parametrize(("saves", "most"), [(0, 0), (2, 4)])
def test_interrupted_run_asks_the_store_for_what_it_has_stored_only(
    saves: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CountingStore(tmp_path / "models")
    monkeypatch.setattr(files, "file_store", lambda *_: store)
    monkeypatch.setattr(OptunaStudy, "finish_trial", interrupt_once(OptunaStudy.finish_trial))
    manager = hn.HPOTrialManager("digits", n_trials=1)

    def objective(params: dict[str, Any]) -> float:
        for number in range(saves):
            (tmp_path / "model.txt").write_text("x")
            hn.save_artifact(tmp_path / "model.txt", f"{number}.txt")
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        manager.optimize(objective, SPACE)

    assert store.asked == most
    assert not any((tmp_path / "models").glob("*"))


def interrupt_once(finish: Any) -> Any:
    has_come = False

    def interrupted(*arguments: Any) -> Any:
        nonlocal has_come
        if not has_come:
            has_come = True
            raise KeyboardInterrupt
        return finish(*arguments)

    return interrupted


def test_files_of_an_abandoned_trial_are_removed_without_a_question_for_each_that_it_might_have(tmp_path: Path) -> None:
    # Given a call that has stored two of three files, the first of which could not be stored, and a part of one more
    store = CountingStore(tmp_path / "models")
    with files.LocalFiles(lambda: tmp_path / "models") as ended:
        staged = StagedFiles(ended.folder(7))
        (tmp_path / "model.txt").write_text("x")
        saved = {name: staged.copy(tmp_path / "model.txt", name) for name in ("0", "1", "2")}
        (ended.folder(7) / saved["0"].file).unlink()
        ended.with_artifacts(Outcome(ending=Ending.COMPLETED, value=1.0), 7, saved)
    assert len(list((tmp_path / "models").iterdir())) == 2
    (tmp_path / "models" / f".{files._file_id(ended.call, 7, 2)}.draft").touch()

    # When a later call removes them
    with files.LocalFiles(lambda: tmp_path / "models") as later:
        later._store = store  # type: ignore[assignment]
        later.remove_all_of(ended.call, 7)

    # Then all are gone, with a handful of questions
    assert list((tmp_path / "models").iterdir()) == []
    assert store.asked <= 6


def test_files_of_a_run_that_was_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    # Given a run that is killed when its file is stored, and its trial has not ended
    program = """
        import os, signal, sys
        from pathlib import Path
        import highnoon as hn
        from highnoon.shared.store.optuna_study import OptunaStudy

        def killed(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        def objective(params):
            Path(sys.argv[1], "model.txt").write_text("x")
            hn.save_artifact(Path(sys.argv[1], "model.txt"))
            return 0.5

        OptunaStudy.finish_trial = killed
        storage = f"sqlite:///{sys.argv[1]}/hpo.db"
        manager = hn.HPOTrialManager("digits", n_trials=1, storage=storage, artifacts=Path(sys.argv[1], "models"))
        manager.optimize(objective, {"x": ("uniform", 0.0, 1.0)})
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "models").iterdir())) == 1

    # When the next run finds its trial
    storage = f"sqlite:///{tmp_path}/hpo.db"
    manager = hn.HPOTrialManager("digits", n_trials=1, storage=storage, artifacts=tmp_path / "models")
    manager.optimize(lambda params: 0.5, {"x": ("uniform", 0.0, 1.0)})

    # Then the file is gone, too
    assert list((tmp_path / "models").iterdir()) == []
