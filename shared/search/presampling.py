"""Presampling: the point of a trial that does not exist yet.

A plain `study.ask()` creates an empty trial and fills it parameter by parameter. We sample first, so that the whole
trial can be created in one transaction: no reader sees half of it, and a crash in between leaves nothing behind.
For that a sampler gets a copy of the study whose storage is a Snapshot.

Unlike `study.ask()`, this does not filter by Hyperband's bracket: a bracket follows from the number, which is not given
yet, and the samplers of 5.0 read past that filter anyway.

What is private in Optuna 5.0.x and used here (`Study._storage`, the samplers' random states, the frozen trial's
fields) is held down by tests/contract/test_samplers.py.
"""

from __future__ import annotations

import copy
import hashlib
import math
import secrets
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.errors import InvalidInput, SpaceExhausted
from highnoon.shared.domain.grid import grid_problems, grid_values
from highnoon.shared.domain.space import SearchSpace
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params, ParamValue
from highnoon.shared.search.auto import AutoSampler
from highnoon.shared.search.feasibility import Chance, chance_to_fit
from highnoon.shared.search.quasi_random import QuasiRandomSampler
from highnoon.shared.search.samplers import Distributions

PENDING = -1
"""Number and id of the trial that is being sampled for; no trial of any storage has them."""

_LEAST_CHANCE = 0.9
"""Of fitting, for a proposal to be taken at once. A trial that does not fit teaches only that."""

_MOST_RETRIES = 16
"""Then the likeliest proposal is taken, and its trial may show that the estimate was wrong."""

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


def as_stored(space: Distributions, values: Mapping[str, Any]) -> Params:
    """The values that belong to the space, in the type that their domain stores, in or out of its bounds.

    Raises ValueError for what a domain can not hold: text for a number, a choice that there is not.
    """
    return {
        name: domain.to_external_repr(domain.to_internal_repr(values[name]))
        for name, domain in space.items()
        if name in values
    }


def sample(
    study: Study,
    space: Distributions,
    *,
    seed: int,
    fixed: Params,
    ordinal: int = 0,
    usable: set[int] | None = None,
) -> Sampled:
    """The next point by the study's sampler, in which what is `fixed` stays as it is.

    A sequence gives its point `ordinal`, what else is random follows from `seed`.

    `usable` remembers ids of ended trials of which the sampler can use all values; give the same set again.
    """
    known = {name: _only_value(domain) for name, domain in space.items() if domain.single()} | fixed
    if known.keys() == space.keys():
        return Sampled(params={name: known[name] for name in space})
    reseed(study.sampler, seed)
    if isinstance(study.sampler, AutoSampler | QuasiRandomSampler):
        study.sampler.ordinal = ordinal
    history = snapshot_of(study, keep=_Usable(space, set() if usable is None else usable))
    chance = _chance_to_fit(history, space)
    proposed = _propose(history, space, known)
    if chance is None:
        return proposed
    retries = (_propose(history, space, known) for _ in range(_MOST_RETRIES))
    return _likely_to_fit(proposed, retries, chance)


def _chance_to_fit(history: Study, space: Distributions) -> Chance | None:
    """Not for random draws and sequences, which are wanted as they fall; `auto` estimates it by itself."""
    if isinstance(history.sampler, RandomSampler | QuasiRandomSampler | AutoSampler):
        return None
    return chance_to_fit(history.get_trials(deepcopy=False), space)


def _likely_to_fit(proposed: Sampled, retries: Iterable[Sampled], chance: Chance) -> Sampled:
    """The first that is as likely as it need be, else the likeliest; `retries` are made as they are needed."""
    best, best_chance = proposed, chance(proposed.params)
    for retry in retries:
        if best_chance >= _LEAST_CHANCE:
            break
        if (retry_chance := chance(retry.params)) > best_chance:
            best, best_chance = retry, retry_chance
    return best


def _propose(history: Study, space: Distributions, known: Params) -> Sampled:
    """One point by the study's sampler, in which what is `known` stays as it is."""
    pending = _pending()
    ahead = snapshot_of(history, pending)
    sampler = ahead.sampler
    sampler.before_trial(ahead, pending)
    relative = sampler.sample_relative(ahead, pending, sampler.infer_relative_search_space(ahead, pending))
    for name, domain in space.items():
        if name in known:
            value = known[name]
        elif name in relative and domain._contains(domain.to_internal_repr(relative[name])):
            value = relative[name]
        else:
            value = sampler.sample_independent(ahead, pending, name, domain)
        # One by one: a sampler may read what the trial has so far.
        pending.params[name], pending.distributions[name] = value, domain
    return Sampled(params=pending.params, system_attrs=_worth_keeping(pending.system_attrs))


class _Usable:
    """Whether a sampler can use a trial: another program may have joined the study with domains of its own.

    A text where we have a number, or a choice that we do not have, would end every later proposal with an error.
    """

    def __init__(self, space: Distributions, known: set[int]) -> None:
        self._space = space
        self._known = known

    def __call__(self, trial: FrozenTrial) -> bool:
        if trial._trial_id in self._known:
            return True
        try:
            for name in self._space.keys() & trial.params.keys():
                self._space[name].to_internal_repr(trial.params[name])
        except (ValueError, TypeError):
            return False
        if trial.state.is_finished():
            self._known.add(trial._trial_id)
        return True


def snapshot_of(
    study: Study, pending: FrozenTrial | None = None, keep: Callable[[FrozenTrial], bool] | None = None
) -> Study:
    """The study for the length of one decision: its history is read at most once, and only when it is needed."""
    view = copy.copy(study)
    view._storage = cast(BaseStorage, Snapshot(study, pending, keep))
    return view


class Snapshot:
    """A study's storage that reads the history once and keeps a pending trial's attributes to itself.

    Everything else goes to the real storage: pruners, for example, write the rungs that a running trial has reached.
    """

    def __init__(
        self, study: Study, pending: FrozenTrial | None, keep: Callable[[FrozenTrial], bool] | None = None
    ) -> None:
        self._storage = study._storage
        self._keep = keep
        self._study_id = study._study_id
        self._pending = pending
        self._trials: list[FrozenTrial] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As the storage gave it the first time."""
        if self._trials is None:
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            self._trials = trials if self._keep is None else [trial for trial in trials if self._keep(trial)]
        trials = self._trials if states is None else [trial for trial in self._trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_study_id_from_name(self, study_name: str) -> int:
        """Known already; Hyperband asks for it at every decision."""
        return self._study_id

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """The pending trial's own, or the storage's."""
        if self._pending is not None and trial_id == PENDING:
            return dict(self._pending.system_attrs)
        return self._storage.get_trial_system_attrs(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Kept for the creation of the pending trial, or written to the storage."""
        if self._pending is not None and trial_id == PENDING:
            self._pending.system_attrs[key] = value
        else:
            self._storage.set_trial_system_attr(trial_id, key, value)


def reseed(sampler: BaseSampler, seed: int) -> None:
    """Sets every random state in a sampler. Done before each proposal, so none is ever shared across a fork."""
    for name in ("_rng", "_cma_rng"):
        if hasattr(sampler, name):
            getattr(sampler, name).rng.seed(seed)
    for name in ("_random_sampler", "_independent_sampler", "_tpe"):
        if hasattr(sampler, name):
            reseed(getattr(sampler, name), seed)


def _only_value(domain: BaseDistribution) -> ParamValue:
    value: ParamValue = domain.choices[0] if isinstance(domain, CategoricalDistribution) else domain.low  # type: ignore[attr-defined]
    return value


def _pending() -> FrozenTrial:
    return FrozenTrial(
        number=PENDING,
        trial_id=PENDING,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _worth_keeping(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attrs.items() if not key.startswith(_RELATIVE_PARAMS)}


class Grid:
    """A grid's points by ordinal, in the order of `shared.domain.grid.grid`.

    Not sampled: the ticket's ordinal is the point, so none comes twice or is left out. The trials carry the attributes
    of Optuna's own GridSampler, so that an ordinary Optuna script with the same values takes our points for visited.
    """

    def __init__(self, space: SearchSpace, points: int | None = None, shuffled_by: int | None = None) -> None:
        """Raises InvalidInput when the space spans no finite grid. `shuffled_by` is the seed of another order."""
        problems = grid_problems(space, points)
        if problems:
            raise InvalidInput("search_space", problems)
        self._names = list(space)
        self._values = {name: list(grid_values(space[name], points) or ()) for name in sorted(space)}
        self._size = math.prod(map(len, self._values.values()))
        self._optuna_ids: list[int] = []
        self._order = None if shuffled_by is None else np.random.RandomState(shuffled_by).permutation(self._size)

    @classmethod
    def of(cls, spec: StudySpec) -> Grid | None:
        """That of a study whose sampler is exhaustive."""
        if not spec.sampler.is_exhaustive:
            return None
        shuffled_by = (spec.seed or 0) if spec.sampler.name == "brute_force" else None
        return cls(spec.search_space, spec.sampler.options.get("points"), shuffled_by)

    def __len__(self) -> int:
        return self._size

    def point(self, ordinal: int) -> Sampled:
        """That of `grid(space, points)` where not shuffled. Raises SpaceExhausted beyond the last one."""
        if not 0 <= ordinal < self._size:
            raise SpaceExhausted(f"the grid has {self._size} points, and all of them are taken")
        if self._order is not None:
            ordinal = int(self._order[ordinal])
        params: Params = {}
        rest = ordinal
        for name, values in reversed(self._values.items()):
            rest, index = divmod(rest, len(values))
            params[name] = values[index]
        return Sampled(
            params={name: params[name] for name in self._names},
            system_attrs={"grid_id": self._optuna_id(ordinal), "search_space": self._values},
        )

    def _optuna_id(self, ordinal: int) -> int:
        """GridSampler shuffles the same product by seed 0 and counts in that order; a list shuffles by its length."""
        if not self._optuna_ids:
            shuffled = list(range(self._size))
            np.random.RandomState(0).shuffle(shuffled)
            self._optuna_ids = [0] * self._size
            for optuna_id, original in enumerate(shuffled):
                self._optuna_ids[original] = optuna_id
        return self._optuna_ids[ordinal]
