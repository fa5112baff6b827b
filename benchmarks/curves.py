"""Learning curves of the examples, recorded once: `python -m benchmarks.curves digits language_model`.

Each point of a finite space is trained to its end, by the example's own code; what it reports, and after how many
seconds of the processor since the trial began, is a line of build/curves/NAME.jsonl. What is there is not trained
again. `benchmarks.pruning` then runs studies on these curves: what a trial reports is known, so that any pruner, seed
and number of workers costs nothing, and all of them meet the same trainings.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highnoon.shared.objective.trial_context import bound

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "curves"

Point = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What the training of a point reported, and the seconds from the trial's begin to each report."""

    params: dict[str, Any]
    values: list[float]
    seconds: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A finite space in the grammar of study files, its points by parameter, and how an example trains one of them."""

    name: str
    space: Mapping[str, list[Any]]
    values: Mapping[str, Sequence[Any]]
    settings: Mapping[str, Any]
    """What is set in the example's module: it is trained longer than where it is shown."""
    arguments: Callable[[Point], dict[str, Any]]

    def points(self) -> list[dict[str, Any]]:
        """Every combination, in an order in which any first part of them is a fair sample."""
        found = [dict(zip(self.values, chosen, strict=True)) for chosen in itertools.product(*self.values.values())]
        random.Random(0).shuffle(found)  # noqa: S311 - an order, no secret
        return found


PROBLEMS: dict[str, Problem] = {
    "digits": Problem(
        name="digits",
        space={
            "log10_learning_rate": ["uniform", -5.0, 0.0, 0.5],
            "filters": ["int", 4, 24, 20],
            "dropout": ["uniform", 0.0, 0.5, 0.5],
            "batch_size": ["categorical", [32, 128]],
        },
        values={
            "log10_learning_rate": [-5.0 + step / 2 for step in range(11)],
            "filters": [4, 24],
            "dropout": [0.0, 0.5],
            "batch_size": [32, 128],
        },
        settings={"EPOCHS": 27},
        arguments=lambda point: {
            "learning_rate": 10 ** point["log10_learning_rate"],
            "filters": point["filters"],
            "dropout": point["dropout"],
            "batch_size": point["batch_size"],
            "units": 64,
            "l2": 1e-5,
            "optimizer": "adam",
        },
    ),
    "language_model": Problem(
        name="language_model",
        space={
            "log10_learning_rate": ["uniform", -4.5, -1.0, 0.5],
            "embedding_dim": ["int", 16, 32, 16],
            "dropout": ["uniform", 0.0, 0.2, 0.2],
            "batch_size": ["categorical", [16, 32]],
        },
        values={
            "log10_learning_rate": [-4.5 + step / 2 for step in range(8)],
            "embedding_dim": [16, 32],
            "dropout": [0.0, 0.2],
            "batch_size": [16, 32],
        },
        # 200 kB of text in a trial, as in the example, in smaller parts: the same training reports more often.
        settings={"EPOCHS": 27, "BYTES_PER_EPOCH": 7424, "SEQUENCE": 64, "HELD_OUT_SHARE": 0.02},
        arguments=lambda point: {
            "learning_rate": 10 ** point["log10_learning_rate"],
            "embedding_dim": point["embedding_dim"],
            "batch_size": point["batch_size"],
            "num_reasoning_blocks": 1,
            "num_moe_experts": 2,
            "top_k_experts": 1,
            "dropout_rate": point["dropout"],
        },
    ),
}


def recorded_curves(name: str) -> dict[str, Curve]:
    """The recorded curves of a problem, by `point_key`; {} before the first recording."""
    path = FOLDER / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Curve(**json.loads(line)) for line in lines]
    return {point_key(curve.params): curve for curve in found}


def point_key(point: Point) -> str:
    """A point as text, the same for equal points."""
    return json.dumps({name: point[name] for name in sorted(point)})


def with_start_share(known: Mapping[str, Curve], share: float) -> dict[str, Curve]:
    """The same trainings after a start that takes this share of a whole trial, in the median."""

    def start_of(curve: Curve) -> float:
        epoch = (curve.seconds[-1] - curve.seconds[0]) / (len(curve.seconds) - 1)
        return max(curve.seconds[0] - epoch, 0.0)

    starts = statistics.median(start_of(curve) for curve in known.values())
    trainings = statistics.median(curve.seconds[-1] - start_of(curve) for curve in known.values())
    factor = share / (1 - share) * trainings / starts
    return {
        one: Curve(
            params=curve.params,
            values=curve.values,
            seconds=[at + (factor - 1) * start_of(curve) for at in curve.seconds],
        )
        for one, curve in known.items()
    }


def cut_after(known: dict[str, Curve], epochs: int) -> dict[str, Curve]:
    """The same trainings, ended after so many epochs."""
    return {
        one: Curve(params=curve.params, values=curve.values[:epochs], seconds=curve.seconds[:epochs])
        for one, curve in known.items()
    }


def record(problem: Problem, at_most_s: float) -> None:
    """Trains the points without a recorded curve and appends their curves; ends early after so many seconds."""
    sys.path.insert(0, str(ROOT / "examples" / problem.name))
    sys.modules.pop("objective", None)  # of the problem before, by the same name
    example: Any = importlib.import_module("objective")
    for name, value in problem.settings.items():
        setattr(example, name, value)
    known = recorded_curves(problem.name)
    missing = [point for point in problem.points() if point_key(point) not in known]
    began_s = time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{problem.name}.jsonl").open("a") as file:
        if missing:
            _trained(example, problem, missing[0])  # the first training in a process pays for the library's own start
        for number, point in enumerate(missing):
            curve = _trained(example, problem, point)
            line = {"params": curve.params, "values": curve.values, "seconds": curve.seconds}
            file.write(json.dumps(line) + "\n")
            file.flush()
            spent_s = time.monotonic() - began_s
            print(f"{spent_s:6.0f} s  {number + 1} of {len(missing)}  {point}", file=sys.stderr, flush=True)
            if spent_s > at_most_s:
                return


def _trained(example: Any, problem: Problem, point: Point) -> Curve:
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    recorder = _Recorder()
    with bound(recorder):
        example.train(problem.arguments(point))
    return Curve(params=dict(point), values=recorder.values, seconds=recorder.seconds)


class _Recorder:
    """The channel of a trial: records reports and their times, never prunes."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.seconds: list[float] = []
        self._began_s = time.process_time()

    def report(self, value: float, step: int) -> None:
        self.values.append(float(value))
        self.seconds.append(round(time.process_time() - self._began_s, 4))

    def should_prune(self) -> bool:
        return False

    def report_params(self, total: int, active: int | None = None) -> None:
        """Ignored."""

    def set_constraint(self, name: str, miss: float) -> None:
        """Ignored."""

    def log(self, metrics: Mapping[str, object], step: object = None) -> None:
        """Ignored."""

    def save_artifact(self, path: object, name: object = None) -> None:
        """Ignored."""

    def checkpoint_saved(self) -> None:
        """Ignored."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="+", choices=PROBLEMS)
    parser.add_argument("--at-most-s", type=float, default=float("inf"), help="of each problem; then call it again")
    options = parser.parse_args()
    for name in options.problems:
        record(PROBLEMS[name], options.at_most_s)


if __name__ == "__main__":
    main()
