"""Turns each stage into a plan that can run: text found, held out, packed, and everything checked.

Held-out documents are held out of every stage, also of stages that do not name their dataset. Owns the learning-rate
schedule of the whole plan.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from highnoon.lm.data.sources import Split, load_documents, split_documents, without_leaks
from highnoon.lm.data.windows import TextDataset
from highnoon.lm.tokenizer import Tokenizer
from highnoon.lm.training.options import Stage, TrainingOptions
from highnoon.rehearsal import REHEARSAL_SEQUENCE, REHEARSAL_TOKENS_PER_EPOCH, limited_in_rehearsal
from highnoon.shared.domain.errors import InvalidInput, Problem, UserInputError

LAST_SHARE = 0.1
_LONGEST_DEFAULT_WARMUP = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """A stage with its text and its sizes; `draws` windows are drawn for an epoch, `held_out_windows` validate it."""

    name: str
    options: TrainingOptions
    epochs: int
    weight: float
    shares: tuple[float, ...] | None
    training: tuple[TextDataset, ...]
    draws: int
    held_out: TextDataset
    held_out_windows: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps only; windows that fill no step wait for another epoch's order."""
        return self.draws // self.options.windows_per_step

    @property
    def tokens_per_step(self) -> int:
        """Padding included."""
        return self.options.windows_per_step * self.options.max_seq_length

    @property
    def counts(self) -> list[int]:
        """How many windows each dataset has."""
        return [len(dataset) for dataset in self.training]

    def identity(self) -> dict[str, Any]:
        """What a checkpoint's position depends on; it can only be continued under the same."""
        return {
            "stage": self.name,
            "windows": self.counts,
            "draws": self.draws,
            "batch_size": self.options.batch_size,
            "gradient_accumulation_steps": self.options.gradient_accumulation_steps,
            "max_seq_length": self.held_out.max_length,
            "seed": self.options.seed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate of a step as a share of its stage's peak: linear warm-up, then half a cosine down to a tenth.

    Counts over all stages together; a warm-up longer than the plan never reaches the peak.
    """

    warmup_steps: int
    planned_steps: int

    @classmethod
    def of(cls, plans: Sequence[StagePlan], warmup_steps: int | None) -> Schedule:
        """By default a tenth of the plan is warm-up, at most 1,000 steps. Warns of a warm-up longer than the plan."""
        planned = sum(plan.epochs * plan.steps_per_epoch for plan in plans)
        if warmup_steps is None:
            warmup_steps = min(planned // 10, _LONGEST_DEFAULT_WARMUP)
        elif warmup_steps > planned:
            warnings.warn(
                f"warmup_steps is {warmup_steps}, and the training has only {planned} steps: "
                f"the learning rate never reaches its peak",
                stacklevel=3,
            )
        return cls(warmup_steps=warmup_steps, planned_steps=planned)

    def share(self, step: int) -> float:
        """Between 0 and 1 for the step with this number, counted from 0; steps beyond the plan get the last share."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        rest = max(self.planned_steps - self.warmup_steps, 1)
        done = min((step - self.warmup_steps) / rest, 1.0)
        return LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2


def plan_stages(
    stages: Sequence[Stage], options: TrainingOptions, epochs: int, tokenizer: Tokenizer, longest: int | None
) -> list[StagePlan]:
    """Reads and packs all text. Raises UserInputError for text that is missing, too short or of a single document.

    `epochs` is for stages without a number of their own, `longest` the longest sequence that the model takes.
    """
    names = dict.fromkeys(name for stage in stages for name in stage.datasets)
    splits = {name: _split(name, options) for name in names}
    held_out = [document for split in splits.values() for document in split.held_out]
    training = {name: without_leaks(split.training, held_out) for name, split in splits.items()}
    return [_plan(stage, _options_of(stage, options, longest), epochs, tokenizer, splits, training) for stage in stages]


def refuse_more_ids(tokenizer: Tokenizer, model: Any) -> None:
    """Raises InvalidInput for a tokenizer with more ids than the model."""
    vocabulary = _vocabulary_of(model)
    if tokenizer.vocab_size > vocabulary:
        message = f"is {vocabulary} in the model, and the tokenizer has {tokenizer.vocab_size} ids"
        hint = "Build the model with at least as many, or use a smaller tokenizer."
        raise InvalidInput.of("Trainer.train()", "vocab_size", message, hint=hint)


def _vocabulary_of(model: Any) -> int:
    """How many ids the model has; taken from the logits of one token where the model has no `vocab_size`."""
    size = getattr(model, "vocab_size", None)
    if size is None:
        import tensorflow as tf

        size = model(tf.zeros((1, 1), tf.int32), training=False).shape[-1]
    return int(size)


def _plan(
    stage: Stage,
    options: TrainingOptions,
    epochs: int,
    tokenizer: Tokenizer,
    splits: Mapping[str, Split],
    training: Mapping[str, Sequence[str]],
) -> StagePlan:
    length = options.max_seq_length
    packed = tuple(TextDataset(training[name], tokenizer, length) for name in stage.datasets)
    _refuse_short(stage, packed)
    held_out = TextDataset([text for name in stage.datasets for text in splits[name].held_out], tokenizer, length)
    plan = StagePlan(
        name=stage.name,
        options=options,
        epochs=stage.epochs or epochs,
        weight=stage.weight,
        shares=stage.shares,
        training=packed,
        draws=_draws(sum(map(len, packed)) * stage.weight, options),
        held_out=held_out,
        held_out_windows=limited_in_rehearsal(len(held_out), max(REHEARSAL_TOKENS_PER_EPOCH // length, 1)),
    )
    _refuse_large_batch(plan)
    _refuse_nothing_held_out(plan)
    return plan


def _draws(windows: float, options: TrainingOptions) -> int:
    """How many windows an epoch draws: whole steps of `tokens_per_epoch`, but never less than one step."""
    tokens = options.tokens_per_epoch or max(round(windows), 1) * options.max_seq_length
    wanted = limited_in_rehearsal(tokens, REHEARSAL_TOKENS_PER_EPOCH) // options.max_seq_length
    return min(max(round(windows), 1), max(wanted, options.windows_per_step))


def _options_of(stage: Stage, options: TrainingOptions, longest: int | None) -> TrainingOptions:
    own = options.model_copy(update=dict(stage.overrides))
    length = own.max_seq_length if longest is None else min(own.max_seq_length, longest)
    return own.model_copy(update={"max_seq_length": limited_in_rehearsal(length, REHEARSAL_SEQUENCE)})


def _split(name: str, options: TrainingOptions) -> Split:
    documents = load_documents(name)
    try:
        return split_documents(documents, share=options.validation_split, seed=options.seed)
    except UserInputError as error:
        raise UserInputError(f"dataset {name!r}: {error}") from None


def _refuse_short(stage: Stage, packed: Sequence[TextDataset]) -> None:
    problems = [
        Problem(
            key=name,
            message=f"has {dataset.token_count} tokens to train on, less than one sequence of {dataset.max_length}",
            hint="Give it more text, or choose a smaller max_seq_length.",
        )
        for name, dataset in zip(stage.datasets, packed, strict=True)
        if dataset.token_count <= dataset.max_length
    ]
    if problems:
        raise InvalidInput(f"datasets of stage {stage.name!r}", problems)


def _refuse_large_batch(plan: StagePlan) -> None:
    if plan.steps_per_epoch:
        return
    options = plan.options
    message = (
        f"a step takes {options.windows_per_step} sequences (batch_size {options.batch_size} x "
        f"gradient_accumulation_steps {options.gradient_accumulation_steps}), and an epoch has {plan.draws} "
        f"of {options.max_seq_length} tokens"
    )
    hint = "Choose a smaller batch, or a smaller max_seq_length."
    raise InvalidInput.of(f"stage {plan.name!r}", "batch_size", message, hint=hint)


def _refuse_nothing_held_out(plan: StagePlan) -> None:
    """A document of a single token has no next token to predict, and the validation loss would be a mean of nothing."""
    if plan.held_out_windows:
        return
    message = "fewer than two tokens are held out, which is too little to validate on"
    hint = "Remove the shortest documents, or choose a larger validation_split."
    split = plan.options.validation_split
    raise InvalidInput.of(f"stage {plan.name!r}", "validation_split", message, value=split, hint=hint)
