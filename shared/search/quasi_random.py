"""A low-discrepancy sequence by ordinal: on any number of nodes each of its points comes once.

Optuna's sampler counts in an attribute of the study, which two processes may read at the same time, and draws its first
points at random until a trial has ended. Here the ticket's ordinal is the place in the sequence.
"""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import QMCSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class QuasiRandomSampler(QMCSampler):
    """Optuna's sequence over `space`; set `ordinal` before each proposal."""

    def __init__(self, space: dict[str, BaseDistribution], *, seed: int | None = None, **options: Any) -> None:
        """Without a seed every process has the same sequence, too."""
        super().__init__(seed=seed or 0, warn_asynchronous_seeding=False, warn_independent_sampling=False, **options)
        self._space = {name: domain for name, domain in sorted(space.items()) if not domain.single()}
        self.ordinal = 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All of the study's space, also before a trial has ended; where it is not known, the first trial's space."""
        return self._space or super().infer_relative_search_space(study, trial)

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self.ordinal
