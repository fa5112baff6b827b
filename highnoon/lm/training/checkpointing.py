"""Everything that a training needs to continue exactly: how far it has come, and one folder that appears whole.

step-00001200/   model.weights.h5   Keras reads this one too
                 optimizer.npz      all of the optimizer's variables, by position
                 random.npz         states of the model's random generators, by position
                 state.json         hyperparameters, curriculum, tokenizer, plan, progress
latest           a link to the newest, which is resumed where no other is named
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from highnoon.lm.tokenizer import Tokenizer
from highnoon.lm.training.whole_folder import appearing, names_in
from highnoon.rehearsal import REHEARSAL_FOLDER
from highnoon.shared.domain.errors import InvalidInput, Problem, UserInputError

LATEST = "latest"
_FORMAT = 1
_FILES = ("model.weights.h5", "optimizer.npz", "random.npz", "state.json")


@dataclass(slots=True, kw_only=True)
class BestLoss:
    """The lowest validation loss of a stage, and for how many epochs it has not improved by `min_delta`."""

    best: float = float("inf")
    beaten: float = float("inf")
    """The loss to improve on: a gain smaller than `min_delta` lowers `best`, and `stale_epochs` still grows."""
    stale_epochs: int = 0

    def update(self, loss: float, min_delta: float) -> None:
        """After each epoch."""
        self.best = min(self.best, loss)
        if loss < self.beaten - min_delta:
            self.beaten, self.stale_epochs = loss, 0
        else:
            self.stale_epochs += 1

    def exhausted(self, patience: int | None) -> bool:
        """True when the stage should end; never without a patience."""
        return patience is not None and self.stale_epochs >= patience


@dataclass(slots=True, kw_only=True)
class Progress:
    """`stage`, `epoch` and `epoch_step` are the next to do. A new stage resets what belongs to a stage."""

    stage: int = 0
    epoch: int = 0
    epoch_step: int = 0
    total_steps: int = 0
    loss_sum: float = 0.0
    label_count: float = 0.0
    stage_steps: int = 0
    stage_tokens: int = 0
    stage_s: float = 0.0
    """Seconds that these tokens took; validation and the first step of a shape, which compiles, are not in them."""
    stage_over: bool = False
    """True once early stopping has ended the current stage."""
    best: BestLoss = field(default_factory=BestLoss)
    history: list[dict[str, Any]] = field(default_factory=list)
    stages_completed: list[dict[str, Any]] = field(default_factory=list)

    def finish_epoch(self, stage: str, train_loss: float, val_loss: float) -> None:
        """Records the epoch and moves to the next."""
        self.history.append(
            {"stage": stage, "epoch": self.epoch, "loss": val_loss, "val_loss": val_loss, "train_loss": train_loss}
        )
        self.epoch += 1
        self.epoch_step = 0
        self.loss_sum = self.label_count = 0.0

    def finish_stage(self, stage: str) -> dict[str, Any]:
        """Records the stage, moves to the next, and returns the record."""
        last = self.history[-1]
        record = {
            "name": stage,
            "epochs": self.epoch,
            "final_loss": last["val_loss"],
            "val_loss": last["val_loss"],
            "train_loss": last["train_loss"],
            "best_loss": self.best.best,
            "early_stopped": self.stage_over,
            "tokens_per_second": self.stage_tokens / self.stage_s if self.stage_s else None,
            "steps": self.stage_steps,
        }
        self.stages_completed.append(record)
        self.stage += 1
        self.epoch = self.epoch_step = self.stage_steps = self.stage_tokens = 0
        self.stage_s = 0.0
        self.stage_over = False
        self.best = BestLoss()
        return record

    def reopen_last_stage(self, epochs: int, *, early_stopped_too: bool) -> None:
        """All stages are over, and the last one is to have so many epochs: it goes on where it ended."""
        last = self.stages_completed[-1]
        if last["epochs"] >= epochs or (last["early_stopped"] and not early_stopped_too):
            return
        self.stages_completed.pop()
        self.stage -= 1
        self.epoch, self.stage_steps = last["epochs"], last["steps"]
        self.best = BestLoss(best=last["best_loss"], beaten=last["best_loss"])

    def summary(self) -> dict[str, Any]:
        """What `train` returns: plain values, the guide's keys among them."""
        return {
            "stages_completed": [dict(record) for record in self.stages_completed],
            "total_steps": self.total_steps,
            "history": [dict(entry) for entry in self.history],
            "final_loss": self.history[-1]["val_loss"] if self.history else None,
        }

    def to_json(self, sums: tuple[float, float]) -> dict[str, Any]:
        """Plain JSON values only; `sums` are the sums of the current epoch's losses and labels."""
        self.loss_sum, self.label_count = sums
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Progress:
        """The inverse of `to_json`."""
        return cls(**{**data, "best": BestLoss(**data["best"])})


def write_whole(final: Path, model: Any, optimizer: Any, state: dict[str, Any]) -> None:
    """Writes the four files into a folder of that name, replacing an earlier checkpoint. Raises OSError.

    UserInputError for a folder that holds anything else, a rehearsal's checkpoint excepted: it would be lost.
    """
    if others := sorted({*names_in(final)} - {*_FILES, REHEARSAL_FOLDER}):
        raise UserInputError(f"{final} is no checkpoint: it holds {', '.join(others[:3])}. Save to another folder.")
    with appearing(final) as partial:
        model.save_weights(partial / "model.weights.h5")
        _save_values(partial / "optimizer.npz", optimizer.variables)
        _save_values(partial / "random.npz", _random_states(model))
        (partial / "state.json").write_text(json.dumps({"format": _FORMAT, **state}), encoding="utf-8")


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state alone. Raises UserInputError for a file that is damaged or of another version."""
    path = checkpoint / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserInputError(f"{path} cannot be read: {error}") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise UserInputError(f"{path} was written by another version")
    return state


def restore_variables(checkpoint: Path, model: Any, optimizer: Any) -> None:
    """Sets weights, optimizer and random states. Raises UserInputError when they belong to another model."""
    try:
        model.load_weights(checkpoint / "model.weights.h5")
    except ValueError as error:
        raise UserInputError(f"{checkpoint} holds the weights of another model: {error}") from None
    _load_values(checkpoint / "optimizer.npz", optimizer.variables)
    _load_values(checkpoint / "random.npz", _random_states(model))


def refuse_another_plan(source: str, found: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raises InvalidInput when the plans differ: positions count steps of a plan, so they would mean other text.

    And when the tokenizers do, whose ids the model has learnt. Both are states as checkpoints hold them; `source` names
    where `found` comes from.
    """
    before, now = found["plan"], mine["plan"]
    tokenizer = found.get("tokenizer")  # not in checkpoints of earlier versions
    problems = []
    if tokenizer not in (None, mine["tokenizer"]):
        message = f"was a {_in_words(tokenizer)} when the checkpoint was written"
        hint = "Give the trainer the same one: tokenizer=..."
        problems.append(Problem(key="tokenizer", message=message, value=_in_words(mine["tokenizer"]), hint=hint))
    problems += [
        Problem(
            key=f"{stage['stage']}.{key}", message=f"was {then[key]!r} when the checkpoint was written", value=value
        )
        for then, stage in zip(before or (), now, strict=False)
        for key, value in stage.items()
        if then[key] != value
    ]
    if before is not None and len(before) != len(now):
        problems.append(Problem(key="stages", message=f"were {len(before)}, and are {len(now)} now"))
    if problems:
        raise InvalidInput(f"resuming from {source}", problems)


def described(tokenizer: Tokenizer) -> dict[str, Any]:
    """Which tokenizer it is, as a checkpoint holds it; the tokenizer itself is not saved."""
    return {"kind": type(tokenizer).__name__, "vocab_size": int(tokenizer.vocab_size)}


def _in_words(tokenizer: Mapping[str, Any]) -> str:
    return f"{tokenizer['kind']} with {tokenizer['vocab_size']} ids"


def _random_states(model: Any) -> list[Any]:
    """The variables that Keras does not count as a model's weights: the states of dropout's generators."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _save_values(path: Path, variables: Sequence[Any]) -> None:
    np.savez(path, *[variable.numpy() for variable in variables])


def _load_values(path: Path, variables: Sequence[Any]) -> None:
    with np.load(path) as arrays:
        values = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
    shapes = [tuple(value.shape) for value in values]
    if shapes != [tuple(variable.shape) for variable in variables]:
        raise UserInputError(f"{path} belongs to another model or optimizer: the shapes of its values differ")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
