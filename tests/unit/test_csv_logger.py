"""CSVLogger: each finished trial is one line, once, whatever is restarted, killed or shared."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.callbacks import CSVLogger
from highnoon.callbacks.csv_logger import _rows, _text
from highnoon.callbacks.finished_trial import _finished
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.lease import LostAttempt
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome, Report
from tests.loggers import log, study, with_one_trial_of_each_ending


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trials.csv"


def test_each_trial_is_a_line_with_all_its_results(path: Path) -> None:
    made = with_one_trial_of_each_ending()

    log(made, CSVLogger(path))

    complete, stopped, failed = rows_of(path)
    assert len(path.read_text().splitlines()) == 4
    assert [row["state"] for row in (complete, stopped, failed)] == ["COMPLETE", "PRUNED", "FAIL"]
    assert [row["trial"] for row in (complete, stopped, failed)] == ["0", "1", "2"]
    assert (complete["study"], complete["score"], complete["loss"]) == ("digits", "0.75", "0.5")
    assert (complete["model_params"], complete["active_params"], complete["cause"]) == ("1200", "600", "")
    assert json.loads(complete["reports"]) == [[0, 2.0], [1, 1.0]]
    assert (complete["param:rate"], complete["param:units"], complete["param:kind"]) == ("0.01", "3", "a")
    trial = made.trial(0)
    assert trial.started_at is not None
    assert complete["started_at"] == trial.started_at.isoformat()
    assert float(complete["duration_s"]) == trial.duration_s
    assert (stopped["cause"], stopped["message"], stopped["score"]) == ("memory_guard", "needs 3 GB", "")
    assert stopped["param:kind"] == 'b "c",\\nd'
    assert failed["message"] == "ValueError: line one\\nline two"
    assert (failed["param:kind"], failed["reports"], failed["other_params"]) == ("", "", "")


def test_trial_is_written_once_also_after_a_restart(path: Path) -> None:
    made = with_one_trial_of_each_ending()
    logger = CSVLogger(path)

    log(made, logger)
    once = path.read_bytes()
    log(made, logger)
    log(made, CSVLogger(path))

    assert path.read_bytes() == once


def test_restarted_study_in_memory_is_written_again(path: Path) -> None:
    log(with_one_trial_of_each_ending(), CSVLogger(path))
    log(with_one_trial_of_each_ending(), CSVLogger(path))

    assert [row["trial"] for row in rows_of(path)] == ["0", "1", "2"] * 2


def test_a_running_trial_is_not_written(path: Path) -> None:
    made = study()
    made.start_trial(ordinal=0)

    CSVLogger(path)(made.optuna_study, made.optuna_study.trials[0])

    assert not path.exists()


def test_parameters_of_later_trials_go_to_the_last_column(path: Path) -> None:
    logger = CSVLogger(path)
    log(with_one_trial_of_each_ending(), logger)
    other = study("other", search_space={"units": ["int", 1, 9], "heads": ["int", 1, 9]})
    asked = other.start_trial(ordinal=0, before=LostAttempt(params={"units": 2, "heads": 7}, trial_number=999))
    other.finish_trial(asked.trial_id, Outcome(ending=Ending.COMPLETED, value=float("inf"), loss=float("inf")))

    log(other, logger)

    last = rows_of(path)[-1]
    assert (last["study"], last["trial"], last["score"]) == ("other", "0", "inf")
    assert (last["param:rate"], last["param:units"]) == ("", "2")
    assert json.loads(last["other_params"]) == {"heads": 7}


@pytest.mark.parametrize(
    "cut",
    [lambda text: text.rindex(b"digits") + 9, lambda text: text.index(b"\n") - 5, lambda text: 3],
    ids=["in the last line", "in the heading", "in the first word"],
)
def test_partial_line_of_a_killed_process_is_replaced(path: Path, cut: Callable[[bytes], int]) -> None:
    made = with_one_trial_of_each_ending()
    log(made, CSVLogger(path))
    whole = path.read_bytes()
    os.truncate(path, cut(whole))

    log(made, CSVLogger(path))

    assert path.read_bytes() == whole


def test_file_with_a_trial_of_many_reports_is_continued(path: Path) -> None:
    long, later = study("long"), with_one_trial_of_each_ending()
    asked = long.start_trial(ordinal=0)
    long.report_many(asked.trial_id, [Report(step=step, value=1 / (step + 3)) for step in range(6000)])
    long.finish_trial(asked.trial_id, Outcome(ending=Ending.COMPLETED, value=0.5, loss=0.5))
    log(long, CSVLogger(path))
    assert max(map(len, path.read_text().splitlines())) > csv.field_size_limit()

    again = CSVLogger(path)
    log(long, again)
    log(later, again)

    assert len(path.read_text().splitlines()) == 1 + 1 + 3


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), min_size=1), max_size=9))
def test_fields_are_read_as_they_were_written(rows: list[list[str]]) -> None:
    assert list(_rows(_text(rows))) == rows


def test_two_loggers_share_a_file(path: Path) -> None:
    first, second = with_one_trial_of_each_ending("first"), with_one_trial_of_each_ending("second")
    ours, theirs = CSVLogger(path), CSVLogger(path)

    for one, other in zip(first.ended(), second.ended(), strict=True):
        ours(first.optuna_study, one)
        theirs(second.optuna_study, other)
        theirs(first.optuna_study, one)

    assert [row["study"] for row in rows_of(path)] == ["first", "second"] * 3


def test_removed_file_is_created_again(path: Path) -> None:
    made, logger = with_one_trial_of_each_ending(), CSVLogger(path)
    log(made, logger)
    once = path.read_bytes()
    path.unlink()

    log(made, logger)

    assert path.read_bytes() == once


def test_foreign_file_is_refused_and_kept(path: Path) -> None:
    path.write_text("name,age\nAda,36")

    with pytest.raises(InvalidInput, match="path: is not a table of trials: its first line names other columns"):
        CSVLogger(path)
    assert path.read_text() == "name,age\nAda,36"


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"there is no folder {tmp_path}/results"):
        CSVLogger(tmp_path / "results" / "trials.csv")


def test_several_objectives_have_a_column_each(path: Path) -> None:
    made = study("front", objectives={"loss": "minimize", "latency": "maximize"})
    for outcome in (
        Outcome(ending=Ending.FAILED, cause="exception"),
        Outcome(ending=Ending.COMPLETED, values=(0.5, float("inf"))),
    ):
        asked = made.start_trial(ordinal=0, before=LostAttempt(params={"units": 3}, trial_number=999))
        made.finish_trial(asked.trial_id, outcome)

    log(made, CSVLogger(path))

    failed, complete = rows_of(path)
    assert (failed["value:loss"], failed["value:latency"]) == ("", "")
    assert (complete["value:loss"], complete["value:latency"], complete["score"]) == ("0.5", "inf", "")
    assert [_finished(made.optuna_study, trial).values for trial in made.ended()] == [
        {},
        {"loss": 0.5, "latency": float("inf")},
    ]

    # And a file that another study began keeps its columns
    log(with_one_trial_of_each_ending(), CSVLogger(path.with_name("other.csv")))
    log(made, CSVLogger(path.with_name("other.csv")))
    assert json.loads(rows_of(path.with_name("other.csv"))[-1]["other_params"]) == {
        "value:loss": 0.5,
        "value:latency": None,
    }


def test_objective_named_like_another_entry_replaces_nothing(path: Path) -> None:
    made = study("names", objectives={"duration_s": "minimize", "report": "minimize", "latency": "minimize"})
    asked = made.start_trial(ordinal=0, before=LostAttempt(params={"units": 3}, trial_number=999))
    made.finish_trial(asked.trial_id, Outcome(ending=Ending.COMPLETED, values=(1e6, 2.0, 3.0)))
    (trial,) = made.ended()

    log(made, CSVLogger(path))

    (row,) = rows_of(path)
    duration_s = made.trial(0).duration_s
    assert (float(row["duration_s"]), float(row["value:duration_s"])) == (duration_s, 1e6)
    assert _finished(made.optuna_study, trial).results == {
        "duration_s": duration_s, "value:duration_s": 1e6, "value:report": 2.0, "latency": 3.0,
    }  # fmt: skip
