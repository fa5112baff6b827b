"""The figures of `benchmarks.quality`: mean ranks by workers and budget, over all questions and by question. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BUDGETS = (50, 100)
_FINITE = ("hpobench", "hpolib", "nasbench201")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One comparison: the question, the number of workers and the seed that all entries got."""

    question: str
    workers: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one entry found: the mean loss of its best trial after each budget, how many proposals it repeated, and the
    processor's seconds of the whole study in this process."""

    losses: Mapping[int, float]
    repeats: int
    cpu_s: float


def ranks(losses: Sequence[float]) -> list[float]:
    """Ranks of values, 1 for the smallest; equal values share the mean of their ranks."""
    return [sum(other < loss for other in losses) + (sum(other == loss for other in losses) + 1) / 2 for loss in losses]


def report(runs: Mapping[tuple[str, Key], Run], entries: Sequence[str]) -> dict[str, Any]:
    """Mean ranks over the comparisons that all entries have run. Each question has the same weight."""
    by_key: dict[Key, dict[str, Run]] = defaultdict(dict)
    for (entry, key), found in runs.items():
        by_key[key][entry] = found
    full = {key: found for key, found in by_key.items() if found.keys() >= set(entries)}
    table: dict[str, Any] = {"mean_rank": {}, "by_question": {}, "repeats": {}, "studies": {}}
    for workers in sorted({key.workers for key in full}):
        asked = {key: found for key, found in full.items() if key.workers == workers}
        names = dict.fromkeys(key.question for key in asked)
        table["studies"][f"{workers} workers"] = {name: sum(key.question == name for key in asked) for name in names}
        for budget in BUDGETS:
            column = f"{workers} workers, {budget} trials"
            by_question = {name: _mean_ranks(asked, entries, name, budget) for name in names}
            table["by_question"][column] = by_question
            table["mean_rank"][column] = {
                entry: round(float(np.mean([found[entry] for found in by_question.values()])), 3) for entry in entries
            }
        finite = [found for key, found in asked.items() if key.question.split(":")[0] in _FINITE]
        table["repeats"][f"{workers} workers"] = {
            entry: round(float(np.mean([found[entry].repeats for found in finite] or [0])), 2) for entry in entries
        }
    return table


def _mean_ranks(asked: Mapping[Key, Mapping[str, Run]], entries: Sequence[str], name: str, budget: int) -> Any:
    ranked = [
        ranks([found[entry].losses[budget] for entry in entries])
        for key, found in asked.items()
        if key.question == name
    ]
    return dict(zip(entries, np.mean(ranked, axis=0).round(3).tolist(), strict=True))


def as_table(table: Mapping[str, Any], entries: Sequence[str]) -> str:
    """The report as a table for people."""
    columns = [*table["mean_rank"], *(f"repeats, {workers}" for workers in table["repeats"])]
    lines = [f"{'mean rank':20s}" + "".join(f"{column:>24s}" for column in columns)]
    for entry in entries:
        figures = [column[entry] for column in (*table["mean_rank"].values(), *table["repeats"].values())]
        lines.append(f"{entry:20s}" + "".join(f"{figure:24.2f}" for figure in figures))
    for workers, studies in table["studies"].items():
        lines.append(f"{workers}: {len(studies)} questions, {min(studies.values())} to {max(studies.values())} seeds")
    return "\n".join(lines)
