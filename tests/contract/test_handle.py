"""A study's handle on a real PostgreSQL, without workers: callbacks, logs, and what is steered by it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pytest

from highnoon.cluster import Cluster
from highnoon.coordinator.cli import steer
from highnoon.coordinator.cli.submit_options import CallbackRunner
from highnoon.coordinator.local.stack import Stack
from highnoon.handle import StudyHandle
from highnoon.manager import HPOTrialManager
from highnoon.results import ReadStudy, StudyResults
from highnoon.shared.domain.errors import InvalidInput, MissingExtra, NoCompletedTrial, StudyConflict
from highnoon.shared.domain.lease import Holder
from highnoon.shared.domain.states import Ending, StudyState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.audit import AuditLog
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import submit
from tests.ledger import Ledger

SPEC: dict[str, Any] = {
    "name": "digits",
    "objective": "tests.objectives:noop",
    "search_space": {"x": ["uniform", 0.0, 1.0]},
    "n_trials": 2,
}
HERE = Holder(worker_id="anna", host=socket.gethostname(), pid=1)


@pytest.fixture
def study(ledger: Ledger) -> StudyRecord:
    """Of two tickets, the first of them closed."""
    optuna_id = ledger.access.store.create_study("digits", "minimize")
    study = ledger.studies.create("digits", SPEC, queue="cpu", n_trials=2, optuna_study_id=optuna_id)
    ledger.run(ledger.tickets(study)[0], holder=HERE)
    return study


@pytest.fixture
def handle(ledger: Ledger, study: StudyRecord) -> Iterator[StudyHandle]:
    settings = load_settings({}).model_copy(update={"database_url": ledger.access.url})
    handle = StudyHandle("digits", Cluster(settings=settings))
    yield handle
    handle.access.close()


@pytest.mark.skipif(find_spec("torch") is not None, reason="the extra gp is installed")
def test_study_whose_sampler_is_not_installed_here_is_read_and_given_points(
    handle: StudyHandle, ledger: Ledger
) -> None:
    spec = StudySpec.from_json({**SPEC, "name": "proposed", "sampler": "gp"})
    ledger.run(ledger.tickets(submit(spec, ledger.access).record)[0])

    proposed = StudyHandle("proposed", handle._cluster)
    proposed.enqueue({"x": 0.75})
    assert [trial.state for trial in proposed.trials] == ["COMPLETE", "WAITING"]
    manager = HPOTrialManager("proposed", storage=ledger.access.url, sampler="gp")
    assert manager.best_params == proposed.best_params == {"x": 0.5}
    with pytest.raises(MissingExtra, match="sampler gp needs torch"):
        manager.optimize(lambda params: 0.0, {"x": ("uniform", 0.0, 1.0)})
    proposed.access.close()


def test_a_callback_may_stop_a_study_that_is_over(handle: StudyHandle, ledger: Ledger, study: StudyRecord) -> None:
    ledger.run(ledger.tickets(study)[1])
    assert ledger.control.finish(study.id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials")
    seen: list[int] = []

    def stop(study: Any, trial: Any) -> None:
        seen.append(trial.number)
        study.stop()

    assert handle.follow(stop) is handle

    assert (handle.status, seen) == ("finished", [0])


@pytest.mark.parametrize("is_command", [False, True], ids=["handle", "command"])
def test_a_stop_during_an_outage_pauses_the_study_afterwards(
    handle: StudyHandle, study: StudyRecord, stack: Stack, is_command: bool
) -> None:
    admin = psycopg2.connect(stack.database_url.replace("+psycopg2", "", 1))
    admin.autocommit = True
    cursor = admin.cursor()
    name = handle.access.url.rpartition("/")[2].partition("?")[0]

    def stop(study: Any, trial: Any) -> None:
        cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        study.stop()
        threading.Timer(0.3, cursor.execute, [f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"]).start()

    if is_command:
        assert not CallbackRunner(study, [stop], handle.access).go_on(None)
    else:
        handle.follow(stop)

    assert handle.status == "paused"
    admin.close()


def test_what_is_no_function_is_refused(handle: StudyHandle) -> None:
    wrong: Any = "print"
    with pytest.raises(InvalidInput, match=r"callbacks: must be callable \(got 'print'\)"):
        handle.follow(print, wrong)


def test_a_rotated_log_is_read_whole(handle: StudyHandle, ledger: Ledger, study: StudyRecord, tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    log.write_text("3\n")
    log.with_name("trial.log.1").write_text("1\n2\n")
    with ledger.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE hn_attempts SET log_path = %s", (str(log),))
    assert handle.logs(0) == "1\n2\n3\n"


def test_a_note_that_others_have_changed_since_it_was_read_stays(handle: StudyHandle) -> None:
    seen = handle.note("first", trial=0).version
    others = handle.note(tag="theirs", trial=0)
    with pytest.raises(StudyConflict, match="changed by another person meanwhile: read them again"):
        handle.note("mine", trial=0, seen=seen)
    assert handle.note(trial=0) == others
    assert handle.note("mine", trial=0, seen=others.version).text == "mine"


def test_an_enqueued_point_has_one_entry_in_the_audit(handle: StudyHandle, ledger: Ledger) -> None:
    handle.enqueue({"x": 0.25})
    entries = AuditLog(ledger.database).entries(study="digits", limit=100)
    assert [(entry.action, entry.details) for entry in entries[1:]] == [("enqueue", {"params": {"x": 0.25}})]
    assert handle.summary.total == 3


@pytest.mark.parametrize("count", [0, True, 1.5, 999_999])
def test_a_senseless_count_of_trials_is_refused(handle: StudyHandle, count: Any) -> None:
    with pytest.raises(InvalidInput, match="count: must be from 1 to 999,998"):
        handle.add_trials(count)


def test_whole_numbers_of_numpy_are_taken(handle: StudyHandle) -> None:
    three: Any = np.int64(3)
    assert handle.add_trials(three) == 3
    handle.set_share(priority=three, max_running=three)


def test_a_share_is_changed_from_the_command_line_and_from_python(
    handle: StudyHandle, ledger: Ledger, study: StudyRecord, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HIGHNOON_DATABASE_URL", ledger.access.url)
    monkeypatch.setenv("HIGHNOON_REDIS_URL", "redis://127.0.0.1:1/0")
    steer.set_share("digits", priority=3, max_running=8)
    assert capsys.readouterr().out == "study digits: priority 3, at most 8 running\n"
    handle.set_share(max_running=0)
    steer.set_share("digits", priority=2)
    assert capsys.readouterr().out == "study digits: priority 2, without a limit\n"
    with pytest.raises(InvalidInput, match="priority: or max_running is needed"):
        handle.set_share()


def test_what_did_not_fit_into_memory_is_retried_from_the_command_line(
    ledger: Ledger, study: StudyRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIGHNOON_DATABASE_URL", ledger.access.url)
    monkeypatch.setenv("HIGHNOON_REDIS_URL", "redis://127.0.0.1:1/0")
    stopped = ledger.run(ledger.tickets(study)[1], Outcome(ending=Ending.STOPPED, cause="memory_limit"))
    with pytest.raises(StudyConflict, match=r"not among the trials .* may be tried again: 98, 99$"):
        steer.retry("digits", [stopped.trial_number, 99, 98])
    assert ledger.state(stopped.ticket_id) == "closed"
    steer.retry("digits", [stopped.trial_number])
    assert ledger.state(stopped.ticket_id) == "waiting"


def test_a_stopped_trial_is_one_of_those_that_have_ended(
    handle: StudyHandle, ledger: Ledger, study: StudyRecord
) -> None:
    lease = ledger.start(ledger.tickets(study)[1])
    handle.stop_trial(lease.trial_number)
    assert "1 of 2 " in repr(handle)
    ledger.finish(lease, Outcome(ending=Ending.CANCELLED, cause="cancelled"))

    assert "2 of 2 " in repr(handle) and "2 of 2 trials" in handle._repr_html_()


def test_results_have_the_names_that_they_have_in_process(handle: StudyHandle) -> None:
    names = {name for name in dir(StudyResults) if not name.startswith("_")}
    assert {name for name in names if not hasattr(StudyHandle, name)} == set()
    assert {name for name in dir(ReadStudy) if not name.startswith("_")} >= {"best_loss", "get_param_importance"}

    assert handle.best_loss == handle.best_value == 0.25
    assert handle.get_param_importance() == {"x": 1.0}


def test_front_without_a_completed_trial_is_the_error_of_best_trial(ledger: Ledger) -> None:
    optuna_id = ledger.access.store.create_study("new", "minimize")
    ledger.studies.create("new", {**SPEC, "name": "new"}, queue="cpu", n_trials=2, optuna_study_id=optuna_id)
    settings = load_settings({}).model_copy(update={"database_url": ledger.access.url})
    handle = StudyHandle("new", Cluster(settings=settings))

    for read in (handle.pareto_front, handle.get_param_importance):
        with pytest.raises(NoCompletedTrial, match="'new' has no completed trial yet"):
            read()
    handle.access.close()


@pytest.mark.parametrize("number", ["0", "a", 1.5, True, None, [1]])
def test_what_is_no_number_of_a_trial_is_refused(handle: StudyHandle, number: Any) -> None:
    reads: list[Callable[[], object]] = [
        lambda: handle.metric_history(number),
        lambda: handle.logs(number),
        lambda: handle.stop_trial(number),
        lambda: handle.extend_trial(number, epochs=3),
        lambda: handle.artifact(number, "model"),
    ]
    if number is not None:
        reads += [lambda: handle.note("text", trial=number), lambda: handle.artifacts(number)]
    for read in reads:
        with pytest.raises(InvalidInput, match="must be the number of a trial, such as 7"):
            read()
