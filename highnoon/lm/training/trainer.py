"""Trainer: a model, a curriculum of text, and `train`. The guide's signatures are its own.

Owns what was asked for and its checks. `plan` finds and packs the text, `run` trains.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from typing_extensions import Self

from highnoon.lm.data.registry import DEFAULT_DATASET
from highnoon.lm.forecast import refuse_training
from highnoon.lm.tokenizer import ByteStreamTokenizer, Tokenizer
from highnoon.lm.training.checkpoints import LATEST, find_checkpoint, read_state
from highnoon.lm.training.curriculum import Stage, read_stage
from highnoon.lm.training.display import Bar, LogLines
from highnoon.lm.training.learner import Learner
from highnoon.lm.training.listeners import Listener, MemoryListener, StudyListener, listener_for
from highnoon.lm.training.model_facts import config_of, longest_sequence, vocabulary_of
from highnoon.lm.training.options import read_options
from highnoon.lm.training.plan import StagePlan, plan_stages
from highnoon.lm.training.progress import Progress
from highnoon.lm.training.resuming import checkpoint_to_resume, folder_of_the_trial, refuse_another_plan
from highnoon.lm.training.run import Saving, TrainingRun
from highnoon.lm.training.schedule import Schedule, default_warmup
from highnoon.memory import EnterpriseMemoryManager
from highnoon.shared.domain.errors import InvalidInput, Problem, nearest

_REPORT_TO = ("hpo",)


class Trainer:
    """Trains a language model on text. Raises InvalidInput with every mistake in its arguments at once.

    `hyperparameters` takes every option of `TrainingOptions`, and whole dicts of best parameters: what belongs to the
    model is kept and compared with it. Sequences are never longer than the model's `max_seq_length`.
    `report_to="hpo"` reports each epoch to the trial that runs here and ends it when its study's pruner says so.
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
        _check_report_to(report_to)
        self.options = read_options(self.hyperparameters, config_of(model))
        self.tokenizer = tokenizer or ByteStreamTokenizer()
        self._report_to = report_to
        self._stages: list[Stage] = []
        self._callbacks: list[Listener] = []
        self._learner: Learner | None = None
        self._progress = Progress()
        self._loaded: dict[str, Any] | None = None
        """The state of a checkpoint that the next `train` goes on from."""

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

        Events: `epoch_end`, `stage_complete`, `checkpoint_saved`. What a callback raises ends the training.
        """
        self._callbacks.append(listener_for(callback))
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

        A stage's own `epochs` goes before `epochs_per_stage`. Checkpoints are written at the end of every epoch and
        every `checkpoint_interval` steps, and only with a `checkpoint_dir`. `resume_from` is a checkpoint, a folder of
        them, or "latest": the newest in `checkpoint_dir`, or none when there is none yet.

        With `report_to="hpo"` in a worker's trial and no `checkpoint_dir`, checkpoints go to the trial's own folder:
        when the worker crashes and the trial is tried again on the same machine, the training goes on from there.

        Raises InvalidInput and UserInputError for what cannot be trained, TrainingDiverged when a loss is no number,
        and whatever a callback raises, TrialPruned included. What cannot fit into memory ends before its first step:
        TrialStopped inside a trial, DoesNotFit elsewhere.
        """
        _check_intervals(
            epochs_per_stage=epochs_per_stage,
            checkpoint_interval=checkpoint_interval,
            log_interval=log_interval,
            eval_interval=eval_interval,
        )
        if checkpoint_dir is None and save_checkpoints and self._report_to == "hpo":
            checkpoint_dir = folder_of_the_trial()
            resume_from = resume_from or (LATEST if checkpoint_dir else None)
        folder = Path(checkpoint_dir).expanduser() if checkpoint_dir is not None and save_checkpoints else None
        checkpoint = checkpoint_to_resume(resume_from, checkpoint_dir)
        plans = self._planned(epochs_per_stage)
        self._refuse_what_cannot_fit(plans)
        learner = self._learning()
        state = self._state(plans)
        self._progress = self._continued(checkpoint, state)
        schedule = self._schedule(plans)
        bar = _bar(schedule.planned_steps, self._progress.total_steps)
        memory = EnterpriseMemoryManager(prefetch_buffer_size=self.options.prefetch_buffer_size)
        run = TrainingRun(
            learner,
            plans,
            schedule,
            [LogLines(log_interval), *bar, MemoryListener(memory), *self._callbacks, *self._study()],
            self._progress,
            prefetch=lambda: memory.prefetch_buffer_size,
            check_interval=log_interval,
            eval_interval=eval_interval,
            saving=Saving(folder=folder, interval=checkpoint_interval, state=state) if folder else None,
        )
        try:
            with memory:
                return run.run()
        finally:
            for shown in bar:
                shown.close()

    def save(self, path: str | Path) -> None:
        """Writes weights, optimizer, curriculum and progress as one checkpoint. Raises OSError."""
        self._learning().save(Path(path).expanduser(), self._progress, self._state(None))

    @classmethod
    def load(cls, path: str | Path, model: Any, **options: Any) -> Self:
        """A trainer that goes on where `save`, or a checkpoint, stands; `options` goes before what was saved.

        Raises UserInputError when there is no checkpoint, or when it belongs to another model.
        """
        checkpoint = find_checkpoint(path)
        state = read_state(checkpoint)
        trainer = cls(model, **{**state["hyperparameters"], **options})
        trainer._stages = [Stage.from_json(stage) for stage in state["stages"]]
        trainer._progress = Progress.from_json(state["progress"])
        trainer._learning().restore(checkpoint, trainer._progress)
        trainer._loaded = state
        return trainer

    def _planned(self, epochs_per_stage: int | None) -> list[StagePlan]:
        vocabulary = vocabulary_of(self.model)
        if self.tokenizer.vocab_size > vocabulary:
            message = f"is {vocabulary} in the model, and the tokenizer has {self.tokenizer.vocab_size} ids"
            hint = "Build the model with at least as many, or use a smaller tokenizer."
            raise InvalidInput("Trainer.train()", [Problem(key="vocab_size", message=message, hint=hint)])
        epochs = self.options.epochs or epochs_per_stage or 10
        return plan_stages(self._asked(), self.options, epochs, self.tokenizer, longest_sequence(self.model))

    def _refuse_what_cannot_fit(self, plans: Sequence[StagePlan]) -> None:
        for plan in plans:
            refuse_training(self.model, plan.options.batch_size, plan.held_out.max_length)

    def _asked(self) -> list[Stage]:
        if self._stages:
            return self._stages
        warnings.warn(f"no curriculum stage was added: training on the built-in text {DEFAULT_DATASET!r}", stacklevel=4)
        return [Stage(name=DEFAULT_DATASET, datasets=(DEFAULT_DATASET,))]

    def _learning(self) -> Learner:
        if self._learner is None:
            self._learner = Learner.of(self.model, self.options)
        return self._learner

    def _state(self, plans: Sequence[StagePlan] | None) -> dict[str, Any]:
        return {
            "hyperparameters": _plain(self.hyperparameters),
            "options": asdict(self.options),
            "stages": [stage.to_json() for stage in self._stages],
            "plan": None if plans is None else [plan.identity() for plan in plans],
        }

    def _continued(self, checkpoint: Path | None, state: Mapping[str, Any]) -> Progress:
        """Where this training begins: at a checkpoint, where a loaded trainer stands, or at its first step."""
        loaded, self._loaded = self._loaded, None
        if checkpoint is not None:
            found = read_state(checkpoint)
            refuse_another_plan(str(checkpoint), found, state)
            progress = Progress.from_json(found["progress"])
            self._learning().restore(checkpoint, progress)
            return progress
        if loaded is not None:
            refuse_another_plan("the loaded trainer", loaded, state)
            return self._progress
        self._learning().train_step.begin()
        return Progress()

    def _schedule(self, plans: Sequence[StagePlan]) -> Schedule:
        planned = sum(plan.epochs * plan.steps_per_epoch for plan in plans)
        warmup = self.options.warmup_steps
        if warmup is not None and warmup > planned:
            warnings.warn(
                f"warmup_steps is {warmup}, and the training has only {planned} steps: "
                f"the learning rate never reaches its peak",
                stacklevel=3,
            )
        return Schedule(warmup_steps=default_warmup(planned) if warmup is None else warmup, planned_steps=planned)

    def _study(self) -> list[Listener]:
        return [StudyListener(self._progress.history)] if self._report_to == "hpo" else []


def _check_report_to(report_to: object) -> None:
    if report_to is not None and report_to not in _REPORT_TO:
        hint = nearest(str(report_to), _REPORT_TO)
        problem = Problem(key="report_to", message="must be 'hpo' or None", value=report_to, hint=hint)
        raise InvalidInput("Trainer()", [problem])


def _check_intervals(**intervals: int | None) -> None:
    problems = [
        Problem(key=key, message="must be a whole number of at least 1", value=value)
        for key, value in intervals.items()
        if not (value is None and key == "epochs_per_stage")
        and (not isinstance(value, int) or isinstance(value, bool) or value < 1)
    ]
    if problems:
        raise InvalidInput("Trainer.train()", problems)


def _bar(planned_steps: int, steps_done: int) -> list[Bar]:
    from rich.console import Console

    console = Console(stderr=True)
    return [Bar(planned_steps, steps_done, console)] if console.is_terminal else []


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """NumPy's scalars as Python's, so that JSON can hold them."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in values.items()}
