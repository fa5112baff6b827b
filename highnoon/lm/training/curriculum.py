"""A stage of the curriculum as it was asked for, checked.

Owns its grammar: names, shares, weight, overrides. Which text a dataset's name stands for is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from highnoon.lm.training.options import OPTION_RULES, fault_of
from highnoon.shared.domain.errors import InvalidInput, Problem, nearest

OVERRIDES = ("learning_rate", "batch_size", "max_seq_length", "gradient_accumulation_steps")
"""What a stage may have of its own; everything else belongs to the whole training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`shares` is None where every window is seen once an epoch; `epochs` None leaves it to `train`."""

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


def read_stage(
    name: object,
    datasets: object,
    epochs: object,
    weight: object,
    overrides: Mapping[str, Any],
    taken: Sequence[str],
) -> Stage:
    """The stage, or InvalidInput with every mistake at once; `taken` are the names of the stages before it."""
    names, shares, problems = _read_datasets(datasets)
    if not isinstance(name, str) or not name:
        problems.append(Problem(key="name", message="must be text", value=name))
    elif name in taken:
        problems.append(Problem(key="name", message="is the name of an earlier stage", value=name))
    if epochs is not None and not _is_whole(epochs, 1):
        problems.append(Problem(key="epochs", message="must be a whole number of at least 1, or None", value=epochs))
    if not _is_positive(weight):
        problems.append(Problem(key="weight", message="must be a number above 0", value=weight))
    problems += [_override_fault(key, value) for key, value in overrides.items() if _override_fault(key, value)]
    if problems:
        raise InvalidInput("add_curriculum_stage()", problems)
    return Stage(
        name=str(name),
        datasets=tuple(names),
        shares=shares,
        epochs=epochs if isinstance(epochs, int) else None,
        weight=float(weight),  # type: ignore[arg-type]
        overrides=dict(overrides),
    )


def _override_fault(key: str, value: object) -> Any:
    if key not in OVERRIDES:
        return Problem(key=key, message="is nothing that a stage can override", hint=nearest(key, OVERRIDES))
    return fault_of(key, value, OPTION_RULES[key])


def _read_datasets(written: object) -> tuple[list[str], tuple[float, ...] | None, list[Problem]]:
    items = [written] if isinstance(written, str) else list(written) if isinstance(written, (list, tuple)) else []
    names: list[str] = []
    shares: list[float] = []
    problems = []
    for number, item in enumerate(items):
        key = f"datasets[{number}]"
        if isinstance(item, str) and item:
            names.append(item)
        elif isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str) and _is_positive(item[1]):
            names.append(item[0])
            shares.append(float(item[1]))
        else:
            problems.append(Problem(key=key, message="must be a name, or a pair of name and share", value=item))
    if not items:
        message = "must be a name or a list with at least one"
        problems.append(Problem(key="datasets", message=message, value=written))
    elif shares and len(shares) < len(names):
        problems.append(Problem(key="datasets", message="must have a share for each dataset, or for none"))
    elif len(set(names)) < len(names):
        problems.append(Problem(key="datasets", message="names one dataset twice", value=written))
    return names, tuple(shares) or None, problems


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
