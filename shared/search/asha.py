"""Asynchronous successive halving, in Ray's words, and Hyperband's brackets of it: pruners of Optuna's interface.

A trial reaches rung k with its first report at step `grace_period * reduction_factor ** k` or later, and goes on if
that value is among the best 1 / `reduction_factor` of those that others had there. The others' values are what was
noted with them, or by their reports; of running trials a supervisor reads the notes alone.

Optuna's SuccessiveHalvingPruner lets only the best one go on until there are twice `reduction_factor` at a rung, where
Ray interpolates. And it compares a trial by its newest value, with values that were noted and no others: where rungs
become known while trials run, late values stand on the first rung, and no beginner gets past them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial


class AshaPruner(BasePruner):
    """Decides at a trial's report by the rungs that it has reached; between two rungs it goes on."""

    def __init__(self, grace_period: int, reduction_factor: int = 3) -> None:
        self._grace_period = grace_period
        self._reduction_factor = reduction_factor

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is none of the best at a rung that it has reached since it was asked last."""
        sign = -1.0 if study.direction is StudyDirection.MAXIMIZE else 1.0
        rung = self._next_rung(trial)
        while (value := _value_at(trial.intermediate_values, self._step(rung))) is not None:
            if math.isnan(value):
                return True
            others = [sign * one for one in self._others(study, trial, rung)]
            if math.isfinite(value):  # of what is not a finite number nothing can be stored
                study._storage.set_trial_system_attr(trial._trial_id, _note(rung), value)
            if not is_good(sign * value, others, self._reduction_factor):
                return True
            rung += 1
        return False

    def next_rung_step(self, trial: FrozenTrial) -> int:
        """The step from which on the next decision on this trial is made."""
        return self._step(self._next_rung(trial))

    def _next_rung(self, trial: FrozenTrial) -> int:
        rung = 0
        while _note(rung) in trial.system_attrs:
            rung += 1
        return rung

    def _step(self, rung: int) -> int:
        return int(self._grace_period * self._reduction_factor**rung)

    def _others(self, study: Study, trial: FrozenTrial, rung: int) -> list[float]:
        note, step = _note(rung), self._step(rung)
        found = []
        for one in study.get_trials(deepcopy=False):
            noted = one.system_attrs.get(note)
            value = _value_at(one.intermediate_values, step) if noted is None else float(noted)
            if value is not None and not math.isnan(value) and one._trial_id != trial._trial_id:
                found.append(value)
        return found


class Hyperband(HyperbandPruner):
    """Optuna's Hyperband with brackets that decide as AshaPruner does. Overrides what is private in Optuna 5.0.x."""

    def _try_initialization(self, study: Study) -> None:
        super()._try_initialization(study)
        factor = self._reduction_factor
        brackets = [AshaPruner(self._min_resource * factor**bracket, factor) for bracket in range(len(self._pruners))]
        self._pruners = cast(list[SuccessiveHalvingPruner], brackets)


def _note(rung: int) -> str:
    """Under Optuna's own names: what one of its pruners noted counts as well."""
    return f"completed_rung_{rung}"


def _value_at(values: Mapping[int, float], step: int) -> float | None:
    """The value of the first report at this step or later; None while there is none."""
    first = min((one for one in values if one >= step), default=None)
    return None if first is None else values[first]


def is_good(value: float, others: Sequence[float], reduction_factor: int) -> bool:
    """Whether a value, to be minimized, is no worse than the best 1 / `reduction_factor` of the others, as Ray has it:
    between two of them the border is drawn in proportion."""
    if not others:
        return True
    ordered = sorted(others)
    place = (len(ordered) - 1) / reduction_factor
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return value <= ordered[below] + (place - below) * (ordered[above] - ordered[below])
