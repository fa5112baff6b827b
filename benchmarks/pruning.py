"""Does pruning pay? `python -m benchmarks.pruning digits`: seconds until a study reaches a fixed loss, by pruner.

Studies run on recorded learning curves (`python -m benchmarks.curves digits`, first) on a virtual clock: a report comes
after as many seconds of the processor as it took when the point was trained, the start of the trial included, and a
worker that becomes free begins the next trial at once. Everything else is as it is: our entries sample, report and
prune through the path of `HPOTrialManager`, and Optuna's through its own ask and tell, as `study.optimize` does.

    none, asha, ...   our sampler (`--sampler`) with this pruner and nothing configured
    optuna            Optuna's TPE with its MedianPruner, both as they come
    optuna-asha       the same with its SuccessiveHalvingPruner
    oracle            none, but of all trials after the first those that will not reach the target end at their first
                      report: what no pruner can do better

With `--sampler order` no sampler takes part: all entries try the recorded points in the same order, one for each seed.
With `--start-share 0.1` the start of a trial (imports are none of it; building, tracing, data) takes a tenth of a whole
one, in the place of what it took when it was measured.

The target is fixed before anything is compared: the median of what 20 studies without pruning, of other seeds, have
found after `--target-trials` trials. A study ends when a trial reports it. The figures are the same on a busy machine.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler

from benchmarks.curves import PROBLEMS, Curve, Problem, cut_after, point_key, recorded_curves, with_start_share
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Params, Report
from highnoon.shared.search.samplers import distributions
from highnoon.shared.store.optuna_store import OptunaStore

OTHER_SEEDS = range(1000, 1020)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A study as three functions that a worker calls. What identifies a trial is for the study alone."""

    start: Callable[[int], tuple[Any, Params]]
    prunes: Callable[[Any, float, int], bool]
    """Reports the value of a step; returns whether the trial is pruned."""
    finish: Callable[[Any, float | None, int], None]
    """With its loss and how many steps it took; without one when it was pruned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a study took until it reached the target, or until its last trial ended."""

    reached: bool
    seconds: float
    trials: int
    epochs: int
    best: float


Order = Iterator[Params]


def own_search(
    problem: Problem, sampler: str, pruner: Any, seed: int, *, trials: int, order: Order | None = None
) -> Search:
    """A study of HighNoon, driven as one that runs in process."""
    store = OptunaStore(None)
    question = {"name": "q", "objective": "m:f", "search_space": dict(problem.space), "n_trials": trials}
    spec = StudySpec.from_json({**question, "sampler": "random" if order else sampler, "pruner": pruner, "seed": seed})
    store.create_study("q", "minimize")
    study = store.open(spec)

    def start(ordinal: int) -> tuple[int, Params]:
        if order is not None:
            study.enqueue(next(order))
        started = study.start_trial(ordinal=ordinal)
        return started.trial_id, started.params

    def prunes(trial: int, value: float, step: int) -> bool:
        study.report_many(trial, [Report(step=step, value=value)])
        return study.should_prune(trial)

    def finish(trial: int, loss: float | None, _: int) -> None:
        ending = Ending.PRUNED if loss is None else Ending.COMPLETED
        study.finish_trial(trial, Outcome(ending=ending, value=loss))

    return Search(start=start, prunes=prunes, finish=finish)


def optuna_search(problem: Problem, pruner: BasePruner, seed: int, order: Order | None = None) -> Search:
    """A study of Optuna, driven as `study.optimize` does, with its default sampler."""
    study = optuna.create_study(sampler=TPESampler(seed=seed), pruner=pruner)
    space = distributions(parse_space(dict(problem.space)))

    def start(_: int) -> tuple[optuna.Trial, Params]:
        if order is not None:
            study.enqueue_trial(dict(next(order)))
        trial = study.ask(space)
        return trial, trial.params

    def prunes(trial: optuna.Trial, value: float, step: int) -> bool:
        trial.report(value, step)
        return trial.should_prune()

    def finish(trial: optuna.Trial, loss: float | None, _: int) -> None:
        if loss is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, loss)

    return Search(start=start, prunes=prunes, finish=finish)


def with_foresight(search: Search, known: Mapping[str, Curve], target: float) -> Search:
    """The same study; each trial but the first that will not reach the target is pruned at its first report."""
    goes_on: dict[Any, bool] = {}

    def start(ordinal: int) -> tuple[Any, Params]:
        handle, params = search.start(ordinal)
        goes_on[handle] = not goes_on or min(known[point_key(params)].values) <= target
        return handle, params

    def prunes(handle: Any, value: float, step: int) -> bool:
        search.prunes(handle, value, step)
        return not goes_on[handle]

    return Search(start=start, prunes=prunes, finish=search.finish)


def run(search: Search, known: Mapping[str, Curve], *, workers: int, trials: int, target: float) -> Run:
    """Runs one study on the virtual clock until a trial reports the target, or all trials have ended."""
    due: list[tuple[float, int, int, float, Any, Curve]] = []
    begun = epochs = 0
    best = math.inf

    def begin(now_s: float) -> None:
        nonlocal begun
        handle, params = search.start(begun)
        curve = known[point_key(params)]
        heapq.heappush(due, (now_s + curve.seconds[0], begun, 0, now_s, handle, curve))
        begun += 1

    for _ in range(min(workers, trials)):
        begin(0.0)
    now_s = 0.0
    while due and best > target:
        now_s, number, step, began_s, handle, curve = heapq.heappop(due)
        value = curve.values[step]
        epochs, best = epochs + 1, min(best, value)
        if search.prunes(handle, value, step):
            search.finish(handle, None, step)
        elif step + 1 < len(curve.values):
            heapq.heappush(due, (began_s + curve.seconds[step + 1], number, step + 1, began_s, handle, curve))
            continue
        else:
            search.finish(handle, min(curve.values), step)
        if begun < trials and best > target:
            begin(now_s)
    return Run(reached=best <= target, seconds=now_s, trials=begun, epochs=epochs, best=best)


def shuffled_points(known: Mapping[str, Curve], seed: int) -> Order:
    """The recorded points in random order, without end; each of them once before the next repeats."""
    points = [curve.params for curve in known.values()]
    shuffle = random.Random(seed).shuffle  # noqa: S311 - an order, no secret
    while True:
        shuffle(points)
        yield from points


ENTRIES: dict[str, Any] = {
    "none": "none",
    "asha": "asha",
    "median": "median",
    "hyperband": "hyperband",
}
OPTUNA_PRUNERS: Mapping[str, Callable[[], BasePruner]] = {
    "optuna": MedianPruner,
    "optuna-asha": SuccessiveHalvingPruner,
}


def search_of(
    entry: str, problem: Problem, known: Mapping[str, Curve], options: argparse.Namespace, seed: int, target: float
) -> Search:
    """One of the entries, or a pruner as JSON: {"name": "asha", "reduction_factor": 4}."""
    if entry == "oracle":
        return with_foresight(search_of("none", problem, known, options, seed, target), known, target)
    order = shuffled_points(known, seed) if options.sampler == "order" else None
    if entry in OPTUNA_PRUNERS:
        return optuna_search(problem, OPTUNA_PRUNERS[entry](), seed, order)
    pruner = ENTRIES[entry] if entry in ENTRIES else json.loads(entry)
    return own_search(problem, options.sampler, pruner, seed, trials=options.trials, order=order)


def target_of(problem: Problem, known: Mapping[str, Curve], options: argparse.Namespace) -> float:
    """The median of the best losses that studies without pruning find in `--target-trials` trials."""
    found = []
    for seed in OTHER_SEEDS:
        search = search_of("none", problem, known, options, seed, -math.inf)
        found.append(run(search, known, workers=1, trials=options.target_trials, target=-math.inf).best)
    return statistics.median(found)


def main() -> int:
    options = _options()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = PROBLEMS[options.problem]
    recorded = recorded_curves(options.problem)
    missing = sum(point_key(point) not in recorded for point in problem.points())
    if missing and (options.sampler != "order" or not recorded):
        print(f"{missing} curves are missing: python -m benchmarks.curves {options.problem}", file=sys.stderr)
        return 1
    known = cut_after(recorded, options.epochs or problem.settings["EPOCHS"])
    if options.start_share is not None:
        known = with_start_share(known, options.start_share)
    target = target_of(problem, known, options) if options.target is None else options.target
    first = statistics.median(curve.seconds[0] for curve in known.values())
    whole = statistics.median(curve.seconds[-1] for curve in known.values())
    print(f"{len(known)} points; in the median {whole:.2f} s a trial, {first:.2f} s until its first report")
    reach = sum(min(curve.values) <= target for curve in known.values())
    print(f"target {target:.4f}, which {reach} of them reach", flush=True)
    lines = []
    for workers in options.workers:
        found: dict[str, list[Run]] = {}
        for entry in options.entries:
            found[entry] = [
                run(
                    search_of(entry, problem, known, options, seed, target),
                    known,
                    workers=workers,
                    trials=options.trials,
                    target=target,
                )
                for seed in range(options.first_seed, options.first_seed + options.seeds)
            ]
            lines += [{"workers": workers, "entry": entry, **asdict(one)} for one in found[entry]]
        _show(workers, found)
    if options.json:
        options.json.write_text(json.dumps({"target": target, "runs": lines}, indent=1))
    return 0


def _show(workers: int, found: Mapping[str, Sequence[Run]]) -> None:
    print(f"\n{f'{workers} workers, medians':24s}" + "".join(f"{column:>10s}" for column in _COLUMNS) + "   reached")
    for entry, runs in found.items():
        figures = [statistics.median(getattr(one, column) for one in runs) for column in _COLUMNS]
        print(
            f"{entry:24s}"
            + "".join(f"{figure:10.1f}" for figure in figures)
            + f"{f'{sum(one.reached for one in runs)}/{len(runs)}':>10s}"
        )


_COLUMNS = ("seconds", "trials", "epochs")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--trials", type=int, default=300, help="of a study that does not reach the target")
    parser.add_argument("--epochs", type=int, help="of a whole trial, where they are to be fewer than were recorded")
    parser.add_argument("--target", type=float, help="in the place of the one that is found")
    parser.add_argument("--target-trials", type=int, default=15)
    parser.add_argument("--sampler", default="tpe", help="of ours, or order")
    parser.add_argument("--start-share", type=float, help="of a whole trial, in the place of what was measured")
    parser.add_argument("--entries", nargs="+", default=[*ENTRIES, *OPTUNA_PRUNERS, "oracle"])
    parser.add_argument("--json", type=Path, help="where to write all runs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
