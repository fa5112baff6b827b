"""The benchmark of pruning: a virtual clock over recorded curves, the same decisions as a study's."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import curves as recorded
from benchmarks import pruning
from benchmarks.curves import Curve, Problem, point_key

PROBLEM = Problem(
    name="made-up",
    space={"x": ["int", 0, 9]},
    values={"x": list(range(10))},
    settings={"EPOCHS": 4},
    arguments=lambda point: dict(point),
)
# The smaller x the better, at each epoch; a trial takes a second to start and one for each epoch.
CURVES = {
    point_key({"x": x}): Curve(
        params={"x": x}, values=[x + 4.0 - epoch for epoch in range(4)], seconds=[2.0, 3.0, 4.0, 5.0]
    )
    for x in range(10)
}
OPTIONS = argparse.Namespace(sampler="order", trials=40)


def ordered(*points: int) -> pruning.Order:
    return itertools.cycle({"x": x} for x in points)


def test_time_goes_by_what_trials_took() -> None:
    search = pruning.own_search(PROBLEM, "random", "none", 0, trials=40, order=ordered(5, 3, 0))
    one = pruning.run(search, CURVES, workers=1, trials=40, target=1.0)
    assert (one.reached, one.seconds, one.trials, one.epochs, one.best) == (True, 15.0, 3, 12, 1.0)
    search = pruning.own_search(PROBLEM, "random", "none", 0, trials=40, order=ordered(5, 3, 0))
    three = pruning.run(search, CURVES, workers=3, trials=40, target=1.0)
    assert (three.seconds, three.trials) == (5.0, 5), "two have ended at the same moment"
    never = pruning.run(
        pruning.own_search(PROBLEM, "random", "none", 0, trials=4), CURVES, workers=2, trials=4, target=0.0
    )
    assert (never.reached, never.trials, never.epochs) == (False, 4, 16)


@pytest.mark.parametrize("entry", ["asha", "optuna", "optuna-asha"])
def test_pruned_trials_cost_what_they_took_until_then(entry: str) -> None:
    points = (0, *range(1, 10))
    search = (
        pruning.optuna_search(PROBLEM, pruning.OPTUNA_PRUNERS[entry](), 0, ordered(*points))
        if entry in pruning.OPTUNA_PRUNERS
        else pruning.own_search(PROBLEM, "random", entry, 0, trials=10, order=ordered(*points))
    )
    found = pruning.run(search, CURVES, workers=1, trials=10, target=-1.0)
    assert found.trials == 10 and found.epochs < 40 and found.seconds < 50.0


def test_curves_with_another_start_and_another_length() -> None:
    shorter = pruning.cut_after(CURVES, 2)[point_key({"x": 3})]
    assert (shorter.values, shorter.seconds) == ([7.0, 6.0], [2.0, 3.0])
    for share, start in ((0.5, 4.0), (0.2, 1.0)):
        curve = pruning.with_start_share(CURVES, share)[point_key({"x": 3})]
        assert curve.seconds == pytest.approx([start + 1, start + 2, start + 3, start + 4])


def test_the_target_is_what_other_seeds_find_without_pruning() -> None:
    options = argparse.Namespace(sampler="order", trials=40, target_trials=10)
    assert pruning.target_of(PROBLEM, CURVES, options) == 1.0, "ten trials in order are all points"
    options.target_trials = 1
    assert 1.0 < pruning.target_of(PROBLEM, CURVES, options) < math.inf


def test_curves_that_were_not_recorded_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["pruning", "digits"])
    assert pruning.main() == 1
    assert "88 curves are missing: python -m benchmarks.curves digits" in capsys.readouterr().err


def test_each_problem_is_trained_by_its_own_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "ROOT", tmp_path)
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(
        recorded, "_trained", lambda example, _, point: Curve(params=point, values=[example.LOSS], seconds=[])
    )
    monkeypatch.delitem(sys.modules, "objective", raising=False)
    for loss, name in enumerate(("first", "second")):
        example = tmp_path / "examples" / name / "objective.py"
        example.parent.mkdir(parents=True)
        example.write_text(f"LOSS = {loss}\n")
        recorded.record(replace(PROBLEM, name=name), math.inf)
        assert {curve.values[0] for curve in recorded.recorded_curves(name).values()} == {loss}
    del sys.modules["objective"]
