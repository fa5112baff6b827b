"""What samplers and pruners have in common: a name and options, written as a name alone or as one table.

{name = "tpe", n_startup_trials = 20} is such a table. The kinds are in `sampler_spec` and `pruner_spec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_serializer,
    model_validator,
)

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.scalars import is_json, plain
from highnoon.shared.domain.validation import refusal

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

_MODULES: Mapping[str, tuple[str, ...]] = {"gp": ("torch", "scipy"), "qmc": ("scipy",), "wilcoxon": ("scipy",)}


class Strict(BaseModel):
    """What comes from outside: no unknown keys, no "5" for 5, no true for 1; frozen once it is accepted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _numpy_scalars_are_numbers(cls, written: object) -> object:
        return {key: plain(value) for key, value in written.items()} if isinstance(written, Mapping) else written


class Strategy(Strict):
    """A name, with the options that are not left to Optuna."""

    role: ClassVar[str]
    """What it is, for people."""
    kinds: ClassVar[Mapping[str, type[Strict]]]

    name: str
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _from_one_table(cls, written: object) -> object:
        if isinstance(written, str):
            return {"name": written}
        if not isinstance(written, Mapping) or not isinstance(written.get("options", {}), Mapping):
            return written
        flat = {key: value for key, value in written.items() if key not in ("name", "options")}
        named = {key: value for key, value in written.items() if key == "name"}
        return {**named, "options": {**written.get("options", {}), **flat}}

    @field_validator("options")
    @classmethod
    def _known_options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind = cls.kinds.get(info.data.get("name", ""))
        if kind is not None:
            return kind.model_validate(options).model_dump(exclude_none=True)
        options = {name: plain(value) for name, value in options.items()}
        message, hint = "must be JSON without NaN, infinity and zero bytes", "Let the class make other objects itself."
        problems = [
            Problem(key=f"{cls.role}.{name}", message=message, value=value, hint=hint)
            for name, value in options.items()
            if not is_json([name, value])
        ]
        if problems:
            raise refusal(problems)
        return options

    @property
    def plugin(self) -> ObjectiveRef | None:
        """The class of the study's own code; None for a name."""
        return ObjectiveRef.parse(self.name) if ":" in self.name else None

    @model_serializer
    def _to_one_table(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


def name_or_class(key: str) -> WrapValidator:
    """A name, or "module:Class" of the study's own code."""

    def validate(written: object, known: ValidatorFunctionWrapHandler) -> object:
        if not isinstance(written, str) or ":" not in written:
            return known(written)
        try:
            return str(ObjectiveRef.parse(written))
        except InvalidInput:
            message = 'must be a name, "package.module:Class" or "path/file.py:Class"'
            raise refusal([Problem(key=key, message=message, value=written)]) from None

    return WrapValidator(validate)


def several_problems(sampler: Strategy | None, pruner: Strategy | None) -> list[Problem]:
    """What cannot search or prune for several objectives."""
    problems = []
    if sampler is not None and sampler.name in ("cmaes", "pbt"):
        hint = "Write tpe, nsga2, nsga3, gp, auto, qmc or random."
        message = f"the sampler {sampler.name} is for one objective"
        problems.append(Problem(key="sampler", message=message, value=sampler.name, hint=hint))
    wrapped = {} if pruner is None else pruner.options.get("wrapped", {})
    if pruner is not None and "wilcoxon" in (pruner.name, wrapped.get("name")):
        hint = "Write median, percentile, asha, hyperband, threshold, patient or none."
        message = "the pruner wilcoxon is for one objective: it compares with the best trial"
        problems.append(Problem(key="pruner", message=message, value="wilcoxon", hint=hint))
    return problems


def modules_of(*strategies: Strategy) -> dict[str, tuple[str, ...]]:
    """The modules beyond a plain installation that each needs, by its name for people; a wrapped pruner included."""
    needs: dict[str, tuple[str, ...]] = {}
    for strategy in strategies:
        for name in (strategy.name, strategy.options.get("wrapped", {}).get("name")):
            if name in _MODULES:
                needs[f"{strategy.role} {name}"] = _MODULES[name]
    return needs
