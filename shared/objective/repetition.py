"""The repeats of a point: one trial calls its objective several times, each time with a seed of its own.

reports      the first repeat's are the trial's, and its pruner decides in it; the others show progress only.
             Of an objective that reports nothing, the mean so far is reported after each repeat
early end    a first repeat that is worse than the worst repeat of the best trial ends the point, as PRUNED
result       the mean of each number that the objective returns or logs
a retry      finds the results of finished repeats in its folder of checkpoints, and does not run them again
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highnoon.shared.domain.errors import TrialPruned
from highnoon.shared.domain.result_parsing import RESULT_KEYS, can_name, further_numbers, result
from highnoon.shared.domain.trial import REPEATS, REPEATS_STD, REPEATS_WORST, Params
from highnoon.shared.objective.seeds import seed_libraries, trial_seed

if TYPE_CHECKING:
    from highnoon.shared.objective.running_trial import RunningTrial

_RESULTS = "repeats.json"
_LOGGED = "logged"
"""Beside the numbers of a result there: what the repeat has logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How often a point is run. `seed` is the trial's; a first repeat whose score is worse than `bar` is the last."""

    count: int = 1
    seed: int = 0
    bar: float | None = None

    def seed_of(self, index: int) -> int:
        """The seed of one repeat; the first one has the trial's."""
        return self.seed if index == 0 else trial_seed(self.seed, index)


ONCE = Repeats()


def repeated(
    objective: Callable[[Params], object], params: Params, trial: RunningTrial, repeats: Repeats, folder: Path | None
) -> object:
    """What the objective returns, on average. Raises what it raises, and TrialPruned after a bad first repeat."""
    results = _results_in(folder)[: repeats.count - 1]
    trial.logged.extend(one.pop(_LOGGED, {}) for one in results)
    worst_of = min if trial.maximizes else max
    for index in range(len(results), repeats.count):
        seed_libraries(repeats.seed_of(index))
        with trial.begin_repeat(index, repeats.seed_of(index)):
            returned = objective(dict(params))
        score = trial.score_of(returned)
        results.append(_numbers(returned))
        _keep([{**one, _LOGGED: logged} for one, logged in zip(results, trial.logged, strict=True)], folder)
        losses = [one["loss"] for one in results]
        trial.end_repeat(index, _mean_loss(losses, worst_of))
        trial.keep({REPEATS: len(results), REPEATS_STD: _spread(losses), REPEATS_WORST: worst_of(losses)})
        if index == 0 and repeats.bar is not None and worst_of(score, repeats.bar) != repeats.bar:
            raise TrialPruned(
                f"its first repeat, {score:.6g}, is worse than the worst repeat of the best trial, {repeats.bar:.6g}"
            )
    further = [name for name in results[-1] if name not in RESULT_KEYS and all(name in one for one in results)]
    spreads = {f"{name}_std": _spread([one[name] for one in results]) for name in further}
    trial.keep({name: spread for name, spread in spreads.items() if can_name(name)})  # one of 100 characters has none
    means = {name: mean([one[name] for one in results]) for name in further}
    return {**results[-1], **means, "loss": _mean_loss([one["loss"] for one in results], worst_of)}


def mean(numbers: Sequence[float]) -> float:
    """The mean, also where the sum is beyond a double; NaN with infinities of both signs."""
    infinite = [number for number in numbers if not math.isfinite(number)]
    if infinite:
        return sum(infinite)
    try:
        return statistics.fmean(numbers)
    except OverflowError:
        share = 0.5 ** len(numbers).bit_length()  # a power of two, so that nothing is rounded
        return statistics.fmean(number * share for number in numbers) / share


def _mean_loss(losses: Sequence[float], worst_of: Callable[[Sequence[float]], float]) -> float:
    """With infinities of both signs the worst one: NaN is no loss."""
    average = mean(losses)
    return worst_of(losses) if math.isnan(average) else average


def _spread(numbers: Sequence[float]) -> float:
    """The standard deviation; infinite with a number that is, and where a square is beyond a double."""
    try:
        return statistics.pstdev(numbers) if all(map(math.isfinite, numbers)) else math.inf
    except OverflowError:
        return math.inf


def _numbers(returned: object) -> dict[str, Any]:
    """A result that was scored before, as plain numbers. Its size is the model's, which repeats share."""
    loss, count = result(returned)
    size = {} if count is None else {"params": count.total, "active_params": count.active}
    return {"loss": loss, **{name: value for name, value in size.items() if value}, **further_numbers(returned)[0]}


def _results_in(folder: Path | None) -> list[dict[str, Any]]:
    """Of the repeats that an earlier attempt has finished."""
    if folder is None:
        return []
    try:
        found = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
        return [{"loss": float(one["loss"]), **one} for one in found]
    except (OSError, ValueError, TypeError, KeyError):  # the objective may write there too
        return []


def _keep(results: Sequence[Mapping[str, Any]], folder: Path | None) -> None:
    """What cannot be written costs a retry the repeat, and not the trial."""
    if folder is None:
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / f"{_RESULTS}.new"
        written.write_text(json.dumps(results), encoding="utf-8")
        written.replace(folder / _RESULTS)
