"""The figures of `benchmarks.quality`: mean ranks by workers and budget, over all questions and by question. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    table: dict[str, Any] = {"mean_rank": {}, "by_question": {}, "behind": {}, "repeats": {}, "studies": {}}
    for workers in sorted({key.workers for key in full}):
        asked = {key: found for key, found in full.items() if key.workers == workers}
        names = dict.fromkeys(key.question for key in asked)
        table["studies"][f"{workers} workers"] = {name: sum(key.question == name for key in asked) for name in names}
        for budget in BUDGETS:
            column = f"{workers} workers, {budget} trials"
            ranked = {name: _ranked(asked, entries, name, budget) for name in names}
            means = np.array([of_seeds.mean(axis=0) for of_seeds in ranked.values()])
            table["by_question"][column] = {
                name: _by_entry(entries, of_question) for name, of_question in zip(names, means, strict=True)
            }
            table["mean_rank"][column] = _by_entry(entries, means.mean(axis=0))
            table["behind"][column] = _behind(list(ranked.values()), entries)
        finite = [found for key, found in asked.items() if key.question.split(":")[0] in _FINITE]
        table["repeats"][f"{workers} workers"] = {
            entry: round(float(np.mean([found[entry].repeats for found in finite] or [0])), 2) for entry in entries
        }
    return table


def _ranked(asked: Mapping[Key, Mapping[str, Run]], entries: Sequence[str], name: str, budget: int) -> NDArray[Any]:
    """The ranks in one question: a row for each seed, a column for each entry."""
    of_question = [found for key, found in asked.items() if key.question == name]
    return np.array([ranks([found[entry].losses[budget] for entry in entries]) for found in of_question])


def _by_entry(entries: Sequence[str], figures: NDArray[Any]) -> dict[str, float]:
    return dict(zip(entries, figures.round(3).tolist(), strict=True))


def _behind(ranked: Sequence[NDArray[Any]], entries: Sequence[str]) -> dict[str, dict[str, float]]:
    """How far each entry is behind the first, with standard errors; nothing while a question has one seed only.

    Over seeds: what other seeds of the same, independent questions would change. Over questions: what others would.
    """
    if min(len(ranked), *map(len, ranked)) < 2:
        return {}
    gaps = [of_seeds[:, 1:] - of_seeds[:, :1] for of_seeds in ranked]
    means = np.array([gap.mean(axis=0) for gap in gaps])
    over_seeds = np.sqrt(sum(gap.var(axis=0, ddof=1) / len(gap) for gap in gaps)) / len(gaps)
    over_questions = means.std(axis=0, ddof=1) / np.sqrt(len(gaps))
    figures = np.array([means.mean(axis=0), over_seeds, over_questions]).round(3).T.tolist()
    names = ("difference", "error_over_seeds", "error_over_questions")
    return {entry: dict(zip(names, row, strict=True)) for entry, row in zip(entries[1:], figures, strict=True)}


def as_table(table: Mapping[str, Any], entries: Sequence[str]) -> str:
    """The report as a table for people."""
    columns = [*table["mean_rank"], *(f"repeats, {workers}" for workers in table["repeats"])]
    lines = [f"{'mean rank':20s}" + "".join(f"{column:>24s}" for column in columns)]
    for entry in entries:
        figures = [column[entry] for column in (*table["mean_rank"].values(), *table["repeats"].values())]
        lines.append(f"{entry:20s}" + "".join(f"{figure:24.2f}" for figure in figures))
    for column, behind in table["behind"].items():
        lines += [f"behind {entries[0]}, {column} (standard errors over seeds, over questions)"] if behind else []
        for entry, found in behind.items():
            gap, over_seeds, over_questions = found.values()
            lines.append(f"{entry:20s}{gap:+24.2f} ({over_seeds:.2f}, {over_questions:.2f})")
    for workers, studies in table["studies"].items():
        lines.append(f"{workers}: {len(studies)} questions, {min(studies.values())} to {max(studies.values())} seeds")
    return "\n".join(lines)
