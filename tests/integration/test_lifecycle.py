"""The life of a study on a cluster that serves many: people steer it, limits end it, objectives and coordinators fail.

One coordinator and one node serve the whole module; each story is a study of its own and ends with its books.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from highnoon.coordinator.cluster_metrics import Counters
from highnoon.coordinator.executor import ActionExecutor
from highnoon.coordinator.local.stack import Stack
from highnoon.coordinator.planner import plan
from highnoon.coordinator.queue_client import QueueClient
from highnoon.coordinator.snapshot_reader import SnapshotReader
from highnoon.coordinator.study_faults import StudyFaults
from highnoon.shared.domain.errors import StudyConflict
from highnoon.shared.domain.states import Ending, StudyState, TicketState, TrialState
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.processes import identify
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.control import Control
from highnoon.workers import kernel
from tests.cluster import Books, Cluster, running_cluster
from tests.conftest import SHORT_PERIODS
from tests.support import eventually


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("lifecycle")
    with running_cluster(stack, folder, {"TEST_GO_FOLDER": str(folder)}) as cluster:
        yield cluster


def say_go(cluster: Cluster, name: str) -> None:
    (cluster.folder / name).touch()


def states_of(books: Books, name: str) -> dict[TicketState, int]:
    return dict(books.studies.counts(books.studies.get(name).id).by_state)


def wait_until_running(books: Books, name: str, count: int) -> None:
    eventually(lambda: states_of(books, name).get(TicketState.RUNNING, 0) == count, 60, what=f"{count} trials run")


def submitted_patiently(cluster: Cluster, books: Books, name: str, n_trials: int = 6, **keys: Any) -> None:
    """Two trials run and wait for `say_go`; the others wait for a slot."""
    cluster.submit_here("patient_by_study", n_trials, name=name, **keys)
    wait_until_running(books, name, 2)


# --- people -----------------------------------------------------------------------------------------------------------


def test_pause_lets_running_trials_end_and_starts_nothing_until_resume(
    cluster: Cluster, books: Books, name: str
) -> None:
    # Given two running trials, and messages for more in Redis
    submitted_patiently(cluster, books, name)

    # When a person pauses the study and the trials end
    assert cluster.cli("pause", name).stdout.strip() == f"study {name} is paused"
    say_go(cluster, name)

    # Then nothing else of it starts, while another study runs to its end
    paused = {TicketState.CLOSED: 2, TicketState.WAITING: 4}
    eventually(lambda: states_of(books, name) == paused, 30, what="what was queued waits again")
    cluster.submit_here("noop", 4, name=f"{name}-beside")
    books.wait_until_over(f"{name}-beside")
    assert states_of(books, name) == paused and len(books.attempts(name)) == 2

    # And resume goes on with it
    assert cluster.cli("resume", name).returncode == 0
    assert books.wait_until_over(name).stop_reason == "n_trials"
    books.assert_balanced(name, 6)
    assert {attempt.attempt for attempt in books.attempts(name)} == {1}


def test_paused_study_stays_paused_when_it_is_extended_or_retried(cluster: Cluster, books: Books, name: str) -> None:
    # Given a paused study with two closed trials
    submitted_patiently(cluster, books, name, 4)
    study_id = books.studies.get(name).id
    assert books.studies.pause(study_id)
    say_go(cluster, name)
    eventually(lambda: states_of(books, name) == {TicketState.CLOSED: 2, TicketState.WAITING: 2}, 30)

    # When it is submitted again, with more trials, and closed trials are to be tried again
    cluster.submit_here("patient_by_study", 5, name=name)
    assert books.studies.retry(study_id, endings=(Ending.COMPLETED,)) == 2

    # Then it still rests until a person resumes it
    assert books.studies.get(name).state is StudyState.PAUSED
    assert books.studies.resume(study_id)
    books.wait_until_over(name)
    assert states_of(books, name) == {TicketState.CLOSED: 5}


def test_cancel_stops_running_trials_and_drops_the_rest(cluster: Cluster, books: Books, name: str) -> None:
    submitted_patiently(cluster, books, name)
    assert cluster.cli("cancel", name).returncode == 0

    record = books.wait_until_over(name)
    assert (record.state, record.stop_reason) == (StudyState.CANCELLED, "cancelled")
    assert states_of(books, name) == {TicketState.CLOSED: 2, TicketState.CANCELLED: 4}
    assert [attempt.ending for attempt in books.attempts(name)] == [Ending.CANCELLED] * 2
    assert [trial.state for trial in books.trials(name)] == [TrialState.FAIL] * 2

    with pytest.raises(StudyConflict, match="was cancelled"):
        cluster.submit_here("patient_by_study", 9, name=name)


def test_cancel_ends_trials_that_ignore_the_request(cluster: Cluster, books: Books, name: str) -> None:
    cluster.submit_here("ignores_sigterm", 3, name=name)
    wait_until_running(books, name, 2)
    assert books.studies.cancel(books.studies.get(name).id)
    assert books.wait_until_over(name).state is StudyState.CANCELLED
    assert [attempt.ending for attempt in books.attempts(name)] == [Ending.CANCELLED] * 2
    assert {trial.state for trial in books.trials(name)} == {TrialState.FAIL}


def test_retry_gives_each_failed_trial_one_more_attempt_at_the_same_point(
    cluster: Cluster, books: Books, name: str
) -> None:
    cluster.submit_here("fails_for_half", 8, name=name)
    books.wait_until_over(name)
    books.assert_balanced(name, 8)
    failed = {a.ticket_id: a for a in books.attempts(name) if a.ending is Ending.FAILED}
    assert 0 < len(failed) < 8

    done = cluster.cli("retry", name)
    assert done.stdout.strip() == f"study {name}: {len(failed)} trials wait for another attempt"
    books.wait_until_over(name)
    books.assert_balanced(name, 8)
    attempts, trials = books.attempts(name), {trial.number: trial for trial in books.trials(name)}
    assert Counter(attempt.attempt for attempt in attempts) == {1: 8, 2: len(failed)}
    for second in [attempt for attempt in attempts if attempt.attempt == 2]:
        first = failed[second.ticket_id]
        assert first.trial_number is not None and second.trial_number is not None
        assert trials[second.trial_number].params == trials[first.trial_number].params


def test_a_larger_n_trials_extends_and_the_same_again_changes_nothing(
    cluster: Cluster, books: Books, name: str
) -> None:
    # Given a study in its middle
    submitted_patiently(cluster, books, name, 4)

    # When it is extended while it runs, and once more when it is over
    path = str(cluster.write("patient_by_study", 7, name=name))
    assert json.loads(cluster.cli("submit", path, "--json").stdout) == {"name": name, "trials": 7, "added": 3}
    say_go(cluster, name)
    books.wait_until_over(name)
    books.assert_balanced(name, 7)
    cluster.submit_here("patient_by_study", 9, name=name)
    books.wait_until_over(name)
    books.assert_balanced(name, 9)

    # Then what is submitted again as it is, or smaller, adds nothing
    before = books.studies.get(name)
    cluster.submit_here("patient_by_study", 9, name=name)
    cluster.submit_here("patient_by_study", 3, name=name)
    assert books.studies.get(name) == before
    books.assert_balanced(name, 9)


def test_other_search_space_under_the_same_name_is_refused_and_changes_nothing(
    cluster: Cluster, books: Books, name: str
) -> None:
    cluster.submit_here("noop", 2, name=name)
    books.wait_until_over(name)
    before, trials = books.studies.get(name), books.trials(name)

    space = {"x": ["int", -5, 6], "y": ["uniform", 0, 1]}
    done = cluster.cli("submit", str(cluster.write("noop", 5, name=name, search_space=space)))

    assert done.returncode == 2
    assert f"study {name!r} exists and has another search_space" in done.stderr and "Traceback" not in done.stderr
    assert "x was ['uniform', -5.0, 5.0] and is now ['int', -5, 6]: its type may not change" in done.stderr
    assert "y is new and has no default" in done.stderr
    assert books.studies.get(name) == before and books.trials(name) == trials
    books.assert_balanced(name, 2)

    # But it may go on with other bounds, a condition, a constraint, and a new parameter that has a default
    space = {
        "x": ["uniform", -5.0, 6.0],
        "y": {"type": "int", "low": 1, "high": 4, "default": 1},
        "z": {"type": "bool", "when": {"y": [2, 3]}, "default": False},
    }
    cluster.submit_here("noop", 8, name=name, search_space=space, param_constraints=["x >= y"])
    books.wait_until_over(name)
    books.assert_balanced(name, 8)
    for trial in books.trials(name)[2:]:
        assert trial.params.keys() == {"x", "y"} | ({"z"} if trial.params["y"] in (2, 3) else set())
        assert trial.params["x"] >= trial.params["y"]


def test_what_may_change_between_two_submissions_holds_for_running_nodes(
    cluster: Cluster, books: Books, name: str
) -> None:
    # Given a node that has worked on the study
    cluster.submit_here("hangs", 1, name=name, trial_timeout=0.2)
    books.wait_until_over(name)
    # When the same study is submitted with other limits
    cluster.submit_here("hangs", 2, name=name, trial_timeout=0.4)
    books.wait_until_over(name)
    # Then they hold for what follows
    messages = [attempt.message for attempt in books.attempts(name)]
    assert messages == ["over trial_timeout (0.2 s)", "over trial_timeout (0.4 s)"]


def test_a_grid_has_no_more_trials_than_points(cluster: Cluster, books: Books, name: str) -> None:
    space = {"x": ["categorical", ["a", "b", "c"]], "y": ["int", 0, 1]}
    cluster.submit_here("noop", 50, name=name, sampler="grid", search_space=space)
    books.wait_until_over(name)
    books.assert_balanced(name, 6)
    points = [tuple(trial.params.values()) for trial in books.trials(name)]
    assert len(points) == 6 and set(points) == {(x, y) for x in "abc" for y in (0, 1)}


def test_a_grid_that_a_limit_has_stopped_goes_on_with_the_points_that_are_left(
    cluster: Cluster, books: Books, name: str
) -> None:
    keys: dict[str, Any] = {"sampler": "grid", "search_space": {"x": ["int", -20, 20]}}
    cluster.submit_here("fails_for_half", 41, name=name, max_failures_in_a_row=2, **keys)
    assert books.wait_until_over(name).stop_reason == "failures_in_a_row"
    assert states_of(books, name)[TicketState.CANCELLED] > 0

    cluster.submit_here("fails_for_half", 41, name=name, max_failures_in_a_row=0, **keys)
    assert books.wait_until_over(name).stop_reason == "n_trials"
    books.assert_balanced(name, 41)
    assert {trial.params["x"] for trial in books.trials(name)} == set(range(-20, 21))
    assert {attempt.ending for attempt in books.attempts(name)} == {Ending.COMPLETED, Ending.FAILED}


# --- limits -----------------------------------------------------------------------------------------------------------


def test_timeout_ends_a_study_and_lets_running_trials_end(cluster: Cluster, books: Books, name: str) -> None:
    cluster.submit_here("slow", 2000, name=name, timeout=0.8)
    record = books.wait_until_over(name)
    assert (record.state, record.stop_reason) == (StudyState.FINISHED, "timeout")
    states = states_of(books, name)
    assert set(states) == {TicketState.CLOSED, TicketState.CANCELLED} and sum(states.values()) == 2000
    assert {trial.state for trial in books.trials(name)} == {TrialState.COMPLETE}
    assert len(books.trials(name)) == states[TicketState.CLOSED]


def test_a_study_that_a_timeout_has_ended_goes_on_with_a_longer_one(cluster: Cluster, books: Books, name: str) -> None:
    cluster.submit_here("slow", 12, name=name, timeout=0.3)
    ended = books.wait_until_over(name)
    assert ended.stop_reason == "timeout"
    cluster.submit_here("slow", 12, name=name, timeout=0.3)
    assert books.studies.get(name) == ended, "the same again changes nothing"
    cluster.submit_here("slow", 12, name=name, timeout=600)
    assert books.wait_until_over(name).stop_reason == "n_trials"
    books.assert_balanced(name, 12)


def test_a_study_that_does_not_get_better_ends_early(cluster: Cluster, books: Books, name: str) -> None:
    """By `auto`, whose evenly spread start is not repeated by nodes that sample at the same time."""
    space = {"x": ["categorical", [1, 2, 4, 8, 16]], "y": ["int", 1, 400]}
    cluster.submit_here("noop", 2000, name=name, search_space=space, sampler="auto", early_stop={"patience": 12})
    record = books.wait_until_over(name)
    assert (record.state, record.stop_reason) == (StudyState.FINISHED, "early_stop")
    points = [tuple(trial.params.values()) for trial in books.trials(name)]
    assert 13 <= len(points) < 2000 and len(set(points)) >= len(points) - 4, "except points chosen at the same moment"


def test_points_are_repeated_and_bad_ones_end_after_their_first_repeat(
    cluster: Cluster, books: Books, name: str
) -> None:
    space = {"x": ["int", 0, 9]}
    cluster.submit_here("noisy", 16, name=name, search_space=space, sampler="random", seed=1, repeats=3)
    books.wait_until_over(name)
    books.assert_balanced(name, 16)
    repeats = {TrialState.COMPLETE: 3, TrialState.PRUNED: 1}
    trials = books.trials(name)
    assert {trial.state for trial in trials} == set(repeats)
    assert all(trial.metrics["repeats"] == repeats[trial.state] for trial in trials)
    assert all(trial.metrics["repeats_std"] > 0 for trial in trials if trial.state is TrialState.COMPLETE)


@pytest.mark.parametrize(("direction", "target"), [("minimize", 4.0), ("maximize", 20.0)])
def test_target_value_ends_a_study(cluster: Cluster, books: Books, name: str, direction: str, target: float) -> None:
    cluster.submit_here("good", 2000, name=name, direction=direction, target_value=target)
    assert books.wait_until_over(name).stop_reason == "target_value"
    values = [trial.value for trial in books.trials(name) if trial.value is not None]
    assert min(values) <= target if direction == "minimize" else max(values) >= target
    assert states_of(books, name)[TicketState.CANCELLED] > 0


def test_failures_in_a_row_end_a_study(cluster: Cluster, books: Books, name: str) -> None:
    cluster.submit_here("raises", 2000, name=name, max_failures_in_a_row=3)
    assert books.wait_until_over(name).stop_reason == "failures_in_a_row"
    closed = states_of(books, name)[TicketState.CLOSED]
    assert 3 <= closed < 2000
    assert Counter(attempt.ending for attempt in books.attempts(name)) == {Ending.FAILED: closed}


def test_failures_before_the_first_success_end_a_study_by_default(cluster: Cluster, books: Books, name: str) -> None:
    cluster.submit_here("raises", 2000, name=name)
    assert books.wait_until_over(name).stop_reason == "failures_in_a_row"
    assert 5 <= states_of(books, name)[TicketState.CLOSED] < 2000


def test_trial_timeout_ends_trials_and_the_study_goes_on(cluster: Cluster, books: Books, name: str) -> None:
    cluster.submit_here("hangs_in_c", 3, name=name, trial_timeout=0.3)
    assert books.wait_until_over(name).stop_reason == "n_trials"
    books.assert_balanced(name, 3)
    endings = [(attempt.ending, attempt.cause) for attempt in books.attempts(name)]
    assert endings == [(Ending.TIMED_OUT, "timeout")] * 3


# --- objectives -------------------------------------------------------------------------------------------------------


def test_an_objective_that_kills_itself_is_tried_max_attempts_times_with_a_pause_before_the_third(
    cluster: Cluster, books: Books, name: str
) -> None:
    cluster.submit_here("kills_itself", 2, name=name)
    books.wait_until_over(name)
    books.assert_balanced(name, 2)
    attempts = books.attempts(name)
    assert {trial.state for trial in books.trials(name)} == {TrialState.FAIL} and len(attempts) == 6
    for ticket_id in {attempt.ticket_id for attempt in attempts}:
        first, second, third = [attempt for attempt in attempts if attempt.ticket_id == ticket_id]
        assert {a.ending for a in (first, second, third)} == {Ending.KILLED}
        assert second.ended_at is not None and third.started_at - second.ended_at >= 2.0


def test_an_objective_that_kills_its_fork_server_ends_as_one_that_kills_itself(
    cluster: Cluster, books: Books, name: str
) -> None:
    cluster.submit_here("kills_its_fork_server", 1, name=name, max_attempts=2)
    books.wait_until_over(name)
    books.assert_balanced(name, 1)
    assert {(a.ending, a.cause) for a in books.attempts(name)} == {(Ending.KILLED, "signal")}
    # And its supervisor has another fork server for those that follow
    cluster.submit_here("good", 4, name=f"{name}-after")
    books.wait_until_over(f"{name}-after")
    assert {trial.state for trial in books.trials(f"{name}-after")} == {TrialState.COMPLETE}


def test_an_objective_that_kills_its_supervisor_does_not_use_up_its_attempts_at_once(
    cluster: Cluster, books: Books, name: str
) -> None:
    cluster.submit_here("kills_its_supervisor", 1, name=name)
    books.wait_until_over(name)
    books.assert_balanced(name, 1)
    first, second, third = books.attempts(name)
    assert {a.ending for a in (first, second, third)} == {Ending.LOST}
    assert second.ended_at is not None and third.started_at - second.ended_at >= 2.0


def test_supervisor_that_its_trial_has_stopped_is_replaced(cluster: Cluster, books: Books, name: str) -> None:
    # Given a spawned trial, whose parent is its supervisor
    objective = "hostile_objectives.py:stops_its_parent"
    cluster.submit_here(objective, 1, name=name, isolation="spawn", max_attempts=1)
    (slot,) = eventually(lambda: [note for note in cluster.slots() if kernel.is_stopped(note["pid"])], 30)
    # Then its lease runs out, and its slot gets another supervisor
    books.wait_until_over(name)
    assert [(a.ending, a.cause) for a in books.attempts(name)] == [(Ending.LOST, "lost")]
    eventually(lambda: identify(slot["pid"]) is None, 30, what="the stopped supervisor is gone")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module\n", "importing train.py failed: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def good(params)\n    return 1\n", "importing train.py failed: SyntaxError: expected ':'"),
        ("goal = 1\n", "train.py has no good."),
    ],
    ids=["import", "syntax", "renamed"],
)
def test_an_objective_that_breaks_after_its_submission_fails_with_its_name(
    cluster: Cluster, books: Books, name: str, tmp_path: Path, text: str, message: str
) -> None:
    # Given a study whose file was sound
    train = tmp_path / "train.py"
    train.write_text("def good(params):\n    return 1.0\n")
    cluster.submit_here("train.py:good", 2, name=name, code_dir=str(tmp_path))
    books.wait_until_over(name)

    # When it is edited, and more trials are requested from a sound copy
    train.write_text(text)
    record = books.studies.get(name)
    assert books.studies.extend(record.id, {**record.spec, "n_trials": 4}, n_trials=4) == 2
    books.wait_until_over(name)

    # Then they fail and say why, and the node goes on
    books.assert_balanced(name, 4)
    broken = [attempt for attempt in books.attempts(name) if attempt.ending is Ending.FAILED]
    assert len(broken) == 2
    assert all(attempt.message is not None and message in attempt.message for attempt in broken)
    cluster.submit_here("noop", 2, name=f"{name}-after")
    books.wait_until_over(f"{name}-after")


@pytest.mark.parametrize("isolation", ["spawn", "none"])
def test_other_isolations(cluster: Cluster, books: Books, name: str, isolation: str) -> None:
    cluster.submit_here("slow", 4, name=name, isolation=isolation)
    books.wait_until_over(name)
    books.assert_balanced(name, 4)
    trials = books.trials(name)
    assert all(trial.state is TrialState.COMPLETE and len(trial.reports) == 1 for trial in trials)


def test_threads_that_a_trial_left_in_its_supervisor_do_not_reach_later_forks(
    cluster: Cluster, books: Books, name: str
) -> None:
    # Given supervisors in which a trial without isolation left a thread
    cluster.submit_here("leaves_a_thread", 4, name=f"{name}-before", isolation="none")
    books.wait_until_over(f"{name}-before")
    # When a study asks for forks
    cluster.submit_here("good", 6, name=name)
    books.wait_until_over(name)
    # Then it gets them
    books.assert_balanced(name, 6)
    assert {trial.state for trial in books.trials(name)} == {TrialState.COMPLETE}


def test_a_trial_without_isolation_that_cannot_be_ended_takes_its_supervisor_along(
    cluster: Cluster, books: Books, name: str
) -> None:
    cluster.submit_here("hangs", 2, name=name, isolation="none", trial_timeout=0.2)
    books.wait_until_over(name)
    books.assert_balanced(name, 2)
    attempts = books.attempts(name)
    assert [attempt.ending for attempt in attempts] == [Ending.TIMED_OUT] * 2
    for attempt in attempts:
        eventually(lambda pid=attempt.pid: not Path(f"/proc/{pid}").exists(), 15, what="the supervisor is gone")


def test_own_samplers_and_pruners_run_without_credentials_and_a_broken_one_harms_itself(
    cluster: Cluster, books: Books, name: str
) -> None:
    space = {"x": ["uniform", 0.0, 9.0]}
    own = {"search_space": space, "sampler": "plugins.py:Neighbours", "pruner": "plugins.py:AfterTwo"}
    broken = cluster.submit_here("good", 6, name=f"{name}-broken", sampler="plugins.py:Dies")
    cluster.submit_here("reports_and_prunes", 6, name=name, **own)
    books.wait_until_over(name)
    books.assert_balanced(name, 6)
    seen = optuna.load_study(study_name=name, storage=cluster.database_url).trials
    assert [trial.system_attrs["plugin:neighbours:secrets"] for trial in seen] == [[]] * 6
    assert {trial.system_attrs["plugin:after_two:asked"] for trial in seen} == {True}
    assert {trial.state for trial in books.trials(name)} == {TrialState.PRUNED}

    # The broken one has begun nothing, shows why on its page, and goes on once it is corrected
    record = eventually(lambda: fault_of(books, broken), what="the fault is known")
    assert record.startswith("plug-in sampler plugins.py:Dies: its process has ended")
    assert books.attempts(broken) == []
    cluster.submit_here("good", 6, name=broken)
    books.wait_until_over(broken)
    books.assert_balanced(broken, 6)
    assert fault_of(books, broken) is None


def test_own_sampler_that_fails_in_a_running_trial_costs_no_trial(cluster: Cluster, books: Books, name: str) -> None:
    cluster.submit_here("suggests_one", 3, name=name, sampler="plugins.py:Dies", search_space=None)
    record = eventually(lambda: fault_of(books, name), what="the fault is known")
    assert record.startswith("plug-in sampler plugins.py:Dies: its process has ended")
    cluster.submit_here("suggests_one", 3, name=name, search_space=None)
    books.wait_until_over(name)
    books.assert_balanced(name, 3)
    assert {attempt.ending for attempt in books.attempts(name)} == {Ending.RELEASED, Ending.COMPLETED}


def fault_of(books: Books, name: str) -> str | None:
    return books.studies.get(name).fault


def test_study_deleted_in_optuna_does_not_hold_up_the_others(cluster: Cluster, books: Books, name: str) -> None:
    # Of trials that report nothing: Optuna swallows the integrity error of a report that comes in between.
    cluster.submit_here("silent_by_study", 6, name=name)
    wait_until_running(books, name, 2)
    eventually(lambda: _deleted_in_optuna(cluster, name), what="Optuna has deleted the study")
    say_go(cluster, name)
    cluster.submit_here("noop", 4, name=f"{name}-beside")
    books.wait_until_over(f"{name}-beside")
    books.assert_balanced(f"{name}-beside", 4)
    assert books.wait_until_over(name).stop_reason == "deleted"
    with pytest.raises(StudyConflict, match="was deleted in Optuna"):
        cluster.submit_here("silent_by_study", 9, name=name)


def _deleted_in_optuna(cluster: Cluster, name: str) -> bool:
    optuna.delete_study(study_name=name, storage=cluster.database_url)
    return name not in optuna.get_all_study_names(cluster.database_url)


# --- coordinators -----------------------------------------------------------------------------------------------------


def test_three_leaders_at_once_do_no_harm(cluster: Cluster, books: Books, name: str) -> None:
    """Beside the coordinator of the cluster, two more decide and act without asking who leads."""
    over = threading.Event()
    failures: list[BaseException] = []

    def act() -> None:
        try:
            with opened(cluster.database_url) as access, Broker(cluster.redis_url) as broker:
                queues = QueueClient(broker)
                while not over.is_set():
                    act_as_leader(cluster, access, queues)
                    queues.wait(0.1)
                queues.close()
        except BaseException as error:
            failures.append(error)

    others = [threading.Thread(target=act) for _ in range(2)]
    for other in others:
        other.start()
    try:
        cluster.submit_here("good", 40, name=name)
        books.wait_until_over(name)
    finally:
        over.set()
        for other in others:
            other.join()
    assert failures == []
    books.assert_balanced(name, 40)
    assert [attempt.attempt for attempt in books.attempts(name)] == [1] * 40
    assert "invariant_broken" not in cluster.logs()


def act_as_leader(cluster: Cluster, access: Access, queues: QueueClient) -> None:
    urls = {"database_url": cluster.database_url, "redis_url": cluster.redis_url}
    settings = load_settings({}, **{**SHORT_PERIODS, "redispatch_s": 0.1, **urls})
    counters = Counters()
    faults = StudyFaults(Control(access.database), counters)
    reader = SnapshotReader(settings, database=access.database, queues=queues, faults=faults)
    executor = ActionExecutor(database=access.database, queues=queues, faults=faults, counters=counters)
    executor.execute(plan(reader.read(steady_s=settings.lease_s), settings))


def test_a_second_coordinator_waits_and_takes_over_when_the_leader_is_killed(
    cluster: Cluster, books: Books, name: str
) -> None:
    # Given a second coordinator beside the leader, and a study in its middle
    submitted_patiently(cluster, books, name)
    second = cluster.start_coordinator()
    log = cluster.folder / f"coordinator-{len(cluster.processes) - 1}.log"
    eventually(lambda: "serving" in log.read_text(), 30, what="the second coordinator serves")
    assert "action=lead" not in log.read_text()

    # When the leader is killed
    cluster.kill(cluster.processes[0])
    say_go(cluster, name)

    # Then the other leads and the study ends
    books.wait_until_over(name)
    books.assert_balanced(name, 6)
    assert len(books.trials(name)) == 6, "no attempt was lost"
    assert "action=lead term=2" in log.read_text()
    second.send_signal(signal.SIGTERM)
    assert second.wait(120) == 0
