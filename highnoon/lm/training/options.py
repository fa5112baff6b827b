"""What was asked of `Trainer`, checked: its options, the model's parameters among them, and the curriculum's stages.

A whole set of best parameters may be passed. Keys of a model are kept and compared with the model; a key that is close
to one of ours is a mistake; any other is the user's own, kept, and named in one warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import Field

from highnoon.config import (
    Above0,
    AtLeast0,
    Count,
    ModelConfig,
    Natural,
    Section,
    TrainingConfig,
    checked,
)
from highnoon.rehearsal import is_rehearsal
from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.objective.trial_context import settings

STAGE_OVERRIDES = ("learning_rate", "batch_size", "max_seq_length", "gradient_accumulation_steps")
"""What a stage may set for itself; everything else belongs to the whole training."""

EPOCHS_PER_STAGE = 10
"""The default of `train`, which the guide prints."""

_SIMILAR = 0.8
"""How alike two names are when one is taken for a misspelling of the other."""


class TrainingOptions(TrainingConfig):
    """Everything that controls a training. None: no clipping, no early stopping, automatic; see the docs for each."""

    epochs: Count | None = None  # type: ignore[assignment]
    warmup_steps: Natural | None = None  # type: ignore[assignment]
    max_seq_length: Count = 2048
    gradient_accumulation_steps: Count = 1
    tokens_per_epoch: Count | None = None
    validation_split: Annotated[Above0, Field(le=0.9)] = 0.1
    early_stopping_patience: Count | None = 10
    early_stopping_min_delta: AtLeast0 = 0.001
    prefetch_buffer_size: Count | None = None
    seed: Natural = 0
    jit_compile: bool | None = None
    mixed_precision: bool | None = None

    @property
    def windows_per_step(self) -> int:
        """How many sequences one optimizer step takes."""
        return self.batch_size * self.gradient_accumulation_steps


class Intervals(Section):
    """The numbers that `train` is called with."""

    epochs_per_stage: Count | None
    checkpoint_interval: Count
    log_interval: Count
    eval_interval: Count


class _StageNumbers(Section):
    epochs: Count | None
    weight: Above0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the curriculum. `epochs` None: as many as `train` is called with.

    `shares` is None where every window is used once an epoch.
    """

    name: str
    datasets: tuple[str, ...]
    shares: tuple[float, ...] | None = None
    epochs: int | None = None
    weight: float = 1.0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values only."""
        return {**asdict(self), "overrides": dict(self.overrides)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Stage:
        """The inverse of `to_json`."""
        shares = data["shares"]
        return cls(**{**data, "datasets": tuple(data["datasets"]), "shares": None if shares is None else tuple(shares)})


def read_options(given: Mapping[str, Any], model: Any) -> TrainingOptions:
    """The options among `given`. Raises InvalidInput with every mistake; warns of what is not used or differs."""
    known = TrainingOptions.names()
    options, problems = checked(TrainingOptions, {key: value for key, value in given.items() if key in known})
    others, conflicts = ModelConfig.in_first_spelling({key: given[key] for key in given if key not in known})
    foreign = [key for key in others if key not in ModelConfig.names()]
    problems += [*conflicts, *_misspelled(foreign, {*known, *ModelConfig.names()})]
    if options is None or problems:
        raise InvalidInput("Trainer()", problems)
    if foreign:
        warnings.warn(
            f"Trainer keeps {', '.join(sorted(foreign))} in trainer.hyperparameters and does not use it: "
            f"it knows {', '.join(TrainingOptions.model_fields)}",
            stacklevel=3,
        )
    _warn_of_difference(others, _config_of(model))
    return options


def replaced_options(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was saved, with `given` in place of the same options, under either spelling."""
    spellings = {**TrainingOptions.other_spellings, **ModelConfig.other_spellings}
    replaced = {spellings.get(key, key) for key in given}
    return {**{key: value for key, value in saved.items() if spellings.get(key, key) not in replaced}, **given}


def read_stage(
    name: object,
    datasets: object,
    epochs: object,
    weight: object,
    overrides: Mapping[str, Any],
    taken: Sequence[str],
) -> Stage:
    """The stage. Raises InvalidInput with every mistake at once; `taken` are the names of the stages before it."""
    names, shares, problems = _read_datasets(datasets)
    if not isinstance(name, str) or not name:
        problems.append(Problem(key="name", message="must be text", value=name))
    elif name in taken:
        problems.append(Problem(key="name", message="is the name of an earlier stage", value=name))
    numbers, wrong_numbers = checked(_StageNumbers, {"epochs": epochs, "weight": weight})
    own = {key: value for key, value in overrides.items() if key in STAGE_OVERRIDES}
    options, wrong_options = checked(TrainingOptions, own)
    problems += [*wrong_numbers, *wrong_options]
    problems += [
        Problem(key=key, message="is not an option that a stage can override", hint=nearest(key, STAGE_OVERRIDES))
        for key in overrides
        if key not in STAGE_OVERRIDES
    ]
    if numbers is None or options is None or problems:
        raise InvalidInput("add_curriculum_stage()", problems)
    return Stage(
        name=str(name),
        datasets=tuple(names),
        shares=shares,
        epochs=numbers.epochs,
        weight=numbers.weight,
        overrides={key: getattr(options, key) for key in own},
    )


def epochs_of_a_stage(options: TrainingOptions, epochs_per_stage: int | None, stages: Iterable[Stage]) -> int:
    """For stages without a number of their own: the trainer's `epochs`, else what `train` was called with.

    Warns where both were given and differ; the default of `train` counts as not given.
    """
    epochs = options.epochs or epochs_per_stage or EPOCHS_PER_STAGE
    if epochs_per_stage not in (None, EPOCHS_PER_STAGE, epochs) and any(stage.epochs is None for stage in stages):
        warnings.warn(
            f"epochs_per_stage={epochs_per_stage} is not used: the trainer has epochs={epochs}, which takes precedence",
            stacklevel=4,
        )
    return epochs


def epochs_of_the_trial() -> int | None:
    """How many a person set for the last stage of a trial that trains longer. Raises InvalidInput, NoTrialRunning."""
    epochs = settings().get("epochs")
    if epochs is None or (isinstance(epochs, int) and not isinstance(epochs, bool) and epochs > 0):
        return epochs
    message = "was set for this trial, and must be a whole number above 0"
    raise InvalidInput.of("Trainer.train()", "epochs", message, value=epochs)


def _config_of(model: Any) -> Mapping[str, Any]:
    """The model's part of the configuration it was built from; empty for a model that has none."""
    config: Any = getattr(model, "config", None)
    part = getattr(config, "model", config)
    return dict(part.to_dict()) if hasattr(part, "to_dict") else {}


def _misspelled(foreign: Iterable[str], known: Iterable[str]) -> list[Problem]:
    near = {key: get_close_matches(key, list(known), n=1, cutoff=_SIMILAR) for key in foreign}
    return [
        Problem(key=key, message="is not known", hint=f"Did you mean {matches[0]}?")
        for key, matches in near.items()
        if matches
    ]


def _warn_of_difference(given: Mapping[str, Any], model_config: Mapping[str, Any]) -> None:
    if is_rehearsal():  # its models are smaller than what was asked for, on purpose
        return
    differ = [key for key in given if key in model_config and given[key] != model_config[key]]
    if differ:
        pairs = ", ".join(f"{key}={given[key]!r} (the model has {model_config[key]!r})" for key in sorted(differ))
        warnings.warn(f"the model was not built with {pairs}; the model stays as it is", stacklevel=4)


def _read_datasets(written: object) -> tuple[list[str], tuple[float, ...] | None, list[Problem]]:
    items = [written] if isinstance(written, str) else list(written) if isinstance(written, (list, tuple)) else []
    names: list[str] = []
    shares: list[float] = []
    problems = []
    for number, item in enumerate(items):
        if isinstance(item, str) and item:
            names.append(item)
        elif isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str) and _is_positive(item[1]):
            names.append(item[0])
            shares.append(float(item[1]))
        else:
            message = "must be a name, or a pair of name and share"
            problems.append(Problem(key=f"datasets[{number}]", message=message, value=item))
    if not items:
        message = "must be a name or a list with at least one"
        problems.append(Problem(key="datasets", message=message, value=written))
    elif shares and len(shares) < len(names):
        problems.append(Problem(key="datasets", message="must have a share for each dataset, or for none"))
    elif len(set(names)) < len(names):
        problems.append(Problem(key="datasets", message="names one dataset twice", value=written))
    return names, tuple(shares) or None, problems


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
