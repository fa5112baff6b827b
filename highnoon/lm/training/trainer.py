"""Trainer: a model, a curriculum of text, and `train`, with the guide's signatures.

Owns what was asked for and its checks. `plan` finds and packs the text, `loop` trains.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from typing_extensions import Self

from highnoon.callbacks.memory_guard import MemoryGuardCallback
from highnoon.config import checked
from highnoon.lm.data.sources import DEFAULT_DATASET
from highnoon.lm.models.size import refuse_training
from highnoon.lm.tokenizer import ByteStreamTokenizer, Tokenizer
from highnoon.lm.training.best_model import BestModel
from highnoon.lm.training.callbacks import LogCallback, ProgressBar, StudyCallback, callback_for
from highnoon.lm.training.checkpoint_folder import writing_into
from highnoon.lm.training.checkpoint_paths import checkpoint_paths, find_checkpoint, fits_the_rehearsal
from highnoon.lm.training.checkpointing import (
    Progress,
    described,
    read_state,
    refuse_another_plan,
    restore_variables,
    write_whole,
)
from highnoon.lm.training.loop import TrainingLoop
from highnoon.lm.training.options import (
    Intervals,
    Stage,
    epochs_of_a_stage,
    epochs_of_the_trial,
    read_options,
    read_stage,
    replaced_options,
)
from highnoon.lm.training.plan import Schedule, StagePlan, plan_stages, refuse_more_ids
from highnoon.memory import EnterpriseMemoryManager
from highnoon.rehearsal import apart_in_rehearsal
from highnoon.shared.domain.errors import InvalidInput, nearest

if TYPE_CHECKING:
    from highnoon.lm.training.train_state import TrainState


class Trainer:
    """Trains a language model on text. Raises InvalidInput with every mistake in its arguments at once.

    `hyperparameters` takes every option of `TrainingOptions`, and whole dicts of best parameters: what belongs to the
    model is kept and compared with it. Sequences are never longer than the model's `max_seq_length`.
    `report_to="hpo"` reports each epoch to the trial that runs here and ends it when its study's pruner decides so;
    with `save_best` the model of its best epoch is the trial's artifact `model.keras`.
    """

    def __init__(
        self,
        model: Any,
        learning_rate: float = 1e-4,
        batch_size: int = 8,
        max_seq_length: int = 2048,
        gradient_accumulation_steps: int = 1,
        *,
        tokenizer: Tokenizer | None = None,
        report_to: str | None = None,
        save_best: bool = False,
        **hyperparameters: Any,
    ) -> None:
        self.model = model
        self.hyperparameters: dict[str, Any] = {
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "max_seq_length": max_seq_length,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            **hyperparameters,
        }
        if report_to not in (None, "hpo"):
            hint = nearest(str(report_to), ("hpo",))
            raise InvalidInput.of("Trainer()", "report_to", "must be 'hpo' or None", value=report_to, hint=hint)
        if save_best and report_to is None:
            message, hint = "keeps the model with a trial, and report_to names none", 'Write report_to="hpo".'
            raise InvalidInput.of("Trainer()", "save_best", message, value=save_best, hint=hint)
        self.options = read_options(self.hyperparameters, model)
        self.tokenizer = tokenizer or ByteStreamTokenizer()
        self._report_to = report_to
        self._save_best = save_best
        self._stages: list[Stage] = []
        self._callbacks: list[Any] = []
        self._train_state: TrainState | None = None
        self._progress = Progress()
        self._loaded: dict[str, Any] | None = None
        """The state of the checkpoint that the next `train` continues."""
        self._trained: Mapping[str, Any] | None = None
        """The state, as checkpoints hold it, of the training that `_progress` belongs to."""
        self._continues: Path | None = None
        """The checkpoint that the current training goes on from."""

    def add_curriculum_stage(
        self,
        name: str,
        datasets: str | Sequence[str | tuple[str, float]],
        epochs: int | None = None,
        weight: float = 1.0,
        **overrides: Any,
    ) -> Self:
        """Adds a stage, trained after those before it. Raises InvalidInput with every mistake at once.

        Datasets are names, or pairs of name and share. `weight` scales the stage's loss and how many sequences an epoch
        draws. Overrides: learning_rate, batch_size, max_seq_length, gradient_accumulation_steps.
        """
        taken = [stage.name for stage in self._stages]
        self._stages.append(read_stage(name, datasets, epochs, weight, overrides, taken))
        return self

    def add_callback(self, callback: Callable[[dict[str, Any]], object] | Any) -> Self:
        """A function that gets a dict with the key `event`, or a Keras callback. Raises InvalidInput for others.

        Events: `epoch_end`, `stage_complete`, `checkpoint_saved`. What a callback raises ends the training. Keras
        callbacks that set the learning rate are refused: it is the schedule's.
        """
        self._callbacks.append(callback_for(callback))
        return self

    def train(
        self,
        epochs_per_stage: int | None = 10,
        save_checkpoints: bool = True,
        checkpoint_dir: str | Path | None = None,
        checkpoint_interval: int = 1000,
        log_interval: int = 100,
        eval_interval: int = 500,
        resume_from: str | Path | None = None,
    ) -> dict[str, Any]:
        """Trains all stages and returns the summary; `final_loss` in it is the validation loss of the last epoch.

        A stage's own `epochs` takes precedence, then `epochs` of the trainer, as in `Trainer(model, **best_params)`,
        then `epochs_per_stage`. Checkpoints are written at the end of every epoch and every `checkpoint_interval`
        steps, and only with a `checkpoint_dir`. `resume_from` is a checkpoint, a folder of them, or "latest": the
        newest in `checkpoint_dir`, or none when there is none yet.

        The three newest checkpoints of a training stay. Others in `checkpoint_dir`, of another training or of later
        steps than the resumed one, are never removed: a warning is issued, and the first save moves them to a folder
        `earlier-1` in it (`earlier-2`, ...). Inside a trial nothing is moved: the three newest in the folder stay,
        whichever trial wrote them.

        With `report_to="hpo"` in a worker's trial and no `checkpoint_dir`, checkpoints go to the trial's own folder:
        when the worker crashes and the trial is retried, the training continues from there. A trial that was made to
        train longer (`coordinator extend-trial`) has its last stage go on, to the `epochs` that were set for it.

        A rehearsal begins at the first step, whatever `resume_from` names, and writes its checkpoints to a folder
        `rehearsal` in `checkpoint_dir`.

        Raises InvalidInput and UserInputError for what cannot be trained, TrainingDiverged when a loss is not finite,
        and whatever a callback raises, TrialPruned included. What cannot fit into memory ends before its first step:
        TrialStopped inside a trial, DoesNotFit elsewhere.
        """
        intervals, problems = checked(
            Intervals,
            {
                "epochs_per_stage": epochs_per_stage,
                "checkpoint_interval": checkpoint_interval,
                "log_interval": log_interval,
                "eval_interval": eval_interval,
            },
        )
        if intervals is None:
            raise InvalidInput("Trainer.train()", problems)
        in_trial = self._report_to == "hpo"
        paths = checkpoint_paths(checkpoint_dir, resume_from, save=save_checkpoints, in_trial=in_trial)
        wanted = epochs_of_the_trial() if in_trial else None
        plans = self._planned(epochs_per_stage)
        if wanted is not None:
            plans[-1] = replace(plans[-1], epochs=wanted)
        for plan in plans:
            refuse_training(self.model, plan.options.batch_size, plan.held_out.max_length)
        state = self._state(plans)
        self._progress = self._continued(paths.resumed, state)
        self._loaded, self._trained = None, state
        if self._progress.stage == len(plans):
            self._progress.reopen_last_stage(plans[-1].epochs, early_stopped_too=wanted is not None)
        schedule = Schedule.of(plans, self.options.warmup_steps)
        memory = EnterpriseMemoryManager(prefetch_buffer_size=self.options.prefetch_buffer_size)
        with memory, ExitStack() as at_the_end:
            callbacks: list[Any] = [LogCallback(intervals.log_interval), *self._bar(schedule.planned_steps, at_the_end)]
            callbacks += [MemoryGuardCallback(memory), *self._callbacks]
            if in_trial:
                callbacks.append(StudyCallback(BestModel(paths.own) if self._save_best else None))
            loop = TrainingLoop(
                train_state=self._built(),
                plans=plans,
                schedule=schedule,
                callbacks=callbacks,
                progress=self._progress,
                intervals=intervals,
                prefetch=lambda: memory.prefetch_buffer_size,
                checkpoints=writing_into(paths.folder, self._continues, self._progress.total_steps),
                state=state,
            )
            return loop.run()

    def save(self, path: str | Path) -> None:
        """Writes weights, optimizer, curriculum and progress as one checkpoint, in place of one that is there.

        In a rehearsal into a folder `rehearsal` in it. Raises UserInputError for a folder with other files, OSError.
        """
        state = {**self._state(None), "progress": self._progress.to_json(self._built().sums())}
        if (trained := self._trained) is not None:
            is_over = self._progress.stage == len(trained["plan"] or ())
            state |= {"tokenizer": trained.get("tokenizer"), "plan": None if is_over else trained["plan"]}
        final = apart_in_rehearsal(Path(path).expanduser().resolve())
        write_whole(final, self.model, self._built().optimizer, state)

    @classmethod
    def load(cls, path: str | Path, model: Any, **options: Any) -> Self:
        """A trainer that continues what `save` or a checkpoint has stored; `options` replace what was saved.

        The tokenizer is not saved: give it again. Raises UserInputError when there is no checkpoint, or when it belongs
        to another model. A rehearsal takes options and curriculum from a real run's checkpoint, and not its weights.
        """
        checkpoint = find_checkpoint(path)
        state = read_state(checkpoint)
        trainer = cls(model, **replaced_options(state["hyperparameters"], options))
        trainer._stages = [Stage.from_json(stage) for stage in state["stages"]]
        if fits_the_rehearsal(checkpoint):
            trainer._restore(checkpoint, state)
            trainer._loaded = trainer._trained = state
        return trainer

    def _planned(self, epochs_per_stage: int | None) -> list[StagePlan]:
        refuse_more_ids(self.tokenizer, self.model)
        if not (stages := self._stages):
            stages = [Stage(name=DEFAULT_DATASET, datasets=(DEFAULT_DATASET,))]
            message = f"no curriculum stage was added: training on the built-in text {DEFAULT_DATASET!r}"
            warnings.warn(message, stacklevel=3)
        epochs = epochs_of_a_stage(self.options, epochs_per_stage, stages)
        longest = getattr(self.model, "max_seq_length", None)
        return plan_stages(stages, self.options, epochs, self.tokenizer, None if longest is None else int(longest))

    def _bar(self, planned_steps: int, at_the_end: ExitStack) -> list[Any]:
        """On a terminal a progress bar, which gives the terminal back at the end; else nothing."""
        if not (console := Console(stderr=True)).is_terminal:
            return []
        bar = ProgressBar(planned_steps, self._progress.total_steps, console)
        at_the_end.callback(bar.close)
        return [bar]

    def _built(self) -> TrainState:
        """Builds the model if needed, and its optimizer."""
        if self._train_state is None:
            from highnoon.lm.training.train_state import TrainState

            self._train_state = TrainState(self.model, self.options)
        return self._train_state

    def _state(self, plans: Sequence[StagePlan] | None) -> dict[str, Any]:
        given = self.hyperparameters.items()
        return {
            # NumPy's scalars as Python's, so that JSON can hold them.
            "hyperparameters": {key: value.item() if hasattr(value, "item") else value for key, value in given},
            "stages": [stage.to_json() for stage in self._stages],
            "tokenizer": described(self.tokenizer),
            "plan": None if plans is None else [plan.identity() for plan in plans],
        }

    def _continued(self, checkpoint: Path | None, state: Mapping[str, Any]) -> Progress:
        """Where this training begins: at a checkpoint, where a loaded trainer has stopped, or at its first step."""
        loaded = self._loaded
        if checkpoint is not None:
            found = read_state(checkpoint)
            refuse_another_plan(str(checkpoint), found, state)
            self._restore(checkpoint, found)
        elif loaded is not None:
            refuse_another_plan("the loaded trainer", loaded, state)
        else:
            self._built().begin()
            self._continues = None
            return Progress()
        return self._progress

    def _restore(self, checkpoint: Path, state: Mapping[str, Any]) -> None:
        """Sets everything as the checkpoint has it. Raises UserInputError when it belongs to another model."""
        self._progress = Progress.from_json(state["progress"])
        self._continues = checkpoint
        restore_variables(checkpoint, self.model, self._built().optimizer)
        self._built().begin(self._progress.loss_sum, self._progress.label_count)
