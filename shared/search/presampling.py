"""Presampling: the point of a trial that does not exist yet.

A plain `study.ask()` creates an empty trial and fills it parameter by parameter. We sample first, so that the whole
trial can be created in one transaction: no reader finds half of it, and a crash in between leaves nothing behind.
For that a sampler gets a copy of the study whose storage is a HistorySnapshot.

Unlike `study.ask()`, this does not filter by Hyperband's bracket: a bracket follows from the number, which is not given
yet, and the samplers of 5.0 read past that filter anyway.

What is private in Optuna 5.0.x and used here (the samplers' random states, the frozen trial's fields) is checked by
tests/contract/test_samplers.py.
"""

from __future__ import annotations

import copy
import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.errors import SpaceExhausted
from highnoon.shared.domain.trial import Params
from highnoon.shared.search.auto import AutoSampler
from highnoon.shared.search.feasibility import Chance, chance_to_fit
from highnoon.shared.search.history_snapshot import PENDING, new_trial, snapshot_of
from highnoon.shared.search.known_trials import NEWEST, KnownTrials
from highnoon.shared.search.plugged import PluggedSampler, holds
from highnoon.shared.search.quasi_random import QuasiRandomSampler
from highnoon.shared.search.sampling_space import SamplingSpace, only_value

_LEAST_CHANCE = 0.9
"""Of fitting, for a proposal to be taken at once. A trial that does not fit teaches only that."""

_MOST_RETRIES = 16
"""Then the likeliest proposal is taken, and its trial may show that the estimate was wrong."""

_MOST_DRAWS = 5_000
"""Random points, before a space is given up in which the sampler found none that keeps the constraints."""

_RELATIVE_PARAMS = ("tpe:relative_params", "gp:relative_params")
"""Written for other processes, about parameters that are not stored yet. Ours are stored with their trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A point, and what its sampler wants remembered with it (CMA-ES keeps its optimizer there)."""

    params: Params
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


def seed_of(study_seed: int | None, ordinal: int) -> int:
    """What decides the randomness of one ticket's proposal: the same on every retry, fresh without a study seed."""
    if study_seed is None:
        return secrets.randbits(32)
    return int.from_bytes(hashlib.blake2b(f"{study_seed}/{ordinal}".encode(), digest_size=4).digest(), "big")


def sample(
    study: Study,
    space: SamplingSpace,
    *,
    seed: int | None,
    fixed: Params,
    ordinal: int = 0,
    known: KnownTrials | None = None,
) -> Sampled:
    """The next point by the study's sampler, in which what is `fixed` stays as it is.

    A sequence gives its point `ordinal`, what else is random follows from `seed`; without one from the sampler's own.
    Raises SpaceExhausted when no point that keeps the space's constraints was found.
    `known` are the trials as this space has them; give the same again.
    """
    complete = space.completed(fixed)
    if complete is not None:
        return Sampled(params=complete)
    if seed is not None:
        reseed(study.sampler, seed)
    if isinstance(study.sampler, AutoSampler | QuasiRandomSampler):
        study.sampler.ordinal = ordinal
    known = known or KnownTrials(space)
    see = known.few if _goes_by_few(study) else known.all
    history = snapshot_of(study, see=partial(see, study))
    chance = _chance_to_fit(history, space, known)
    if isinstance(study.sampler, AutoSampler):
        study.sampler.worth, chance = _worth(space, chance), None
    proposals = _proposals(history, space, fixed)
    proposed = next(proposals, None) or _any_allowed(history, space, fixed, seed)
    return proposed if chance is None else _likely_to_fit(proposed, proposals, chance)


def _chance_to_fit(history: Study, space: SamplingSpace, known: KnownTrials) -> Chance | None:
    """Not for random draws and sequences, which are wanted as they fall."""
    if isinstance(history.sampler, RandomSampler | QuasiRandomSampler):
        return None
    trials = history.get_trials(deepcopy=False)
    return chance_to_fit(trials, space.domains, space.is_covered_by) if known.any_missed else None


def _worth(space: SamplingSpace, chance: Chance | None) -> Chance | None:
    """For a sampler that compares points by itself: how likely one fits, nothing where it breaks a constraint."""
    if chance is None and not space.constraints:
        return None

    def worth(params: Mapping[str, Any]) -> float:
        point = space.completed(params) or params
        return 0.0 if space.broken_by(point) else 1.0 if chance is None else chance(point)

    return worth


def _likely_to_fit(proposed: Sampled, retries: Iterable[Sampled], chance: Chance) -> Sampled:
    """The first that is as likely as it need be, else the likeliest; `retries` are made as they are needed."""
    best, best_chance = proposed, chance(proposed.params)
    for retry in retries:
        if best_chance >= _LEAST_CHANCE:
            break
        if (retry_chance := chance(retry.params)) > best_chance:
            best, best_chance = retry, retry_chance
    return best


def _proposals(history: Study, space: SamplingSpace, fixed: Params) -> Iterator[Sampled]:
    """Points by the study's sampler that keep the constraints; none when it finds none."""
    for _ in range(_MOST_RETRIES + 1):
        proposed = _propose(history, space, fixed)
        if not space.broken_by(proposed.params):
            yield proposed


def _any_allowed(history: Study, space: SamplingSpace, fixed: Params, seed: int | None) -> Sampled:
    """A point that keeps the constraints, drawn at random: the sampler has found none."""
    random = RandomSampler(seed=seed)
    for _ in range(_MOST_DRAWS):
        pending = new_trial()
        _fill(pending, space, fixed, partial(random.sample_independent, history, pending))
        if not space.broken_by(pending.params):
            return Sampled(params=pending.params)
    constraints = " and ".join(map(str, space.constraints))
    raise SpaceExhausted(f"no point was found that keeps {constraints}, in {_MOST_DRAWS:,} draws")


def _propose(history: Study, space: SamplingSpace, fixed: Params) -> Sampled:
    """One point by the study's sampler, in which what is `fixed` stays as it is; of active parameters only."""
    pending = new_trial()
    ahead = snapshot_of(history, pending)
    sampler = ahead.sampler
    sampler.before_trial(ahead, pending)
    relative = sampler.sample_relative(ahead, pending, sampler.infer_relative_search_space(ahead, pending))

    def choose(name: str, domain: BaseDistribution) -> Any:
        chosen = relative.get(name)
        if name not in relative or not holds(domain, chosen):
            chosen = sampler.sample_independent(ahead, pending, name, domain)
        is_choice = isinstance(domain, CategoricalDistribution)  # 1 and True are equal there
        return chosen if is_choice else domain.to_external_repr(domain.to_internal_repr(chosen))

    _fill(pending, space, fixed, choose)
    return Sampled(params=pending.params, system_attrs=only_what_lasts(pending.system_attrs))


def _fill(
    pending: FrozenTrial, space: SamplingSpace, fixed: Params, choose: Callable[[str, BaseDistribution], Any]
) -> None:
    """One by one: a sampler may read what the trial has so far, and conditions do."""
    for name, domain in space.domains.items():
        if not space.is_active(name, pending.params):
            continue
        value = fixed[name] if name in fixed else only_value(domain) if domain.single() else choose(name, domain)
        pending.params[name], pending.distributions[name] = value, domain


def _goes_by_few(study: Study) -> bool:
    """Whether the study's sampler proposes as well from a part of a large study."""
    sampler = study.sampler
    return isinstance(sampler, TPESampler) and len(study.directions) == 1 and sampler._n_startup_trials <= NEWEST


def earlier_trials(space: SamplingSpace, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Ended trials of other studies as this space has them, with ids of their own; failed ones are left out.

    Their numbers count from 0: Optuna's search for common parameters stops at one below those that it has seen.
    """
    found: list[FrozenTrial] = []
    for trial in trials:
        translated = space.translated(trial) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None
        if translated is not None and translated.params:
            one = copy.copy(translated)
            # What a sampler remembered there (a generation, an optimizer) means nothing here; what did not fit does.
            kept = {key: value for key, value in trial.system_attrs.items() if key.startswith("constraints")}
            one.number, one._trial_id = len(found), PENDING - 1 - len(found)
            one.system_attrs = kept
            found.append(one)
    return found


def reseed(sampler: BaseSampler, seed: int) -> None:
    """Sets every random state in a sampler. Done before each proposal, so none is ever shared across a fork."""
    if isinstance(sampler, PluggedSampler):
        sampler.seed = seed
    for name in ("_rng", "_cma_rng"):
        if isinstance(getattr(sampler, name, None), LazyRandomState):
            getattr(sampler, name).rng.seed(seed)
    for name in ("_random_sampler", "_independent_sampler", "_tpe"):
        if isinstance(getattr(sampler, name, None), BaseSampler):
            reseed(getattr(sampler, name), seed)


def only_what_lasts(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be stored of the attributes that a sampler wrote to a pending trial."""
    return {key: value for key, value in attrs.items() if not key.startswith(_RELATIVE_PARAMS)}
