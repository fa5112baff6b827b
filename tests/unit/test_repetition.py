"""The repeats of a point: a seed each, the mean as the value, and an early end after a bad first one."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from highnoon import current_trial as hn
from highnoon.shared.domain.errors import NoTrialRunning
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import Ending
from highnoon.shared.objective.attempt import Objective, run_attempt
from highnoon.shared.objective.repetition import Repeats
from tests.unit.test_execution import RecordingChannel


def attempt(
    objective: Objective, repeats: Repeats, channel: RecordingChannel | None = None, **options: Any
) -> tuple[Any, RecordingChannel]:
    heard = channel or RecordingChannel()
    return run_attempt(objective, {"x": 1.0}, heard, repeats=repeats, **options), heard


def returning(*results: object) -> Objective:
    left = iter(results)
    return lambda params: next(left)


def test_the_value_is_the_mean_and_the_spread_is_kept() -> None:
    outcome, heard = attempt(returning(1.0, 2.0, 6.0), Repeats(count=3))
    assert (outcome.ending, outcome.value, outcome.loss) == (Ending.COMPLETED, 3.0, 3.0)
    assert outcome.metrics == {"repeats": 3, "repeats_std": pytest.approx(math.sqrt(14 / 3)), "repeats_worst": 6.0}
    assert heard.heard == [(1.0, 0), (1.5, 1), (3.0, 2)], "the mean so far, of an objective that reports nothing"


def test_each_repeat_has_a_seed_and_the_generators_are_seeded_with_it() -> None:
    drawn: list[tuple[int, float]] = []

    def objective(params: dict[str, Any]) -> float:
        drawn.append((hn.trial_seed(), random.random()))
        return 1.0

    attempt(objective, Repeats(count=3, seed=7))
    assert len({seed for seed, _ in drawn}) == len({number for _, number in drawn}) == 3
    assert drawn[0][0] == 7, "the first repeat is what the trial is without repeats"
    before = list(drawn)
    drawn.clear()
    attempt(objective, Repeats(count=3, seed=7))
    assert drawn == before


def test_only_the_first_repeat_reports_and_is_pruned() -> None:
    asked: list[bool] = []

    def objective(params: dict[str, Any]) -> float:
        hn.report(0.5, 0)
        asked.append(hn.should_prune())
        return 0.5

    outcome, heard = attempt(objective, Repeats(count=3), RecordingChannel(prunes=True))
    assert (heard.heard, heard.progressed) == ([(0.5, 0)], 2)
    assert asked == [True, False, False]
    assert outcome.ending is Ending.COMPLETED


@pytest.mark.parametrize(
    ("direction", "first", "bar", "ends"),
    [
        ("minimize", 2.0, 1.5, True),
        ("minimize", 1.5, 1.5, False),
        ("minimize", math.inf, 1.5, True),
        ("maximize", 1.0, 1.5, True),
        ("maximize", 2.0, 1.5, False),
    ],
)
def test_a_first_repeat_beyond_the_bar_ends_the_point(direction: Any, first: float, bar: float, ends: bool) -> None:
    scoring = Scoring(direction=direction)
    outcome, _ = attempt(returning(first, first), Repeats(count=2, bar=bar), scoring=scoring)
    assert (outcome.ending is Ending.PRUNED, outcome.metrics["repeats"]) == (ends, 1 if ends else 2)
    if ends:
        assert outcome.value == first
        assert outcome.message == f"its first repeat, {first:g}, is worse than the worst repeat of the best trial, 1.5"


def test_sizes_and_further_numbers_are_kept_and_averaged() -> None:
    results = ({"loss": 1.0, "params": 10, "ms": 2.0}, {"loss": 3.0, "params": 10, "ms": 4.0})
    outcome, _ = attempt(returning(*results), Repeats(count=2), scoring=Scoring(param_budget=100))
    assert outcome.value == pytest.approx(2.0 * (1 + 0.1 * 10 / 100))
    assert (outcome.params_count, outcome.metrics["ms"], outcome.metrics["ms_std"]) == (10, 3.0, 1.0)


def test_a_result_that_is_none_fails_in_the_repeat_that_returned_it() -> None:
    outcome, _ = attempt(returning(1.0, "no number", 2.0), Repeats(count=3))
    assert (outcome.ending, outcome.cause, outcome.metrics["repeats"]) == (Ending.FAILED, "invalid_result", 1)


def test_a_retry_goes_on_after_the_repeats_that_are_finished(tmp_path: Path) -> None:
    seeds: list[int] = []

    def objective(params: dict[str, Any]) -> float:
        seeds.append(hn.trial_seed())
        (hn.checkpoint_dir() / "weights").touch(exist_ok=False)  # no repeat finds what another one saved
        if len(seeds) == 2:
            raise KeyboardInterrupt  # as a killed process would end here
        return float(len(seeds))

    with pytest.raises(KeyboardInterrupt):
        attempt(objective, Repeats(count=2, seed=3), checkpoints=tmp_path)
    (tmp_path / "repeat-2" / "weights").unlink()
    outcome, _ = attempt(objective, Repeats(count=2, seed=3), checkpoints=tmp_path)
    assert (outcome.value, len(seeds)) == (2.0, 3), "the mean of 1.0 and 3.0"
    assert seeds[2] == seeds[1], "the second repeat, a second time"
    (tmp_path / "repeats.json").write_text("no list")
    assert attempt(returning(1.0, 1.0), Repeats(count=2), checkpoints=tmp_path)[0].value == 1.0


def logging_seeds(params: dict[str, Any]) -> float:
    """Logs a metric at two steps, one of them in every second repeat only."""
    number = len(seen)
    seen.append(number)
    hn.log(0, accuracy=99.0)
    hn.log(1, accuracy=0.1 * number)
    if number % 2 == 0:
        hn.log(rare=float(number))
    return 1.0


seen: list[int] = []


def test_what_the_repeats_log_is_averaged() -> None:
    seen.clear()
    outcome, _ = attempt(logging_seeds, Repeats(count=3))
    assert outcome.metrics["accuracy"] == pytest.approx(0.1), "the mean of the last value of each repeat: 0, 0.1, 0.2"
    assert outcome.metrics["rare"] == 1.0, "over the repeats that have it: 0 and 2"
    assert outcome.metrics["repeats"] == 3

    # Also of those that an earlier attempt has finished
    assert attempt(logging_seeds, Repeats(count=1))[0].metrics["accuracy"] == pytest.approx(0.3)


def test_a_retry_averages_what_finished_repeats_have_logged(tmp_path: Path) -> None:
    def objective(params: dict[str, Any]) -> float:
        if len(seen) == 1 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise KeyboardInterrupt
        return logging_seeds(params)

    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        attempt(objective, Repeats(count=2), checkpoints=tmp_path)
    outcome, _ = attempt(objective, Repeats(count=2), checkpoints=tmp_path)
    assert seen == [0, 1] and outcome.metrics["accuracy"] == pytest.approx(0.05)


def test_metrics_of_repeats_that_are_not_finite_stay_so() -> None:
    def objective(params: dict[str, Any]) -> float:
        hn.log(worst=math.inf)
        return 1.0

    assert attempt(objective, Repeats(count=2))[0].metrics["worst"] == "inf"


def test_each_repeat_has_a_scratch_folder_that_ends_with_it() -> None:
    folders: list[Path] = []

    def objective(params: dict[str, Any]) -> float:
        assert not any(folder.exists() for folder in folders), "the folder of the repeat before is gone"
        assert hn.scratch_dir() == hn.scratch_dir()
        (hn.scratch_dir() / "file").write_text("x")
        folders.append(hn.scratch_dir())
        return 1.0

    attempt(objective, Repeats(count=2))
    attempt(objective, Repeats(count=1))
    assert len(set(folders)) == 3 and not any(folder.exists() for folder in folders)
    with pytest.raises(NoTrialRunning, match=r"scratch_dir\(\) may only be called inside an objective"):
        hn.scratch_dir()


@pytest.mark.parametrize(
    ("losses", "direction", "value"),
    [
        ((1e308, 1.5e308), "minimize", 1.25e308),
        ((sys.float_info.max,) * 3, "minimize", sys.float_info.max),
        ((math.inf, -math.inf), "minimize", math.inf),
        ((math.inf, -math.inf), "maximize", -math.inf),
    ],
)
def test_losses_of_any_size_have_a_mean(losses: tuple[float, ...], direction: Any, value: float) -> None:
    def objective(params: dict[str, Any]) -> dict[str, float]:
        loss = next(left)
        hn.log(logged=loss)
        return {"loss": loss, "returned": loss}

    left = iter(losses)
    outcome, _ = attempt(objective, Repeats(count=len(losses)), scoring=Scoring(direction=direction))
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, value)
    metric = value if math.isfinite(value) else "nan"
    assert (outcome.metrics["logged"], outcome.metrics["returned"]) == (metric, metric)
