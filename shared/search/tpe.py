"""Optuna's TPE, which reads the parameters of each ended trial once. Its proposals are the same.

Optuna turns every value of every trial into a number again for each proposal: of a study with some hundred trials
that is a tenth of what a proposal costs, and of a thousand a sixth. What is private in Optuna 5.0.x and used here
(`_get_internal_repr`, `_get_params`, `FrozenTrial._trial_id`) is checked by tests/contract/test_tpe.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

_Row = tuple[float, ...] | None
"""A trial's values as TPE calculates with them, in the order of the domains; None for one that has not all of them."""

_MOST_ROWS = 5_000
"""Of one group of parameters; then all are read again. Of a large study TPE gets 800 trials, others by and by."""


class CachingTPESampler(TPESampler):
    """With TPESampler's options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._read: dict[tuple[str, ...], _ReadTrials] = {}

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, NDArray[Any]]:
        names = tuple(search_space)
        known = self._read.get(names)
        if known is None or known.domains != search_space or len(known.rows) > _MOST_ROWS:
            known = self._read[names] = _ReadTrials(search_space)
        rows = []
        for trial in trials:
            row = known.row(trial)
            if row is None and not trial.state.is_finished():
                row = known.values_of(self._get_params(trial, study))
            if row is not None:
                rows.append(row)
        table = np.array(rows, dtype=float).reshape(len(rows), len(names))
        return {name: table[:, place] for place, name in enumerate(names)}


class _ReadTrials:
    """The rows of ended trials by their ids, each with the trial that it was read from: ids of a warm start repeat."""

    def __init__(self, domains: dict[str, BaseDistribution]) -> None:
        self.domains = domains
        self.rows: dict[int, tuple[FrozenTrial, _Row]] = {}

    def row(self, trial: FrozenTrial) -> _Row:
        """Of an ended trial; None for one that runs."""
        found = self.rows.get(trial._trial_id)
        if found is not None and found[0] is trial:
            return found[1]
        if not trial.state.is_finished():
            return None
        row = self.values_of(trial.params)
        self.rows[trial._trial_id] = (trial, row)
        return row

    def values_of(self, params: dict[str, Any]) -> _Row:
        if not self.domains.keys() <= params.keys():
            return None
        return tuple(domain.to_internal_repr(params[name]) for name, domain in self.domains.items())
