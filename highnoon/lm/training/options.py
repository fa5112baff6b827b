"""What `Trainer(model, ...)` was told beside the model: its own options, the model's parameters, and mistakes.

A whole set of best parameters may be passed. Keys of a model are kept and compared with the model; a key that
nearly is one of ours is a mistake; any other is somebody's own, kept and said once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, NamedTuple

from highnoon.config import ModelConfig, TrainingConfig
from highnoon.rehearsal import rehearsing
from highnoon.shared.domain.errors import InvalidInput, Problem

OTHER_SPELLINGS = {**ModelConfig.other_spellings, **TrainingConfig.other_spellings}

_NEARLY = 0.8
"""How alike two names are when one is taken for a slip of the other."""


class Rule(NamedTuple):
    """The kind and the bounds of an option; `above` excludes the lower bound itself."""

    kind: type
    least: float
    most: float = math.inf
    above: bool = False
    optional: bool = False


OPTION_RULES: dict[str, Rule] = {
    "learning_rate": Rule(float, 0, above=True),
    "batch_size": Rule(int, 1),
    "max_seq_length": Rule(int, 1),
    "gradient_accumulation_steps": Rule(int, 1),
    "epochs": Rule(int, 1, optional=True),
    "tokens_per_epoch": Rule(int, 1, optional=True),
    "warmup_steps": Rule(int, 0, optional=True),
    "gradient_clip": Rule(float, 0, above=True, optional=True),
    "weight_decay": Rule(float, 0),
    "adam_beta1": Rule(float, 0, 0.9999999),
    "adam_beta2": Rule(float, 0, 0.9999999),
    "adam_epsilon": Rule(float, 0, above=True),
    "validation_split": Rule(float, 0, 0.9, above=True),
    "early_stopping_patience": Rule(int, 1, optional=True),
    "early_stopping_min_delta": Rule(float, 0),
    "prefetch_buffer_size": Rule(int, 1, optional=True),
    "seed": Rule(int, 0),
    "jit_compile": Rule(bool, 0, optional=True),
    "mixed_precision": Rule(bool, 0, optional=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Everything that steers a training. None: no clipping, no early stopping, automatic, as the docs say of each."""

    learning_rate: float = 1e-4
    batch_size: int = 8
    max_seq_length: int = 2048
    gradient_accumulation_steps: int = 1
    epochs: int | None = None
    tokens_per_epoch: int | None = None
    warmup_steps: int | None = None
    gradient_clip: float | None = 1.0
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    validation_split: float = 0.1
    early_stopping_patience: int | None = 10
    early_stopping_min_delta: float = 0.001
    prefetch_buffer_size: int | None = None
    seed: int = 0
    jit_compile: bool | None = None
    mixed_precision: bool | None = None


def read_options(given: Mapping[str, Any], model_config: Mapping[str, Any]) -> TrainingOptions:
    """The options among `given`. Raises InvalidInput with every mistake; warns of what is not used or differs."""
    told, problems = _in_first_spelling(given)
    options = {key: value for key, value in told.items() if key in OPTION_RULES}
    problems += [fault for key, value in options.items() if (fault := fault_of(key, value, OPTION_RULES[key]))]
    others = {key: value for key, value in told.items() if key not in OPTION_RULES}
    known = {*OPTION_RULES, *OTHER_SPELLINGS, *ModelConfig.names()}
    foreign = [key for key in others if key not in known]
    problems += [slip for key in foreign if (slip := _slip(key, known))]
    if problems:
        raise InvalidInput("Trainer()", problems)
    _warn_of_foreign(foreign)
    _warn_of_difference(others, model_config)
    return TrainingOptions(**{key: _cast(value, OPTION_RULES[key]) for key, value in options.items()})


def fault_of(key: str, value: object, rule: Rule) -> Problem | None:
    """What is wrong with one option, or None."""
    if value is None and rule.optional:
        return None
    kinds = {int: Integral, float: Real, bool: bool}
    if not isinstance(value, kinds[rule.kind]) or (isinstance(value, bool) and rule.kind is not bool):
        name = {int: "a whole number", float: "a number", bool: "true or false"}[rule.kind]
        return Problem(key=key, message=f"must be {name}{' or None' if rule.optional else ''}", value=value)
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number) or number < rule.least or number > rule.most or (rule.above and number == rule.least):
        lower = f"{'above' if rule.above else 'at least'} {rule.least:g}"
        upper = "" if rule.most == math.inf else f" and at most {rule.most:g}"
        return Problem(key=key, message=f"must be {lower}{upper}", value=value)
    return None


def _in_first_spelling(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    told = {key: value for key, value in given.items() if key not in OTHER_SPELLINGS}
    problems = []
    for alias, name in OTHER_SPELLINGS.items():
        if alias not in given:
            continue
        if name in given and given[name] != given[alias]:
            hint = "They are one option in two spellings; give one of them."
            problems.append(Problem(key=alias, message=f"says something else than {name}", hint=hint))
        told[name] = given[alias]
    return told, problems


def _slip(key: str, known: Iterable[str]) -> Problem | None:
    near = get_close_matches(key, list(known), n=1, cutoff=_NEARLY)
    return Problem(key=key, message="is not known", hint=f"Did you mean {near[0]}?") if near else None


def _warn_of_foreign(foreign: list[str]) -> None:
    if foreign:
        warnings.warn(
            f"Trainer keeps {', '.join(sorted(foreign))} in trainer.hyperparameters and does not use it: "
            f"it knows {', '.join(OPTION_RULES)}",
            stacklevel=4,
        )


def _warn_of_difference(told: Mapping[str, Any], model_config: Mapping[str, Any]) -> None:
    if rehearsing():  # its models are smaller than what was asked for, on purpose
        return
    differ = [key for key in told if key in model_config and told[key] != model_config[key]]
    if differ:
        said = ", ".join(f"{key}={told[key]!r} (the model has {model_config[key]!r})" for key in sorted(differ))
        warnings.warn(f"the model was not built with {said}; the model stays as it is", stacklevel=4)


def _cast(value: Any, rule: Rule) -> Any:
    return None if value is None else rule.kind(value)
