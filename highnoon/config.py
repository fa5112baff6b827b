"""The configuration of a model and its training: the fields of the guide, checked as a whole.

Owns names, defaults, limits and the second spellings that the guide's pages use. Does not own what a field does to
the model (`models`), to the training (`training`), or how many parameters it costs (`models.size`). No TensorFlow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from typing_extensions import Self

from highnoon.shared.domain.errors import InvalidInput, Problem, nearest
from highnoon.shared.domain.validation import Key, problems_in, refusal
from highnoon.shared.objective.study_file import read_table
from highnoon.shared.runtime.whole_file import whole_file

HYBRID = "mamba_timecrystal_wlam_moe_hybrid"
PATTERNS: dict[str, tuple[str, ...]] = {
    HYBRID: ("mamba", "attention", "wavelet"),
    "hybrid": ("mamba", "attention", "wavelet"),
    "mamba_only": ("mamba",),
    "transformer": ("attention",),
}
"""The mixers that the reasoning blocks use in turn. The first is the guide's name for the second."""


def _plain(value: object) -> object:
    """NumPy's numbers as Python's: samplers and grids give either."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


Count = Annotated[int, BeforeValidator(_plain), Field(ge=1)]
Natural = Annotated[int, BeforeValidator(_plain), Field(ge=0)]
Above0 = Annotated[float, BeforeValidator(_plain), Field(gt=0, allow_inf_nan=False)]
AtLeast0 = Annotated[float, BeforeValidator(_plain), Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_plain), Field(ge=0, lt=1, allow_inf_nan=False)]


S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """Frozen, checked fields, some with a second spelling. Raises InvalidInput with every problem at once."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", validate_default=True)
    other_spellings: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:  # type checkers read the fields instead

        def __init__(self, /, **written: Any) -> None:
            values, problems = self.in_first_spelling(written)
            try:
                super().__init__(**values)
            except ValidationError as error:
                problems += problems_in(error, values, self._hint)
            if problems:
                raise InvalidInput(type(self).__name__, problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the first spelling of each name."""
        return self.model_dump()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what is left out has its default. Raises InvalidInput."""
        return cls(**values)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every name that may be written, second spellings included."""
        return (*cls.model_fields, *cls.other_spellings)

    @classmethod
    def in_first_spelling(cls, written: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        """The values by the first spelling of their names; a Problem where two spellings have different values."""
        values = {name: value for name, value in written.items() if name not in cls.other_spellings}
        problems = []
        for other, name in cls.other_spellings.items():
            if other in written and values.setdefault(name, written[other]) != written[other]:
                message, hint = f"differs from {name}", "They are one field: write one of them."
                problems.append(Problem(key=other, message=message, value=written[other], hint=hint))
        return values, problems

    @classmethod
    def _hint(cls, key: Key, kind: str) -> str:
        return nearest(key[-1], cls.names()) if kind == "extra_forbidden" else ""


def checked(kind: type[S], values: Mapping[str, Any]) -> tuple[S | None, list[Problem]]:
    """The section made of these values, or what is wrong with them."""
    try:
        return kind(**values), []
    except InvalidInput as invalid:
        return None, list(invalid.problems)


class ModelConfig(Section):
    """The shape of an HSMN. `docs/model.md` describes what each field changes."""

    other_spellings: ClassVar[Mapping[str, str]] = {
        "num_blocks": "num_reasoning_blocks",
        "num_experts": "num_moe_experts",
    }

    vocab_size: Count = 60_000
    embedding_dim: Count = 512
    num_reasoning_blocks: Count = 6
    max_seq_length: Count = 4096
    num_moe_experts: Count = 8
    top_k_experts: Count = 2
    aux_loss_weight: AtLeast0 = 0.01
    mamba_d_state: Count = 16
    mamba_d_conv: Count = 4
    mamba_expand: Count = 2
    num_heads: Count = 8
    dropout_rate: Share = 0.1
    block_pattern: str = HYBRID
    tie_embeddings: bool = True

    @field_validator("num_heads")
    @classmethod
    def _heads_divide_the_embedding(cls, heads: int, info: ValidationInfo) -> int:
        dim = info.data.get("embedding_dim")
        if dim is None or dim % heads == 0:
            return heads
        fits = max(count for count in range(1, heads + 1) if dim % count == 0)
        hint = f"Take {fits} heads, or embedding_dim {dim // heads * heads or heads} or {(dim // heads + 1) * heads}."
        raise refusal(
            [Problem(key="num_heads", message=f"does not divide embedding_dim {dim}", value=heads, hint=hint)]
        )

    @field_validator("top_k_experts")
    @classmethod
    def _no_more_than_there_are(cls, chosen: int, info: ValidationInfo) -> int:
        experts = info.data.get("num_moe_experts")
        if experts is None or chosen <= experts:
            return chosen
        message, hint = f"is more than num_moe_experts {experts}", f"Take at most {experts}."
        raise refusal([Problem(key="top_k_experts", message=message, value=chosen, hint=hint)])

    @field_validator("block_pattern")
    @classmethod
    def _mixes_tokens(cls, pattern: str) -> str:
        if pattern in PATTERNS:
            return pattern
        message = "is not a known pattern"
        if pattern == "moe_only":
            message = "has no mixer, so that no token would read another"
        raise refusal([Problem(key="block_pattern", message=message, value=pattern, hint=nearest(pattern, PATTERNS))])

    @property
    def mixers(self) -> tuple[str, ...]:
        """The mixer of each block."""
        cycle = PATTERNS[self.block_pattern]
        return tuple(cycle[number % len(cycle)] for number in range(self.num_reasoning_blocks))

    @property
    def num_blocks(self) -> int:
        """Alias of num_reasoning_blocks."""
        return self.num_reasoning_blocks

    @property
    def num_experts(self) -> int:
        """Alias of num_moe_experts."""
        return self.num_moe_experts


class TrainingConfig(Section):
    """How a model is trained; `Trainer` takes each of these by name."""

    other_spellings: ClassVar[Mapping[str, str]] = {"max_grad_norm": "gradient_clip"}

    learning_rate: Above0 = 1e-4
    batch_size: Count = 8
    epochs: Count = 100
    warmup_steps: Natural = 1000
    gradient_clip: Above0 | None = 1.0
    weight_decay: AtLeast0 = 0.01
    adam_beta1: Share = 0.9
    adam_beta2: Share = 0.999
    adam_epsilon: Above0 = 1e-8

    @property
    def max_grad_norm(self) -> float | None:
        """Alias of gradient_clip."""
        return self.gradient_clip


class Config(Section):
    """A model and its training. A part may be given as a table; one that is left out has its defaults."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("model", "training", mode="before")
    @classmethod
    def _from_table(cls, part: object, info: ValidationInfo) -> object:
        name = str(info.field_name)
        section = _SECTIONS[name]
        if isinstance(part, section):
            return part
        if not isinstance(part, Mapping):
            hint = f"Write {section.__name__}(...) or a table of its fields."
            raise refusal([Problem(key=name, message="is not a table", value=part, hint=hint)])
        checked_part, problems = checked(section, part)
        if problems:
            raise refusal(replace(problem, key=f"{name}.{problem.key}") for problem in problems)
        return checked_part

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From `to_dict`'s tables, or from one flat table such as a trial's parameters. Raises InvalidInput."""
        if not values.keys().isdisjoint(_SECTIONS):
            return cls(**values)
        known = [name for section in _SECTIONS.values() for name in section.names()]
        if unknown := [name for name in values if name not in known]:
            message = "is not a known key"
            problems = [
                Problem(key=name, message=message, value=values[name], hint=nearest(name, known)) for name in unknown
            ]
            raise InvalidInput("Config", problems)
        parts: dict[str, Any] = {
            part: {name: value for name, value in values.items() if name in section.names()}
            for part, section in _SECTIONS.items()
        }
        return cls(**parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON, whole or not at all; makes the folder. Raises OSError."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target, mode=0o666) as file:
            file.write(json.dumps(self.to_dict(), indent=2).encode() + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """From a JSON, TOML or YAML file. Raises InvalidInput with all problems, also when it is missing."""
        values = read_table(Path(path))
        try:
            return cls.from_dict(values)
        except InvalidInput as invalid:
            raise InvalidInput(str(path), invalid.problems) from None


_SECTIONS: dict[str, type[Section]] = {"model": ModelConfig, "training": TrainingConfig}
