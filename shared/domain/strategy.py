"""How a study searches: the names of samplers and pruners, and which options each of them takes.

Owns names, types and limits of the options; leaving one out leaves it to Optuna. `samplers` passes them on as keyword
arguments. Both are written as a name alone, or as one table: {name = "tpe", n_startup_trials = 20}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from highnoon.shared.domain.errors import Problem
from highnoon.shared.domain.scalars import plain
from highnoon.shared.domain.validation import refusal

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """What comes from outside: no unknown keys, no "5" for 5, no true for 1; frozen once it is accepted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _numpy_scalars_are_numbers(cls, written: object) -> object:
        return {key: plain(value) for key, value in written.items()} if isinstance(written, Mapping) else written


class TpeOptions(Strict):
    """Tree-structured Parzen estimator."""

    n_startup_trials: Natural | None = None
    n_ei_candidates: Count | None = None
    multivariate: bool | None = None
    group: bool | None = None
    constant_liar: bool | None = None

    @field_validator("group")
    @classmethod
    def _groups_need_multivariate(cls, group: bool | None, info: ValidationInfo) -> bool | None:
        if group and info.data.get("multivariate") is False:
            message, hint = "works only with multivariate", "Leave multivariate = false out."
            raise refusal([Problem(key="sampler.group", message=message, value=group, hint=hint)])
        return group


class CmaEsOptions(Strict):
    """Covariance matrix adaptation; categorical parameters are drawn at random."""

    n_startup_trials: Natural | None = None
    popsize: Annotated[int, Field(ge=3)] | None = None


class RandomOptions(Strict):
    """Independent draws."""


class GridOptions(Strict):
    """Every combination once; `points` is how many values of each continuous range are taken, both ends included."""

    points: Annotated[int, Field(ge=2)] | None = None


class MedianOptions(Strict):
    """Prunes what is worse than the median at the same step."""

    n_startup_trials: Natural | None = None
    n_warmup_steps: Natural | None = None
    interval_steps: Count | None = None
    n_min_trials: Count | None = None


class PercentileOptions(MedianOptions):
    """Keeps the best `percentile` percent at each step, as Optuna's pruner of that name does."""

    percentile: Annotated[float, Field(ge=0, le=100)] = 75.0


class HyperbandOptions(Strict):
    """Successive halving in several brackets; without `max_resource` Optuna takes the last step of the first trial."""

    min_resource: Count | None = None
    max_resource: Annotated[Count | None, BeforeValidator(lambda written: None if written == "auto" else written)] = (
        None
    )
    reduction_factor: Annotated[int, Field(ge=2)] | None = None

    @field_validator("max_resource")
    @classmethod
    def _resources_are_ordered(cls, max_resource: int | None, info: ValidationInfo) -> int | None:
        min_resource = info.data.get("min_resource") or 1
        if max_resource is not None and max_resource < min_resource:
            message = f"must be at least min_resource, which is {min_resource}"
            raise refusal([Problem(key="pruner.max_resource", message=message, value=max_resource)])
        return max_resource


class NoOptions(Strict):
    """Never prunes."""


class _Strategy(Strict):
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
        return options if kind is None else kind.model_validate(options).model_dump(exclude_none=True)

    @model_serializer
    def _to_one_table(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


class SamplerSpec(_Strategy):
    """Which sampler, with the options that are not left to Optuna."""

    kinds: ClassVar[Mapping[str, type[Strict]]] = {
        "tpe": TpeOptions,
        "cmaes": CmaEsOptions,
        "random": RandomOptions,
        "grid": GridOptions,
    }

    name: Literal["tpe", "cmaes", "random", "grid"]


class PrunerSpec(_Strategy):
    """Which pruner, with the options that are not left to Optuna."""

    kinds: ClassVar[Mapping[str, type[Strict]]] = {
        "median": MedianOptions,
        "hyperband": HyperbandOptions,
        "percentile": PercentileOptions,
        "none": NoOptions,
    }

    name: Literal["median", "hyperband", "percentile", "none"]
