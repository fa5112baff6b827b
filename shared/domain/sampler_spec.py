"""How a study samples: the samplers by name, and which options each of them takes.

Owns names, types and limits of the options; leaving one out leaves it to Optuna. `samplers` passes them on as keyword
arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from highnoon.shared.domain.errors import Problem
from highnoon.shared.domain.limits import MOST_AT_ONCE
from highnoon.shared.domain.strategy import Count, Fraction, Natural, Strategy, Strict, name_or_class
from highnoon.shared.domain.validation import refusal


class AutoOptions(Strict):
    """Our own: a Gaussian process while trials are few, then TPE."""

    n_startup_trials: Natural | None = None


class TpeOptions(Strict):
    """Tree-structured Parzen estimator."""

    n_startup_trials: Natural | None = None
    n_ei_candidates: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] | None = None
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
    popsize: Annotated[int, Field(ge=3, le=MOST_AT_ONCE)] | None = None


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
    scramble: bool = True


class Nsga3Options(Strict):
    """A genetic algorithm with reference points, for many objectives."""

    population_size: Annotated[int, Field(ge=2)] | None = None
    mutation_prob: Fraction | None = None
    crossover_prob: Fraction | None = None
    swapping_prob: Fraction | None = None


class Nsga2Options(Nsga3Options):
    """A genetic algorithm, for two or three objectives or large numbers of trials."""


class PbtOptions(Strict):
    """Population-based training, in Ray's words; without `mutate` the parameters that are real numbers change."""

    population: Annotated[int, Field(ge=2, le=10_000)] = 8
    perturbation_interval: Count = 5
    quantile_fraction: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.25
    resample_probability: Fraction = 0.25
    mutate: Annotated[list[str], Field(min_length=1)] | None = None


EXHAUSTIVE = frozenset({"grid", "brute_force"})
"""Samplers that try each point of a finite space once."""


WARMED = ("auto", "tpe", "gp", "cmaes")
"""Samplers that trials of other studies inform: the others go by no history, or by generations of their own."""


class SamplerSpec(Strategy):
    """Which sampler, with the options that are not left to Optuna."""

    role: ClassVar[str] = "sampler"
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
        "pbt": PbtOptions,
    }

    name: Annotated[
        Literal["tpe", "auto", "gp", "cmaes", "qmc", "nsga2", "nsga3", "random", "grid", "brute_force", "pbt"],
        name_or_class("sampler"),
    ]

    @property
    def is_exhaustive(self) -> bool:
        """Whether it tries each point of a finite space once, and then has no further one."""
        return self.name in EXHAUSTIVE

    @property
    def goes_on_from_checkpoints(self) -> bool:
        """Whether its trials begin with the checkpoints of earlier ones."""
        return self.name == "pbt"

    @property
    def needs_space(self) -> bool:
        """Whether it must know the space before the first trial, which a trial that defines it as it runs has not."""
        return self.is_exhaustive or self.name in ("qmc", "pbt")
