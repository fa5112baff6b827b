"""The comparison of samplers: goes on where it was cut off, and compares only what all entries have answered."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.peers.samplers import of_one_type
from benchmarks.quality_report import Key, Run, as_table, ranks, report


def test_equal_losses_share_their_ranks() -> None:
    assert ranks([3.0, 1.0, 1.0, 2.0]) == [4.0, 1.5, 1.5, 3.0]


def test_entries_are_compared_where_all_of_them_have_answered() -> None:
    def found(loss: float) -> Run:
        return Run(losses={50: loss, 100: loss}, repeats=0, cpu_s=0.0)

    one, two = (Key(question="sphere:5", workers=1, seed=seed) for seed in (0, 1))
    runs = {("a", one): found(1.0), ("b", one): found(2.0), ("a", two): found(9.0)}
    table = report(runs, ["a", "b"])
    assert table["mean_rank"]["1 workers, 100 trials"] == {"a": 1.0, "b": 2.0}
    assert table["studies"] == {"1 workers": {"sphere:5": 1}}


def test_distances_to_the_first_entry_have_standard_errors_over_seeds_and_over_questions() -> None:
    runs: dict[tuple[str, Key], Run] = {}
    for question, losses in {"sphere:5": (1.0, 3.0, 3.0, 3.0), "levy:8": (3.0, 3.0, 3.0, 3.0)}.items():
        for seed, loss in enumerate(losses):
            key = Key(question=question, workers=1, seed=seed)
            runs["a", key] = Run(losses={50: 2.0, 100: 2.0}, repeats=0, cpu_s=0.0)
            runs["b", key] = Run(losses={50: loss, 100: loss}, repeats=0, cpu_s=0.0)
    table = report(runs, ["a", "b"])
    # Of two ranks b is behind by -1, 1, 1, 1 and by 1, 1, 1, 1.
    found = table["behind"]["1 workers, 50 trials"]
    assert found == {"b": {"difference": 0.75, "error_over_seeds": 0.25, "error_over_questions": 0.25}}
    assert "+0.75 (0.25, 0.25)" in as_table(table, ["a", "b"])
    one_seed = {pair: run for pair, run in runs.items() if pair[1].seed == 0}
    assert report(one_seed, ["a", "b"])["behind"]["1 workers, 50 trials"] == {}, "no error from one seed"


def test_a_comparison_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "runs.jsonl"
    monkeypatch.setattr(
        sys,
        "argv",
        f"quality --questions sphere:5 --workers 2 --seeds 2 --entries random tpe --resume {kept}".split(),
    )
    quality.main()
    whole = kept.read_text().splitlines()
    assert len(whole) == 4
    kept.write_text("\n".join(whole[:3]) + "\n" + whole[3][:40])
    quality.main()
    again = kept.read_text().splitlines()
    assert again[:3] == whole[:3], "not run again"
    assert len(again) == 4 and json.loads(again[3])["losses"] == json.loads(whole[3])["losses"]


def test_numbers_of_two_types_become_floats_for_syne_tune() -> None:
    found = of_one_type([0.1, 1])
    assert found == [0.1, 1.0]
    assert {type(one) for one in found} == {float}
    assert [type(one) for one in of_one_type([16, 32])] == [int, int]
    assert of_one_type(["relu", "tanh"]) == ["relu", "tanh"]
