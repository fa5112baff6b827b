"""Define-by-run: the parameters of one running trial, one after the other, as Optuna's own Trial would choose them.

Optuna's order: what a person or an earlier attempt fixed; the only value of a domain; what the sampler chose jointly
for the parameters that all earlier trials have; else each by itself. The history is read at the first question, and the
sampler a copy, so that nothing else that this process samples meanwhile changes an answer. Only without a seed of the
study a sampler that a person gave as an object is used as it is, and one that cannot be copied always.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from itertools import islice
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from highnoon.shared.domain.states import ENDING, TICKET
from highnoon.shared.domain.trial import Params, ParamValue
from highnoon.shared.search.history_snapshot import for_sampler, new_trial, snapshot_of
from highnoon.shared.search.plugged import holds
from highnoon.shared.search.presampling import only_what_lasts, reseed
from highnoon.shared.search.sampling_space import only_value

_LOOKED_BACK = 1_000
"""Trials whose domains are read: of a long history not all."""


class Suggester:
    """Of one trial. `params` and `distributions` hold every answer so far, `system_attrs` what its sampler keeps."""

    def __init__(
        self,
        study: Study,
        *,
        trial_id: int,
        number: int,
        seed: int | None,
        fixed: Mapping[str, Any],
    ) -> None:
        """Without a `seed` the study's sampler itself answers, with its own."""
        self._fixed = fixed
        self._pending = new_trial()
        self._pending.number = number
        others = snapshot_of(
            study, see=lambda trials: [for_sampler(study, one) for one in trials if one._trial_id != trial_id]
        )
        self._study = snapshot_of(others, self._pending)
        if seed is not None:
            self._study.sampler = _copied(study.sampler)
            reseed(self._study.sampler, seed)
        self._relative: Params | None = None
        self._study.sampler.before_trial(self._study, self._pending)

    @property
    def params(self) -> Params:
        """Every answer so far."""
        return self._pending.params

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The domains that were asked for."""
        return self._pending.distributions

    @property
    def system_attrs(self) -> dict[str, Any]:
        """What the sampler wants remembered with the trial."""
        return only_what_lasts(self._pending.system_attrs)

    @property
    def relative_params(self) -> Params:
        """What the sampler chose jointly, of the parameters that all earlier trials have."""
        if self._relative is None:
            sampler = self._study.sampler
            space = sampler.infer_relative_search_space(self._study, self._pending)
            self._relative = dict(sampler.sample_relative(self._study, self._pending, space))
        return self._relative

    def suggest(self, name: str, domain: BaseDistribution) -> ParamValue:
        """The trial's value of this parameter. Raises ValueError where Optuna does: for other choices than before, or
        another kind or scale of domain."""
        trial = self._pending
        if name in trial.distributions:
            check_distribution_compatibility(trial.distributions[name], domain)
            return trial.params[name]  # type: ignore[no-any-return]
        known = self._known_domains.get(name)
        if known is not None:
            check_distribution_compatibility(known, domain)
        value = self._chosen(name, domain, trial)
        suggested: ParamValue = domain.to_external_repr(domain.to_internal_repr(value))
        trial.params[name], trial.distributions[name] = suggested, domain
        return suggested

    @cached_property
    def _known_domains(self) -> Mapping[str, BaseDistribution]:
        """By name, as the newest trial of ours has it: domains of other programs stop nothing."""
        newest = islice(reversed(self._study.get_trials(deepcopy=False)), _LOOKED_BACK)
        ours = [trial.distributions for trial in newest if {TICKET, ENDING} & trial.user_attrs.keys()]
        return {name: domain for domains in reversed(ours) for name, domain in domains.items()}

    def _chosen(self, name: str, domain: BaseDistribution, trial: FrozenTrial) -> Any:
        if name in self._fixed:
            return self._fixed[name]
        if domain.single():
            return only_value(domain)
        relative = self.relative_params
        if name in relative and holds(domain, relative[name]):
            return relative[name]
        return self._study.sampler.sample_independent(self._study, trial, name, domain)


def _copied(sampler: BaseSampler) -> BaseSampler:
    try:
        return copy.deepcopy(sampler)
    except Exception:  # it holds a lock, or whatever else its author has given it
        return sampler
