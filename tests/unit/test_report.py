"""What people and programs are shown: tables without padding, failures by cause, errors with `error:` first."""

from __future__ import annotations

import io
import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from highnoon.config import ModelConfig, TrainingConfig
from highnoon.coordinator.cli.failures import account, by_cause, failed, notes, own_lines, report_end
from highnoon.coordinator.cli.tables import (
    aligned,
    audit_table,
    params_table,
    result_of,
    studies_table,
    time_cell,
    trials_table,
    value_cell,
)
from highnoon.shared.domain.errors import InvalidInput, Problem, ServiceUnavailable
from highnoon.shared.domain.states import Ending, StudyState, TicketState, TrialState
from highnoon.shared.domain.trial import Params, ParamValue, Report, Trial
from highnoon.shared.runtime.terminal import Exit, say, show
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.audit import AuditEntry
from highnoon.shared.store.queries import StudyProgress
from highnoon.shared.store.study_records import StudyCounts, StudyRecord
from highnoon.shared.views.best_config import MODEL_OPTIONS, TRAINER_OPTIONS, as_json, as_python
from highnoon.shared.views.formats import dumps
from highnoon.shared.views.studies import StudySummary, study_object
from highnoon.shared.views.trials import trial_object

DIGITS: Params = {
    "learning_rate": 0.0116007259,
    "filters": 24,
    "units": 48,
    "dropout": 0.46141922324724213,
    "l2": 5.279731774001617e-06,
    "optimizer": "adam",
    "batch_size": 128,
}


def terminal(width: int = 80) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        color_system=None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def pipe() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, markup=False, emoji=False, highlight=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def attempt(trial: int | None, ending: Ending, **fields: Any) -> AttemptRecord:
    blank = dict.fromkeys(["ended_at", "exit_status", "signal", "peak_rss_bytes", "cause", "message", "log_tail"])
    known = {"ordinal": 0, "attempt": 1, "host": "node1", "pid": 7, "worker_id": "w", "started_at": 0.0}
    ticket = {"ticket_id": trial, "trial_number": trial, "log_path": f"/logs/trial-{trial}.log"}
    return AttemptRecord(**{**blank, **known, **ticket, "ending": ending, **fields})


def raised(trial: int, message: str) -> AttemptRecord:
    return attempt(trial, Ending.FAILED, cause="exception", message=message)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1 + 0.2, "0.3"), (1e-7, "1e-07"), (24, "24"), (True, "true"), (None, "-"), ("adam", "adam")],
)
def test_values_are_short(value: Any, text: str) -> None:
    assert value_cell(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.0, "0.0 s"), (59.94, "59.9 s"), (185, "3:05"), (7800, "2:10:00")]
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert time_cell(seconds) == text


def test_columns_are_aligned_and_nothing_is_padded_to_its_right() -> None:
    assert aligned([("name", "n"), ("a", "10"), ("abcdef", "2")], right={1}) == [
        "name     n",
        "a       10",
        "abcdef   2",
    ]
    assert aligned([("learning_rate", "1"), ("l2", "0.25")]) == ["learning_rate  1", "l2             0.25"]
    assert params_table({}) == []


def test_seven_parameters_stay_readable_in_eighty_columns() -> None:
    trials = [
        Trial(number=number, state=TrialState.FAIL if number else TrialState.COMPLETE, params=DIGITS, value=None)
        for number in (0, 9, 100)
    ]
    notes_by_trial = {
        9: "signal: the trial process was killed by SIGKILL; tried again as trial 100",
        100: "trial 9 again",
    }

    lines = trials_table(trials, notes_by_trial, terminal())

    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)
    assert sum(not line.startswith(" ") for line in lines) == 1 + len(trials), "what belongs to a trial is indented"
    assert "       signal: the trial process was killed by SIGKILL; tried again as trial 100" in lines
    for name in DIGITS:
        assert sum(f"{name}=" in line for line in lines) == len(trials), "no parameter is cut"


def test_metrics_that_do_not_fit_into_columns_stand_behind_the_parameters() -> None:
    attrs = dict.fromkeys(("accuracy", "loss", "val_accuracy", "val_loss", "validation_precision"), 0.97202795)
    trials = [Trial(number=1, state=TrialState.COMPLETE, params=DIGITS, value=0.0813617, attrs=attrs)]
    first, *lines = trials_table(trials, {}, terminal())
    assert first == "trial  state         value  took  parameters, metrics"
    assert max(map(len, lines)) <= 80 and "validation_precision=0.97203" in " ".join(lines)
    assert trials_table(trials, {}, pipe())[0].split()[4:] == [*attrs, "parameters"]


def test_sizes_have_a_column_where_trials_have_some() -> None:
    sizes = (5000, None)
    trials = [Trial(number=size or 0, state=TrialState.COMPLETE, params={}, params_count=size) for size in sizes]
    rows = [line.split() for line in trials_table(trials, {}, pipe())]
    assert [row[3] for row in rows] == ["size", "5000", "-"]


def test_the_audit_fits_a_terminal_and_is_one_line_per_change_in_a_pipe() -> None:
    details = {"trials": 12, "objective": "train.py:objective", "text": "a note that is longer than the line " * 3}
    who: dict[str, Any] = {"actor": "root@vm", "via": "command line", "account": "highnoon"}
    entry = AuditEntry(id=1, at=0.0, action="note", study="cancer", details=details, **who)
    lines = audit_table([entry], terminal())
    assert max(map(len, lines)) <= 80 and len(lines) > 3 and lines[2].startswith("       ")
    assert len(audit_table([entry], pipe())) == 2


def test_a_pipe_gets_one_line_per_trial() -> None:
    trials = [Trial(number=number, state=TrialState.FAIL, params=DIGITS) for number in range(3)]
    _, *lines = trials_table(trials, {1: "timeout: over trial_timeout (3 s)"}, pipe())
    assert len(lines) == 3
    assert "batch_size=128  timeout: over" in lines[1]
    assert lines[0].endswith("batch_size=128")


def test_a_study_is_one_line_with_its_reason() -> None:
    record = StudyRecord(
        id=1, name="[bold]:x:", state=StudyState.FINISHED, stop_reason="timeout", queue="cpu",
        spec={"direction": "minimize"}, submitted_at=1.0, started_at=2.0, ended_at=None,
    )  # fmt: skip
    counts = StudyCounts(
        by_state={TicketState.CLOSED: 6, TicketState.CANCELLED: 4},
        by_ending={Ending.COMPLETED: 1, Ending.PRUNED: 1, Ending.STOPPED: 1, Ending.FAILED: 1, Ending.LOST: 2},
        attempts=9,
    )
    study = StudySummary.of_ledger(StudyProgress(record=record, counts=counts, best_value=0.25))
    headings, line = studies_table([study])
    assert line.split() == ["[bold]:x:", "finished", "(timeout)", "6/10", "0", "2", "3", "0.25"]
    assert headings.split() == ["study", "state", "trials", "running", "pruned", "failed", "best"]
    assert study_object(study)["endings"]["lost"] == 2


def test_a_cancelled_study_shows_the_trials_that_it_was_asked_for() -> None:
    spec = {"name": "digits", "direction": "minimize"}
    record = StudyRecord(
        id=1, name="digits", state=StudyState.CANCELLED, stop_reason="cancelled", queue="cpu", spec=spec,
        submitted_at=0.0, started_at=0.0, ended_at=1.0,
    )  # fmt: skip
    counts = StudyCounts(
        by_state={TicketState.CLOSED: 3, TicketState.CANCELLED: 9}, by_ending={Ending.COMPLETED: 3}, attempts=3
    )
    study = StudySummary.of_ledger(StudyProgress(record=record, counts=counts, best_value=0.5))
    assert studies_table([study])[1].split()[:3] == ["digits", "cancelled", "3/12"]
    assert study_object(study)["trials"] == 3, "which programs rely on"


@pytest.mark.parametrize(("value", "text"), [(math.inf, "inf"), (-math.inf, "-inf"), (None, None), (0.5, 0.5)])
def test_programs_can_tell_an_infinite_result_from_none(value: float | None, text: object) -> None:
    best = Trial(number=0, state=TrialState.COMPLETE, params={}, value=value)
    assert json.loads(as_json("digits", best))["value"] == text
    assert json.loads(dumps(trial_object(best)))["value"] == text


def test_the_python_snippet_makes_a_model_only_of_a_models_options() -> None:
    def snippet(**params: ParamValue) -> str:
        text = as_python("digits", Trial(number=3, state=TrialState.COMPLETE, params=params, value=-math.inf))
        exec(compile(text.partition("import")[0], "best.py", "exec"), {})
        assert 'value float("-inf")' in text
        return text

    assert "highnoon" not in snippet(units=32, optimizer="adam") and "highnoon" not in snippet(learning_rate=0.1)
    assert 'hn.create_model("highnoon-small", **best_params)' in snippet(embedding_dim=512)
    both = snippet(embedding_dim=512, learning_rate=1e-4)
    assert "**{name: best_params[name] for name in ['embedding_dim']}" in both
    assert {*ModelConfig.names()} == MODEL_OPTIONS and {*TrainingConfig.names()} == TRAINER_OPTIONS


def test_json_is_strict_where_numbers_are_not() -> None:
    trial = Trial(
        number=0, state=TrialState.COMPLETE, params={"x": 1.5}, value=float("inf"),
        reports=(Report(step=0, value=float("nan")), Report(step=1, value=0.5)),
    )  # fmt: skip
    read = json.loads(dumps([trial_object(trial)], indent=2), parse_constant=pytest.fail)
    assert read[0]["value"] == "inf"
    assert read[0]["reports"] == [{"step": 0, "value": "nan"}, {"step": 1, "value": 0.5}]


def test_report_of_a_study_has_a_trials_colours_in_a_terminal_only() -> None:
    record = SimpleNamespace(id=1, name="digits", state=StudyState.FINISHED, stop_reason="n_trials", spec={})
    study: Any = SimpleNamespace(record=record)
    failed = [attempt(0, Ending.FAILED, message="no", log_tail="\x1b[31mred\x1b[0m lines", ended_at=1.0)]
    access: Any = SimpleNamespace(
        studies=SimpleNamespace(attempts=lambda *_, **__: failed),
        store=SimpleNamespace(view=lambda _: SimpleNamespace(best=list)),
        traceback=lambda *_: "",
    )
    console = pipe()
    assert report_end(study, access, console) is Exit.NO_RESULT
    assert "  | red lines\n" in written(console)
    console = pipe()
    assert report_end(study, access, console, since=2.0) is Exit.NO_RESULT
    assert "by cause" not in written(console) and "the last failure:" in written(console)


def test_failures_are_one_line_per_distinct_cause_the_most_frequent_first() -> None:
    attempts = [
        attempt(0, Ending.COMPLETED),
        attempt(1, Ending.KILLED, cause="signal", message="the trial process was killed by SIGKILL"),
        raised(2, "ValueError: shape [3, 4]"),
        raised(3, "ValueError: shape [5, 6]"),
        raised(4, "KeyError: 'x'"),
        attempt(5, Ending.PRUNED, cause="pruner"),
        attempt(6, Ending.RELEASED, cause="drain"),
    ]
    assert len(failed(attempts)) == 4
    assert by_cause(attempts) == [
        "2 x exception: ValueError: shape [5, 6] (trial 3, log /logs/trial-3.log)",
        "1 x signal: the trial process was killed by SIGKILL (trial 1, log /logs/trial-1.log)",
        "1 x exception: KeyError: 'x' (trial 4, log /logs/trial-4.log)",
    ]
    assert by_cause([attempt(0, Ending.COMPLETED)]) == []


def test_a_long_message_stays_one_line() -> None:
    (line,) = by_cause([raised(1, "ValueError: " + "tensor of a shape\n" * 100)])
    assert "\n" not in line and len(line) < 300 and "…" in line


def test_what_tensorflow_logs_by_itself_is_no_line_of_the_training() -> None:
    printed = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "best val_loss=0.1\n\n"
        "E0000 00:00:1795949907.882409   26404 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n"
        "2026-11-29 10:12:10.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] optimized\n"
    )
    assert own_lines(printed) == ["best val_loss=0.1"]
    assert own_lines("E0 is no log line\n") == ["E0 is no log line"]


def test_a_trial_that_was_tried_again_names_the_other_one() -> None:
    killed = {"ticket_id": 5, "cause": "signal", "message": "killed by SIGKILL"}
    attempts = [
        attempt(8, Ending.COMPLETED, ticket_id=5, attempt=3),
        attempt(2, Ending.KILLED, **killed),
        attempt(4, Ending.KILLED, attempt=2, **killed),
        attempt(None, Ending.LOST, ticket_id=6, cause="lost"),
        attempt(9, Ending.STOPPED, ticket_id=6, attempt=2, cause="swap", message="swap: over 2 GiB"),
        attempt(10, Ending.STOPPED, ticket_id=7, cause="stopped", message="plateau: no progress"),
        attempt(11, Ending.STOPPED, ticket_id=8, cause="param_budget", message="1,500 parameters, 1,000 allowed"),
    ]
    assert notes(attempts) == {
        2: "signal: killed by SIGKILL; tried again as trial 4",
        4: "trial 2 again; signal: killed by SIGKILL; tried again as trial 8",
        8: "trial 4 again",
        9: "stopped: memory, swap: over 2 GiB",
        10: "stopped: plateau: no progress",
        11: "param_budget: 1,500 parameters, 1,000 allowed",
    }


def test_a_trial_that_another_program_ended_in_optuna_shows_how() -> None:
    ours = attempt(3, Ending.COMPLETED, foreign_ending="COMPLETE 7")
    assert notes([ours]) == {3: "another program ended it in Optuna: COMPLETE 7"}
    assert "another program ended it in Optuna: COMPLETE 7" in account(ours)


def test_the_account_of_an_attempt_has_host_cause_and_log() -> None:
    failure = attempt(
        3, Ending.FAILED, attempt=2, cause="exception", message="KeyError: 'x'", log_tail="epoch 1\nepoch 2\n"
    )
    assert account(failure, "Traceback ...\nKeyError: 'x'\n") == [
        "trial 3, attempt 2 on host node1: failed",
        "exception: KeyError: 'x'",
        "Traceback ...\nKeyError: 'x'",
        "log /logs/trial-3.log, its last lines:",
        "  | epoch 1",
        "  | epoch 2",
    ]
    assert account(attempt(None, Ending.LOST, log_path=None))[-1] == "no log, nothing printed"


def test_what_people_wrote_is_shown_literally() -> None:
    console = terminal()
    say(console, "study [red]x[/] :smile: [/oops]")
    assert written(console).rstrip() == "study [red]x[/] :smile: [/oops]"


def test_a_terminal_breaks_at_words_and_a_pipe_does_not() -> None:
    text = "  note: " + "word " * 40 + "/a/path/that-is-not-broken-at-its-hyphens"
    console = terminal(60)
    say(console, text)
    lines = written(console).splitlines()
    assert max(map(len, lines)) <= 60
    assert all(line.startswith("      ") for line in lines[1:])
    assert lines[-1].split()[-1] == "/a/path/that-is-not-broken-at-its-hyphens"
    piped = pipe()
    say(piped, text)
    assert written(piped) == f"{text}\n"


def test_an_error_begins_with_error_and_means_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        show(InvalidInput("study.toml", [Problem(key="n_trials", message="must be at least 1", value=0)]))
        is Exit.USER_INPUT
    )
    assert capsys.readouterr().err == "error: study.toml:\n  n_trials: must be at least 1 (got 0).\n"
    assert show(ServiceUnavailable("database away")) is Exit.SERVICE
    assert show(OSError(28, "No space left on device", "/data")) is Exit.SERVICE
    assert capsys.readouterr().err.splitlines()[1] == "error: [Errno 28] No space left on device: '/data'"


def test_a_hundred_mistakes_fit_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    show(InvalidInput("study.toml", [Problem(key=f"key_{n}", message="is not a known key") for n in range(100)]))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 14
    assert lines[-1] == "  … and 88 more"


def test_a_result_shows_loss_and_size_where_they_made_it() -> None:
    plain = Trial(number=1, state=TrialState.COMPLETE, params={}, value=0.25)
    scored = Trial(number=2, state=TrialState.COMPLETE, params={}, value=0.105, loss=0.1, params_count=500_000_000)
    assert result_of(plain) == "value 0.25"
    assert result_of(scored) == "value 0.105 (loss 0.1, 500,000,000 parameters)"
