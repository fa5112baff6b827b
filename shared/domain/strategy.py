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
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_serializer,
    model_validator,
)

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.scalars import plain
from highnoon.shared.domain.validation import refusal

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[int, Field(ge=2)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """What comes from outside: no unknown keys, no "5" for 5, no true for 1; frozen once it is accepted."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _numpy_scalars_are_numbers(cls, written: object) -> object:
        return {key: plain(value) for key, value in written.items()} if isinstance(written, Mapping) else written


class AutoOptions(Strict):
    """Our own: a Gaussian process while trials are few, then TPE."""

    n_startup_trials: Natural | None = None


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


class BruteForceOptions(Strict):
    """Every combination of a finite space once, in random order."""


class GpOptions(Strict):
    """Optuna's Gaussian process; needs PyTorch."""

    n_startup_trials: Natural | None = None
    deterministic_objective: bool | None = None


class QmcOptions(Strict):
    """A sequence that fills the space evenly. Scrambled by the study's seed, so that every node has the same one."""

    qmc_type: Literal["sobol", "halton"] | None = None
    scramble: bool | None = None


class Nsga3Options(Strict):
    """A genetic algorithm with reference points, for many objectives."""

    population_size: Annotated[int, Field(ge=2)] | None = None
    mutation_prob: Fraction | None = None
    crossover_prob: Fraction | None = None
    swapping_prob: Fraction | None = None


class Nsga2Options(Nsga3Options):
    """A genetic algorithm, for two or three objectives or large numbers of trials."""


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


def _name_or_class(key: str) -> WrapValidator:
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

    @property
    def plugin(self) -> ObjectiveRef | None:
        """The class of the study's own code; None for a name."""
        return ObjectiveRef.parse(self.name) if ":" in self.name else None

    @model_serializer
    def _to_one_table(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


class SamplerSpec(_Strategy):
    """Which sampler, with the options that are not left to Optuna."""

    kinds: ClassVar[Mapping[str, type[Strict]]] = {
        "tpe": TpeOptions,
        "auto": AutoOptions,
        "gp": GpOptions,
        "cmaes": CmaEsOptions,
        "qmc": QmcOptions,
        "nsga2": Nsga2Options,
        "nsga3": Nsga3Options,
        "random": RandomOptions,
        "grid": GridOptions,
        "brute_force": BruteForceOptions,
    }

    name: Annotated[
        Literal["tpe", "auto", "gp", "cmaes", "qmc", "nsga2", "nsga3", "random", "grid", "brute_force"],
        _name_or_class("sampler"),
    ]

    @property
    def is_exhaustive(self) -> bool:
        """Whether it tries each point of a finite space once, and then has no further one."""
        return self.name in ("grid", "brute_force")

    @property
    def needs_space(self) -> bool:
        """Whether it must know the space before the first trial, which a trial that defines it as it runs has not."""
        return self.is_exhaustive or self.name == "qmc"


class PrunerSpec(_Strategy):
    """Which pruner, with the options that are not left to Optuna."""

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
        _name_or_class("pruner"),
    ]


PatientOptions.model_rebuild()


def several_problems(sampler: SamplerSpec | None, pruner: PrunerSpec | None) -> list[Problem]:
    """What cannot search or prune for several objectives."""
    problems = []
    if sampler is not None and sampler.name == "cmaes":
        hint = "Write tpe, nsga2, nsga3, gp, auto, qmc or random."
        message = "the sampler cmaes is for one objective"
        problems.append(Problem(key="sampler", message=message, value="cmaes", hint=hint))
    wrapped = {} if pruner is None else pruner.options.get("wrapped", {})
    if pruner is not None and "wilcoxon" in (pruner.name, wrapped.get("name")):
        hint = "Write median, percentile, asha, hyperband, threshold, patient or none."
        message = "the pruner wilcoxon is for one objective: it compares with the best trial"
        problems.append(Problem(key="pruner", message=message, value="wilcoxon", hint=hint))
    return problems


_MODULES: Mapping[str, tuple[str, ...]] = {"gp": ("torch", "scipy"), "qmc": ("scipy",), "wilcoxon": ("scipy",)}


def modules_of(*strategies: SamplerSpec | PrunerSpec) -> dict[str, tuple[str, ...]]:
    """The modules beyond a plain installation that each needs, by its name for people; a wrapped pruner included."""
    needs: dict[str, tuple[str, ...]] = {}
    for strategy in strategies:
        what = "sampler" if isinstance(strategy, SamplerSpec) else "pruner"
        for name in (strategy.name, strategy.options.get("wrapped", {}).get("name")):
            if name in _MODULES:
                needs[f"{what} {name}"] = _MODULES[name]
    return needs
