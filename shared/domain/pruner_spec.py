"""How a study prunes: the pruners by name, and which options each of them takes.

Owns names, types and limits of the options; leaving one out leaves it to Optuna. `samplers` passes them on as keyword
arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from highnoon.shared.domain.errors import Problem
from highnoon.shared.domain.strategy import Count, Fraction, Natural, Strategy, Strict, name_or_class
from highnoon.shared.domain.validation import refusal

Factor = Annotated[int, Field(ge=2)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class MedianOptions(Strict):
    """Prunes what is worse than the median at the same step."""

    n_startup_trials: Natural | None = None
    n_warmup_steps: Natural | None = None
    interval_steps: Count | None = None
    n_min_trials: Count | None = None


class PercentileOptions(MedianOptions):
    """Keeps the best `percentile` percent at each step, as Optuna's pruner of that name does."""

    percentile: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 75.0


class HyperbandOptions(Strict):
    """Successive halving in several brackets; without `max_resource` it is the last step of the first trial."""

    min_resource: Count | None = None
    max_resource: Annotated[Count | None, BeforeValidator(lambda written: None if written == "auto" else written)] = (
        None
    )
    reduction_factor: Factor | None = None

    @field_validator("max_resource")
    @classmethod
    def _resources_are_ordered(cls, max_resource: int | None, info: ValidationInfo) -> int | None:
        min_resource = info.data.get("min_resource") or 1
        if max_resource is not None and max_resource < min_resource:
            message = f"must be at least min_resource, which is {min_resource}"
            raise refusal([Problem(key="pruner.max_resource", message=message, value=max_resource)])
        return max_resource


class AshaOptions(Strict):
    """Asynchronous successive halving, in Ray's words; without `grace_period` a hundredth of the first trial's steps.

    A trial reaches a rung at step grace_period * reduction_factor ** rung, and goes on if its value there is among the
    best 1 / reduction_factor; reduction_factor is 3 unless it is given.
    """

    grace_period: Count | None = None
    reduction_factor: Factor | None = None


class WilcoxonOptions(Strict):
    """Prunes what a signed-rank test takes for worse than the best trial at the same steps (folds of a validation)."""

    p_threshold: Fraction | None = None
    n_startup_steps: Natural | None = None


class ThresholdOptions(Strict):
    """Prunes what reports a value below `lower` or above `upper`, or NaN."""

    lower: Number | None = None
    upper: Annotated[Number | None, Field(validate_default=True)] = None
    n_warmup_steps: Natural | None = None
    interval_steps: Count | None = None

    @field_validator("upper")
    @classmethod
    def _one_bound_at_least(cls, upper: float | None, info: ValidationInfo) -> float | None:
        if "lower" not in info.data:
            return upper
        lower = info.data["lower"]
        if lower is None and upper is None:
            hint = 'Write for example {name = "threshold", upper = 10.0}.'
            raise refusal(
                [Problem(key="pruner", message="threshold needs lower or upper", value="threshold", hint=hint)]
            )
        if lower is not None and upper is not None and upper < lower:
            raise refusal(
                [Problem(key="pruner.upper", message=f"must be at least lower, which is {lower}", value=upper)]
            )
        return upper


class PatientOptions(Strict):
    """Lets the `wrapped` pruner decide (without one: prunes) once `patience` reports brought nothing better."""

    patience: Annotated[Natural | None, Field(validate_default=True)] = None
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    wrapped: PrunerSpec | None = None

    @field_validator("patience")
    @classmethod
    def _patience_is_given(cls, patience: int | None) -> int:
        if patience is None:
            hint = 'Write for example {name = "patient", patience = 5, wrapped = "median"}.'
            raise refusal([Problem(key="pruner.patience", message="is missing", hint=hint)])
        return patience

    @field_validator("wrapped")
    @classmethod
    def _wrapped_is_one_of_ours(cls, wrapped: PrunerSpec | None) -> PrunerSpec | None:
        if wrapped is not None and wrapped.plugin is not None:
            hint = "Wrap it in the class itself."
            raise refusal([Problem(key="pruner.wrapped", message="cannot be a class", value=wrapped.name, hint=hint)])
        return wrapped


class NoOptions(Strict):
    """Never prunes."""


class PrunerSpec(Strategy):
    """Which pruner, with the options that are not left to Optuna."""

    role: ClassVar[str] = "pruner"
    kinds: ClassVar[Mapping[str, type[Strict]]] = {
        "median": MedianOptions,
        "percentile": PercentileOptions,
        "hyperband": HyperbandOptions,
        "asha": AshaOptions,
        "wilcoxon": WilcoxonOptions,
        "threshold": ThresholdOptions,
        "patient": PatientOptions,
        "none": NoOptions,
    }

    name: Annotated[
        Literal["median", "percentile", "hyperband", "asha", "wilcoxon", "threshold", "patient", "none"],
        name_or_class("pruner"),
    ]


PatientOptions.model_rebuild()
