"""A training that is killed and goes on as if nothing had happened, and checkpoints that are whole or not there."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import highnoon as hn
from highnoon.lm.data import sources
from highnoon.lm.training.checkpointing import Progress
from highnoon.shared.domain.errors import InvalidInput, TrialPruned, UserInputError
from highnoon.shared.domain.states import Ending
from highnoon.shared.objective.attempt import run_attempt
from highnoon.shared.objective.staged_files import SavedFile, SavingLimits, StagedFiles
from highnoon.shared.objective.trial_context import bound
from tests.integration.test_trainer import SENTENCES, Study, small_model

EPOCHS = 2


@pytest.fixture(autouse=True)
def _birds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sources, "_registered", {"birds": tuple(SENTENCES)})
    yield
    keras.backend.clear_session()


def new_trainer(model_seed: int = 5, **options: Any) -> hn.Trainer:
    """With dropout, so that random states matter, and a stage of its own sizes, so that positions do."""
    keras.utils.set_random_seed(model_seed)
    settings = {"learning_rate": 3e-3, "batch_size": 4, "max_seq_length": 32, **options}
    trainer = hn.Trainer(small_model(), **settings)
    return trainer.add_curriculum_stage("a", "birds").add_curriculum_stage("b", "birds", batch_size=8)


class Losses(keras.callbacks.Callback):
    """The mean loss of the epoch after each step; kills the process after `last` of them, without any warning."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self.seen: list[float] = []
        self._last = last

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(logs["loss"])
        if len(self.seen) == self._last:
            os.kill(os.getpid(), 9)


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[list[float], dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_registered", {"birds": tuple(SENTENCES)})
        losses = Losses()
        return losses.seen, new_trainer().add_callback(losses).train(epochs_per_stage=EPOCHS)


KILLED = """
import sys
from tests.integration.test_trainer_resume import *
sources._registered["birds"] = tuple(SENTENCES)
trainer = new_trainer().add_callback(Losses(last=int(sys.argv[1])))
trainer.train(epochs_per_stage=EPOCHS, checkpoint_dir=sys.argv[2], checkpoint_interval=3)
"""


def test_killed_training_resumes_exactly(uninterrupted: tuple[list[float], dict[str, Any]], tmp_path: Path) -> None:
    losses, summary = uninterrupted
    killed_after = random.randint(4, len(losses) - 1)

    done = subprocess.run([sys.executable, "-c", KILLED, str(killed_after), tmp_path], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    again = Losses()
    resumed = new_trainer(model_seed=99).add_callback(
        again
    )  # other weights, other dropout: all comes from the checkpoint
    after = resumed.train(epochs_per_stage=EPOCHS, checkpoint_dir=tmp_path, resume_from=tmp_path / "latest")

    assert len(losses) - killed_after <= len(again.seen) < len(losses) - killed_after + 4
    assert again.seen == pytest.approx(losses[-len(again.seen) :], rel=1e-5), f"killed after {killed_after}"
    for name in ("train_loss", "val_loss"):
        expected = [entry[name] for entry in summary["history"]]
        assert [entry[name] for entry in after["history"]] == pytest.approx(expected, rel=1e-5)
    assert after["total_steps"] == summary["total_steps"]
    assert [stage["steps"] for stage in after["stages_completed"]] == [
        stage["steps"] for stage in summary["stages_completed"]
    ]
    assert not list(tmp_path.glob(".writing-*"))


def test_saved_trainer_is_loaded_with_its_curriculum_and_continues(
    uninterrupted: tuple[list[float], dict[str, Any]], tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    def stop_after_the_first_stage(event: dict[str, Any]) -> None:
        if event["event"] == "stage_complete":
            raise Enough

    _, summary = uninterrupted
    trainer = new_trainer().add_callback(stop_after_the_first_stage)
    with pytest.raises(Enough):
        trainer.train(epochs_per_stage=EPOCHS)
    trainer.save(tmp_path / "mine")
    trainer.save(tmp_path / "mine")

    loaded = hn.Trainer.load(tmp_path / "mine", small_model())
    after = loaded.train(epochs_per_stage=EPOCHS)

    assert loaded.hyperparameters == trainer.hyperparameters
    for name in ("train_loss", "val_loss"):
        expected = [entry[name] for entry in summary["history"]]
        assert [entry[name] for entry in after["history"]] == pytest.approx(expected, rel=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


class Interrupted(Exception):
    pass


class Interrupts(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            raise Interrupted


def saved_within_an_epoch(trainer: hn.Trainer, path: Path) -> None:
    with pytest.raises(Interrupted):
        trainer.add_callback(Interrupts()).train(epochs_per_stage=EPOCHS)
    trainer.save(path)


def test_saved_trainer_is_not_continued_with_another_batch_or_tokenizer(tmp_path: Path) -> None:
    # Given a trainer that was saved within an epoch
    tokenizer = hn.QWTTextTokenizer(vocab_size=280)
    tokenizer.train_on(SENTENCES)
    keras.utils.set_random_seed(5)
    trainer = hn.Trainer(small_model(vocab_size=280), batch_size=4, max_seq_length=32, tokenizer=tokenizer)
    saved_within_an_epoch(trainer.add_curriculum_stage("a", "birds"), tmp_path / "mine")

    # When it goes on with other batches, or without its tokenizer
    other_batch = hn.Trainer.load(tmp_path / "mine", small_model(vocab_size=280), tokenizer=tokenizer, batch_size=8)
    other_tokenizer = hn.Trainer.load(tmp_path / "mine", small_model(vocab_size=280))
    other_tokenizer.save(tmp_path / "again")

    # Then both are refused, and with both it goes on, also where it was saved again in between
    with pytest.raises(InvalidInput, match=r"a\.batch_size: was 4 when the checkpoint was written"):
        other_batch.train(epochs_per_stage=EPOCHS)
    words = (
        r"tokenizer: was a QWTTextTokenizer with 280 ids .*\(got 'ByteStreamTokenizer with 256 ids'\).*tokenizer=\.\.\."
    )
    with pytest.raises(InvalidInput, match=words):
        other_tokenizer.train(epochs_per_stage=EPOCHS)
    for path in ("mine", "again"):
        same = hn.Trainer.load(tmp_path / path, small_model(vocab_size=280), tokenizer=tokenizer)
        assert len(same.train(epochs_per_stage=EPOCHS)["history"]) == EPOCHS


def test_options_replace_saved_ones_under_either_spelling(tmp_path: Path) -> None:
    new_trainer(gradient_clip=1.0, num_blocks=3).save(tmp_path / "mine")

    loaded = hn.Trainer.load(tmp_path / "mine", small_model(), max_grad_norm=0.5, num_reasoning_blocks=4)

    assert loaded.options.gradient_clip == 0.5
    assert loaded.hyperparameters.items() >= {"max_grad_norm": 0.5, "num_reasoning_blocks": 4, "batch_size": 4}.items()
    assert not {"gradient_clip", "num_blocks"} & set(loaded.hyperparameters)


def test_checkpoint_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    new_trainer().train(epochs_per_stage=1, checkpoint_dir=tmp_path)
    path = tmp_path / "latest" / "state.json"
    state = json.loads(path.read_text())
    del state["tokenizer"]
    path.write_text(json.dumps({**state, "options": {"batch_size": 4}}))

    after = new_trainer().train(epochs_per_stage=2, checkpoint_dir=tmp_path, resume_from="latest")

    assert [record["epochs"] for record in after["stages_completed"]] == [1, 2]


def test_three_newest_checkpoints_are_kept_and_latest_points_at_one(tmp_path: Path) -> None:
    saved: list[tuple[str, int]] = []
    trainer = new_trainer()
    trainer.add_callback(
        lambda event: saved.append((event["path"], event["step"])) if event["event"] == "checkpoint_saved" else None
    )

    summary = trainer.train(epochs_per_stage=2, checkpoint_dir=tmp_path, checkpoint_interval=4)

    names = [f"step-{step:08d}" for _, step in saved]
    assert [Path(path).name for path, _ in saved] == names
    assert len(set(names)) == len(names) > 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", *names[-3:]]
    assert (tmp_path / "latest").resolve().name == names[-1] == f"step-{summary['total_steps']:08d}"
    assert new_trainer().train(epochs_per_stage=2, resume_from=tmp_path) == summary, "there is nothing left to do"


def test_resume_from_latest_starts_a_new_training_without_a_checkpoint(tmp_path: Path) -> None:
    summary = new_trainer().train(epochs_per_stage=1, checkpoint_dir=tmp_path / "new", resume_from="latest")

    assert len(summary["history"]) == 2
    with pytest.raises(UserInputError, match="give that, too"):
        new_trainer().train(resume_from="latest")


def cross_validated(rates: list[float], **arguments: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """What an objective with several trainings gets, and how many steps each has trained."""
    summaries, steps = [], []
    for rate in rates:
        losses = Losses()
        trainer = new_trainer(learning_rate=rate, report_to="hpo").add_callback(losses)
        summaries.append(trainer.train(epochs_per_stage=1, **arguments))
        steps.append(len(losses.seen))
    return summaries, steps


def test_each_training_of_a_trial_resumes_its_own_checkpoint(tmp_path: Path) -> None:
    # Given a trial that was lost when its first training was done and its second had not begun
    lost, retried = Study(until=99), Study(until=99)
    with bound(lost, checkpoints=tmp_path):
        before, _ = cross_validated([3e-3])

    # When it is tried again
    with bound(retried, checkpoints=tmp_path):
        (first, second), (again, fresh) = cross_validated([3e-3, 1e-3])

    # Then the first has nothing left to do and is reported, and the second begins at its beginning
    assert [first] == before
    assert (again, fresh) == (0, second["total_steps"])
    assert retried.reports[:2] == lost.reports == list(enumerate(entry["loss"] for entry in first["history"]))
    assert second["history"] != first["history"]


class KeepsEach(Study):
    """Keeps the best model of each epoch apart, by the number of its epoch."""

    def save_artifact(self, path: Path, name: object = None) -> None:
        shutil.copy(path, self.saved / f"{len(self.reports) - 1}-{name or path.name}")

    def should_prune(self) -> bool:
        """The process of the trial ends here, before the checkpoint of this epoch."""
        if super().should_prune():
            raise KeyboardInterrupt
        return False


def logits_of(path: Path) -> np.ndarray:
    return np.asarray(keras.saving.load_model(path)(np.arange(8)[None]))


@pytest.mark.parametrize("has_checkpoint", [True, False], ids=["after-its-checkpoint", "before-its-checkpoint"])
def test_a_trial_that_goes_on_keeps_the_best_model_from_before(tmp_path: Path, has_checkpoint: bool) -> None:
    # Given a trial that was lost after its second epoch
    folder, first = tmp_path / "checkpoints", KeepsEach(until=99 if has_checkpoint else 2)
    first.saved = tmp_path
    trainer = new_trainer(report_to="hpo", save_best=True)
    if has_checkpoint:
        trainer.add_callback(
            lambda event: stopped_by_hand(event) if len(trainer._progress.history) == 2 else None,
        )
    trainer._stages = trainer._stages[:1]
    with bound(first, checkpoints=folder), pytest.raises(KeyboardInterrupt):
        trainer.train(epochs_per_stage=3)

    # When another attempt, or another member of a population, goes on from there and gets no better
    second = Study(until=99)
    second.saved = tmp_path
    shutil.copytree(folder, tmp_path / "moved", symlinks=True)
    worse = new_trainer(model_seed=99, report_to="hpo", save_best=True, learning_rate=100.0)
    worse._stages = worse._stages[:1]
    with bound(second, checkpoints=tmp_path / "moved"):
        worse.train(epochs_per_stage=3)

    # Then its best model is the best one of the epochs that it goes on from
    losses = [loss for _, loss in second.reports]
    best = losses.index(min(losses))
    assert (len(losses), best) == (3, 1 if has_checkpoint else 0)
    assert np.array_equal(logits_of(tmp_path / "model.keras"), logits_of(tmp_path / f"{best}-model.keras"))
    assert len(list((tmp_path / "moved").glob("*/*.keras"))) == 1, "others are removed"


class Sent:
    """A channel that lists what it gets: the steps of reports, and names of files, or in brackets those in a packed
    checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[object] = []

    def report(self, value: float, step: int) -> None:
        self.calls.append(step)

    def should_prune(self) -> bool:
        return True

    def save_file(self, saved: SavedFile) -> None:
        if saved.name is not None:
            self.calls.append(saved.name)
        else:
            with tarfile.open(self.folder / saved.file) as packed:
                names = {Path(name).name.partition("-")[0] for name in packed.getnames()}
            self.calls.append(sorted(names & {"best", "latest", "step"}))


def test_best_model_is_packed_with_a_checkpoint_and_not_before(tmp_path: Path) -> None:
    def objective(params: Any) -> float:
        return float(new_trainer(report_to="hpo", save_best=True).train(epochs_per_stage=2)["final_loss"])

    channel: Any = Sent(tmp_path / "saved")
    files = StagedFiles(channel.folder, SavingLimits(checkpoint_s=0.0))
    outcome = run_attempt(objective, {}, channel, checkpoints=tmp_path / "checkpoints", files=files)

    assert outcome.ending is Ending.PRUNED, outcome
    assert channel.calls == [0, "model.keras", ["best", "latest", "step"]]


def test_pruned_trial_whose_checkpoint_cannot_be_written_is_pruned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    trainer = new_trainer(report_to="hpo")

    with bound(Study(until=1)), pytest.raises(TrialPruned):
        trainer.train(epochs_per_stage=2, checkpoint_dir=tmp_path / "file" / "below")

    assert "the checkpoint of a pruned training could not be written: [Errno 20] Not a directory" in caplog.text


def test_a_trial_that_goes_on_without_its_best_model_keeps_the_best_one_of_its_own(tmp_path: Path) -> None:
    with bound(Study(until=99), checkpoints=tmp_path / "checkpoints"):
        new_trainer(report_to="hpo").train(epochs_per_stage=1)
    longer = Study(until=99)
    longer.saved = tmp_path

    with bound(longer, checkpoints=tmp_path / "checkpoints", settings={"epochs": 2}):
        new_trainer(report_to="hpo", save_best=True, learning_rate=100.0).train(epochs_per_stage=1)

    assert longer.reports[-1][1] > longer.reports[-2][1], "it got worse"
    assert (tmp_path / "model.keras").exists()


def test_a_trial_that_trains_longer_goes_on_with_its_last_stage(tmp_path: Path) -> None:
    # Given a trial that has trained two stages, one epoch each
    done, longer = Study(until=99), Study(until=99)
    with bound(done, checkpoints=tmp_path):
        before = new_trainer(report_to="hpo").train(epochs_per_stage=1)

    # When a person wants three epochs of it
    with bound(longer, checkpoints=tmp_path, settings={"epochs": 3}):
        after = new_trainer(model_seed=99, report_to="hpo").train(epochs_per_stage=1)

    # Then the last stage has two more, after what there was
    assert after["history"][:2] == before["history"]
    assert [(entry["stage"], entry["epoch"]) for entry in after["history"]] == [("a", 0), ("b", 0), ("b", 1), ("b", 2)]
    assert [record["epochs"] for record in after["stages_completed"]] == [1, 3]
    steps = [record["steps"] for record in before["stages_completed"]]
    assert after["total_steps"] == before["total_steps"] + 2 * steps[1] == steps[0] + 3 * steps[1]
    assert after["final_loss"] < before["final_loss"]

    # And what is no number of epochs is refused
    with (
        bound(Study(until=99), checkpoints=tmp_path, settings={"epochs": "many"}),
        pytest.raises(InvalidInput, match="epochs: was set for this trial, and must be a whole number above 0"),
    ):
        new_trainer(report_to="hpo").train(epochs_per_stage=1)


def test_a_stage_that_stopped_early_goes_on_when_a_person_wants_it_longer() -> None:
    def over(*, early: bool) -> Progress:
        progress = Progress()
        for loss in (0.5, 0.6):
            progress.finish_epoch("a", loss, loss)
            progress.best.update(loss, 0.0)
        progress.stage_over = early
        progress.finish_stage("a")
        return progress

    for early, wanted, stage in [(True, False, 1), (True, True, 0), (False, False, 0)]:
        progress = over(early=early)
        progress.reopen_last_stage(5, early_stopped_too=wanted)
        assert (progress.stage, progress.epoch) == (stage, 0 if stage else 2)
        assert progress.best.best == (float("inf") if stage else 0.5) and progress.best.stale_epochs == 0
    progress.finish_stage("a")
    progress.reopen_last_stage(2, early_stopped_too=True)
    assert progress.stage == 1, "it has as many already"


def test_trial_saves_no_checkpoint_without_a_retry_or_when_switched_off(tmp_path: Path) -> None:
    with bound(Study(until=99)):
        _, steps = cross_validated([3e-3])
    with bound(Study(until=99), checkpoints=tmp_path / "unused"):
        assert cross_validated([3e-3], save_checkpoints=False)[1] == steps
        cross_validated([3e-3], checkpoint_dir=tmp_path / "mine")

    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_checkpoint_that_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    new_trainer().train(epochs_per_stage=1, checkpoint_dir=tmp_path)

    with pytest.raises(UserInputError, match="there is no checkpoint in"):
        new_trainer().train(resume_from=tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"(?s)a\.batch_size: was 4 when .*a\.seed: was 0 when the checkpoint was"):
        new_trainer(batch_size=2, seed=3).train(resume_from=tmp_path)
    with pytest.raises(UserInputError, match="holds the weights of another model"):
        hn.Trainer.load(tmp_path, keras.Sequential([keras.Input((None,)), keras.layers.Embedding(300, 4)]))
    state = tmp_path / "latest" / "state.json"
    state.write_text(json.dumps({"format": 99}))
    with pytest.raises(UserInputError, match="was written by another version"):
        new_trainer().train(resume_from=tmp_path)
    state.write_text("{")
    with pytest.raises(UserInputError, match="cannot be read"):
        new_trainer().train(resume_from=tmp_path)


def test_the_weights_are_a_file_that_keras_reads(tmp_path: Path) -> None:
    trainer = new_trainer()
    trainer.train(epochs_per_stage=1, checkpoint_dir=tmp_path)
    again = small_model()

    again.load_weights(tmp_path / "latest" / "model.weights.h5")

    ids = np.arange(8)[None]
    assert np.array_equal(again(ids), trainer.model(ids))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_training_keeps_the_finished_model_in_its_folder(tmp_path: Path) -> None:
    # Given a folder with a finished training of more steps
    finished = new_trainer()
    finished.train(epochs_per_stage=2, checkpoint_dir=tmp_path, checkpoint_interval=4)
    before = names_in(tmp_path)

    # When another one is trained into it, as a script that is run again does
    with pytest.warns(
        UserWarning, match=r"first save moves them to .*earlier-1\. To continue .*resume_from=\"latest\""
    ):
        again = new_trainer(learning_rate=1e-3, batch_size=8)
        summary = again.train(epochs_per_stage=1, checkpoint_dir=tmp_path, checkpoint_interval=4)

    # Then the folder has the checkpoints of the new one, and the finished model is complete beside them
    last = f"step-{summary['total_steps']:08d}"
    assert (tmp_path / "latest").resolve().name == last < before[-1]
    assert names_in(tmp_path / "earlier-1") == before
    assert len([name for name in names_in(tmp_path) if name.startswith("step-")]) == 3
    ids = np.arange(8)[None]
    kept = hn.Trainer.load(tmp_path / "earlier-1", small_model())
    assert np.array_equal(kept.model(ids), finished.model(ids))
    assert new_trainer(learning_rate=1e-3, batch_size=8).train(epochs_per_stage=1, resume_from=tmp_path) == summary

    # And a third one leaves both
    with pytest.warns(UserWarning, match="earlier-2"):
        new_trainer().train(epochs_per_stage=1, checkpoint_dir=tmp_path)
    assert names_in(tmp_path / "earlier-1") == before
    assert names_in(tmp_path / "earlier-2")[0] == "latest"


def test_training_that_goes_on_from_an_older_step_keeps_the_later_ones_apart(tmp_path: Path) -> None:
    new_trainer().train(epochs_per_stage=2, checkpoint_dir=tmp_path)
    _, oldest, *later = names_in(tmp_path)

    with pytest.warns(UserWarning, match="earlier-1"):
        new_trainer().train(epochs_per_stage=2, checkpoint_dir=tmp_path, resume_from=tmp_path / oldest)

    assert names_in(tmp_path) == ["earlier-1", "latest", oldest, *later]
    assert names_in(tmp_path / "earlier-1") == ["latest", *later]


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("way", ["latest", "loaded"])
def test_checkpoints_of_a_training_that_is_continued_stay_where_they_are(tmp_path: Path, way: str) -> None:
    first = new_trainer()
    with pytest.raises(KeyboardInterrupt):
        first.add_callback(stopped_by_hand).train(epochs_per_stage=2, checkpoint_dir=tmp_path)

    if way == "latest":
        new_trainer().train(epochs_per_stage=2, checkpoint_dir=tmp_path, resume_from="latest")
    else:
        hn.Trainer.load(tmp_path / "latest", small_model()).train(epochs_per_stage=2, checkpoint_dir=tmp_path)

    assert [name for name in names_in(tmp_path) if not name.startswith("step-")] == ["latest"]


def stopped_by_hand(event: dict[str, Any]) -> None:
    if event["event"] == "checkpoint_saved":
        raise KeyboardInterrupt


def test_save_replaces_a_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    trainer = new_trainer()
    trainer.train(epochs_per_stage=1, checkpoint_dir=tmp_path / "trained")
    before = names_in(tmp_path / "trained")

    with pytest.raises(UserInputError, match=r"trained is no checkpoint: it holds latest, step-.*Save to another"):
        trainer.save(tmp_path / "trained")

    assert names_in(tmp_path / "trained") == before


def test_members_of_a_population_train_no_epoch_twice() -> None:
    # Given a population whose members are compared after the second and the fourth epoch
    trained: dict[int, list[int]] = {}

    def objective(params: dict[str, Any]) -> float:
        epochs = trained.setdefault(len(trained), [])

        def note(event: dict[str, Any]) -> None:
            if event["event"] == "epoch_end":
                epochs.append(event["epoch"])

        trainer = hn.Trainer(small_model(), batch_size=8, max_seq_length=32, report_to="hpo", **params)
        trainer.add_curriculum_stage("a", "birds").add_callback(note)
        return float(trainer.train(epochs_per_stage=4)["final_loss"])

    pbt = {"name": "pbt", "population": 2, "perturbation_interval": 2}
    hpo = hn.HPOTrialManager("trained-on", n_trials=4, sampler=pbt, seed=1)
    hpo.optimize(objective, {"learning_rate": ("log_uniform", 1e-3, 1e-2)})

    # Then each goes on where one of the first two has stopped
    assert trained == {0: [0, 1, 2], 1: [0, 1, 2], 2: [3], 3: [3]}
    assert [trial.attrs.get("highnoon:cause") for trial in hpo.trials] == ["segment_end", "segment_end", None, None]
    assert {trial.attrs["highnoon:extends"] for trial in hpo.trials[2:]} <= {0, 1}
