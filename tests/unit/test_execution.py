"""What `run_attempt` makes of everything that an objective can do."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import highnoon as hn
from highnoon.shared.domain.errors import InvalidInput, NoTrialRunning, TrialCancelled, TrialPruned, TrialStopped
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.tracebacks import TRACEBACK_LIMIT
from highnoon.shared.domain.trial import MetricHistory, Outcome
from highnoon.shared.objective import running_trial
from highnoon.shared.objective import trial_context as current
from highnoon.shared.objective.attempt import Objective, run_attempt
from highnoon.shared.store.trial_results import trial_result


class RecordingChannel:
    """A channel that keeps what it gets, and raises or prunes as the test asks."""

    def __init__(self, *, prunes: bool = False, raises: BaseException | None = None) -> None:
        self.heard: list[tuple[float, int]] = []
        self.sizes: list[tuple[int, int | None]] = []
        self.progressed = 0
        self.histories: list[MetricHistory] = []
        self._prunes = prunes
        self._raises = raises

    def report(self, value: float, step: int) -> None:
        if self._raises is not None:
            raise self._raises
        self.heard.append((value, step))

    def should_prune(self) -> bool:
        return self._prunes

    def progress(self) -> None:
        self.progressed += 1

    def report_params(self, total: int, active: int | None = None) -> None:
        self.sizes.append((total, active))

    def keep_history(self, history: MetricHistory) -> None:
        self.histories.append(history)


def attempt(
    objective: Objective, channel: RecordingChannel | None = None, scoring: Scoring | None = None, **params: Any
) -> Outcome:
    return run_attempt(objective, params, channel or RecordingChannel(), scoring or Scoring())


def raising(error: BaseException) -> Objective:
    def objective(params: dict[str, Any]) -> float:
        raise error

    return objective


def test_warns_once_of_steps_reported_twice_and_of_reports_that_are_no_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def objective(params: dict[str, Any]) -> float:
        for value, step in ((1.0, 0), (2.0, 0), (3.0, 0), (math.nan, 1), (math.nan, 2)):
            current.channel().report(value, step)
        return 1.0

    monkeypatch.setattr(running_trial, "_warned", set())
    for _ in range(3):
        assert attempt(objective).ending is Ending.COMPLETED
    assert caplog.messages == [
        "report(): step 0 was reported before in this trial: the first value of a step stays",
        "report(): the value reported at step 1 is NaN, which pruners take for the worst",
    ]


def test_steps_are_compared_up_to_a_number_that_memory_has_room_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running_trial, "_warned", set())
    monkeypatch.setattr(running_trial, "_MOST_STEPS", 3)

    def reports(*steps: int) -> Objective:
        def objective(params: dict[str, Any]) -> float:
            for step in steps:
                current.channel().report(1.0, step)
            return 1.0

        return objective

    attempt(reports(0, 1, 2, 3, 4, 4))
    assert caplog.messages == []
    attempt(reports(0, 1, 2, 3, 4, 1))
    assert caplog.messages == ["report(): step 1 was reported before in this trial: the first value of a step stays"]


class Hostile:
    """A value that raises from every special method that might look at it."""

    def __float__(self) -> float:
        raise RuntimeError("no float")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class FakeTensor:
    """What an eager TensorFlow scalar looks like from outside."""

    shape = ()

    def __init__(self, value: float, dtype: str) -> None:
        self._value = value
        self.dtype = np.dtype(dtype)

    def __float__(self) -> float:
        return self._value


def test_an_objective_for_a_trial_learns_from_its_first_failure_that_it_gets_a_dict() -> None:
    outcome = attempt(lambda trial: trial.suggest_float("x", 0, 1), x=1.0)
    assert outcome.message.startswith(
        "AttributeError: 'dict' object has no attribute 'suggest_float'. With a search_space"
    )
    assert "Leave the search_space out, and it gets a trial" in outcome.message

    other = attempt(lambda params: {}.suggest_float, x=1.0)
    assert other.message == "AttributeError: 'dict' object has no attribute 'suggest_float'"


@pytest.mark.parametrize(
    ("returned", "value"),
    [
        (0.25, 0.25),
        (3, 3.0),
        (-0.0, 0.0),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.array(0.75), 0.75),
        (Fraction(1, 4), 0.25),
        (FakeTensor(1.5, "float32"), 1.5),
    ],
)
def test_one_finite_number_completes(returned: object, value: float) -> None:
    outcome = attempt(lambda params: returned)

    assert outcome.ending is Ending.COMPLETED
    assert outcome.value == value
    assert type(outcome.value) is float
    assert outcome.cause is None


@pytest.mark.parametrize(
    ("returned", "described"),
    [
        (None, "returned None"),
        (math.nan, "returned nan"),
        (np.float32("nan"), "returned nan"),
        ("0.5", "type str: '0.5'"),
        (b"0.5", "type bytes: b'0.5'"),
        (np.str_("0.5"), "type str_"),
        ((0.5, 0.9), "type tuple: (0.5, 0.9)"),
        ([[0.5]], "type list: [0.5]"),
        ({}, "a dict with no loss"),
        ({"params": 5}, "a dict with no loss"),
        ({"los": 0.5}, "Did you mean loss?"),
        ({"loss": None}, "returned None as loss"),
        ({"loss": math.nan, "params": 5}, "returned nan as loss"),
        (True, "type bool: True"),
        (np.True_, "type bool"),
        (FakeTensor(1.0, "bool"), "type FakeTensor"),
        (1j, "type complex: 1j"),
        (np.complex64(1 + 2j), "type complex64"),
        (np.array([0.5, 0.9]), "type ndarray, shape (2,): array([0.5, 0.9])"),
        (np.array([]), "type ndarray, shape (0,)"),
        (10**400, "returned 1000"),
        (Hostile(), "type Hostile"),
        (len, "type builtin_function_or_method"),
    ],
)
def test_anything_else_fails_and_says_what_was_returned(returned: object, described: str) -> None:
    outcome = attempt(lambda params: returned)

    assert outcome.ending is Ending.FAILED
    assert outcome.cause == "invalid_result"
    assert outcome.value is None
    assert described in outcome.message
    assert "expected one number" in outcome.message
    assert "\n" not in outcome.message
    assert len(outcome.message) < 300


@pytest.mark.parametrize("returned", [(0.5,), [np.float32(0.5)]])
def test_a_sequence_of_one_number_is_that_number_as_in_optuna(returned: object) -> None:
    assert attempt(lambda params: returned).value == 0.5


def test_a_huge_result_is_shown_shortened() -> None:
    outcome = attempt(lambda params: ["x" * 1000] * 1000)

    assert len(outcome.message) < 600


def test_the_objective_gets_a_dict_of_its_own() -> None:
    params = {"lr": 0.1}

    def objective(own: dict[str, Any]) -> float:
        own["lr"] = 0.2
        return 0.0

    run_attempt(objective, params, RecordingChannel())

    assert params == {"lr": 0.1}


def test_reports_reach_the_channel_as_plain_numbers() -> None:
    channel = RecordingChannel()

    def objective(params: dict[str, Any]) -> float:
        current.channel().report(np.float32(0.5), np.int64(0))  # type: ignore[arg-type]
        current.channel().report(math.nan, 1)
        current.channel().report(2, 2)
        return 1.0

    assert attempt(objective, channel).ending is Ending.COMPLETED
    assert [step for _, step in channel.heard] == [0, 1, 2]
    assert channel.heard[0] == (0.5, 0)
    assert math.isnan(channel.heard[1][0])
    assert all(type(value) is float and type(step) is int for value, step in channel.heard)


@pytest.mark.parametrize(
    ("value", "step", "key"),
    [
        ("0.5", 0, "value"),
        (None, 0, "value"),
        (True, 0, "value"),
        ([0.5], 0, "value"),
        (Hostile(), 0, "value"),
        (0.5, -1, "step"),
        (0.5, 1.0, "step"),
        (0.5, "1", "step"),
        (0.5, True, "step"),
        (0.5, None, "step"),
    ],
)
def test_a_report_that_is_none_is_refused_with_its_key(value: Any, step: Any, key: str) -> None:
    channel = RecordingChannel()
    refused: list[InvalidInput] = []

    def objective(params: dict[str, Any]) -> float:
        try:
            current.channel().report(value, step)
        except InvalidInput as error:
            refused.append(error)
        return 1.0

    attempt(objective, channel)

    assert [problem.key for problem in refused[0].problems] == [key]
    assert channel.heard == []


def test_both_mistakes_of_a_report_are_told_at_once() -> None:
    outcome = attempt(lambda params: current.channel().report("low", -1))  # type: ignore[arg-type, func-returns-value]

    assert outcome.ending is Ending.FAILED
    assert outcome.message == (
        "InvalidInput: report(value, step): value: must be one number, not a value of type str: 'low'. "
        "step: must be an integer >= 0, not -1."
    )


def test_step_that_optuna_cannot_store_is_the_trials_own_mistake() -> None:
    outcome = attempt(lambda params: current.channel().report(1.0, 2**31))  # type: ignore[func-returns-value]

    assert outcome.ending is Ending.FAILED
    assert (
        "step: must be at most 2147483647, not 2147483648. Report the number of the epoch or batch." in outcome.message
    )


def test_the_channel_is_bound_only_while_the_objective_runs() -> None:
    attempt(raising(ValueError("x")))

    with pytest.raises(NoTrialRunning, match="inside an objective"):
        current.channel()


def test_two_threads_run_two_trials_without_mixing_their_reports() -> None:
    both_run = threading.Barrier(2, timeout=60)
    channels = [RecordingChannel(), RecordingChannel()]

    def objective(params: dict[str, Any]) -> float:
        both_run.wait()
        current.channel().report(params["mine"], 0)
        both_run.wait()
        return 0.0

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda i: attempt(objective, channels[i], mine=float(i)), range(2)))

    assert {outcome.ending for outcome in outcomes} == {Ending.COMPLETED}
    assert [channel.heard for channel in channels] == [[(0.0, 0)], [(1.0, 0)]]


def test_a_thread_of_the_objective_reports_for_its_trial() -> None:
    channel = RecordingChannel()

    def objective(params: dict[str, Any]) -> float:
        thread = threading.Thread(target=lambda: current.channel().report(0.5, 0))
        thread.start()
        thread.join()
        return 0.0

    attempt(objective, channel)

    assert channel.heard == [(0.5, 0)]


@pytest.mark.parametrize(
    ("reports", "value"),
    [([], None), ([(0.9, 0), (0.7, 1)], 0.7), ([(0.7, 1), (0.9, 0)], 0.7), ([(0.9, 0), (math.nan, 1)], None)],
)
def test_pruned_keeps_the_report_of_the_last_step(reports: list[tuple[float, int]], value: float | None) -> None:
    def objective(params: dict[str, Any]) -> float:
        for report in reports:
            current.channel().report(*report)
        raise TrialPruned

    outcome = attempt(objective, RecordingChannel(prunes=True))

    assert (outcome.ending, outcome.cause, outcome.value) == (Ending.PRUNED, "pruner", value)
    assert outcome.traceback == ""


def test_the_first_value_of_a_step_wins() -> None:
    def objective(params: dict[str, Any]) -> float:
        current.channel().report(0.5, 3)
        current.channel().report(0.1, 3)
        raise TrialPruned

    assert attempt(objective).value == 0.5


def test_optunas_own_pruned_signal_prunes_too() -> None:
    optuna = pytest.importorskip("optuna")

    assert attempt(raising(optuna.TrialPruned())).ending is Ending.PRUNED


def test_stopped_and_cancelled_carry_their_reason() -> None:
    def objective(params: dict[str, Any]) -> None:
        current.channel().report(0.5, 0)

    stopped = attempt(objective, RecordingChannel(raises=TrialStopped("swap: 600 MB", cause="swap")))
    cancelled = attempt(objective, RecordingChannel(raises=TrialCancelled("the study was cancelled")))

    assert (stopped.ending, stopped.cause, stopped.message) == (Ending.STOPPED, "swap", "swap: 600 MB")
    assert (cancelled.ending, cancelled.message) == (Ending.CANCELLED, "the study was cancelled")


@pytest.mark.parametrize(
    ("code", "message", "status"),
    [
        (3, "the objective called sys.exit(3)", 3),
        (None, "the objective called sys.exit()", 0),
        (0, "the objective called sys.exit(0)", 0),
        ("no data", "the objective called sys.exit('no data')", 1),
    ],
)
def test_sys_exit_fails_the_trial_only(code: Any, message: str, status: int) -> None:
    outcome = attempt(lambda params: sys.exit(code))

    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "exited")
    assert (outcome.message, outcome.exit_status) == (message, status)


def test_keyboard_interrupt_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(raising(KeyboardInterrupt()))

    with pytest.raises(NoTrialRunning):
        current.channel()


def named(name: str, message: str) -> Exception:
    error: Exception = type(name, (Exception,), {})(message)
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "out_of_memory"),
        (
            named("ResourceExhaustedError", "OOM when allocating tensor on /device:GPU:0 by allocator GPU_0_bfc"),
            "oom_gpu",
        ),
        (
            named("ResourceExhaustedError", "OOM when allocating tensor on /device:CPU:0 by allocator cpu"),
            "out_of_memory",
        ),
        (ValueError("bad"), "exception"),
        (GeneratorExit(), "exception"),
        (RecursionError("deep"), "exception"),
    ],
)
def test_each_error_has_its_cause_and_what_did_not_fit_into_memory_is_stopped(error: BaseException, cause: str) -> None:
    outcome = attempt(raising(error))

    assert (outcome.ending, outcome.cause) == (Ending.FAILED if cause == "exception" else Ending.STOPPED, cause)
    assert outcome.traceback


def test_the_message_is_one_line_and_the_traceback_shows_the_users_frames_only() -> None:
    def inner() -> None:
        raise ValueError("first\nsecond")

    def objective(params: dict[str, Any]) -> None:
        try:
            inner()
        except ValueError as error:
            raise RuntimeError("outer") from error

    outcome = attempt(objective)

    assert outcome.message == "RuntimeError: outer"
    assert "in inner" in outcome.traceback
    assert "in objective" in outcome.traceback
    assert "direct cause" in outcome.traceback
    assert "shared/objective/attempt.py" not in outcome.traceback
    assert attempt(raising(ValueError("first\nsecond"))).message == "ValueError: first second"


def test_a_long_traceback_loses_its_middle() -> None:
    outcome = attempt(raising(ValueError("\n".join(["head", *["x" * 100] * 1000, "tail"]))))

    assert len(outcome.traceback) <= TRACEBACK_LIMIT
    assert outcome.traceback.startswith("Traceback")
    assert outcome.traceback.rstrip().endswith("tail")
    assert "characters left out" in outcome.traceback


def test_text_that_a_database_refuses_is_escaped() -> None:
    outcome = attempt(raising(ValueError("nul \0 and lone \udcff surrogate")))

    assert outcome.message == "ValueError: nul \\x00 and lone \\udcff surrogate"
    outcome.traceback.encode("utf-8")
    assert "\0" not in outcome.traceback


def test_an_error_that_cannot_be_printed_still_fails_the_trial() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    outcome = attempt(raising(Unprintable()))

    assert (outcome.ending, outcome.message) == (Ending.FAILED, "Unprintable")


def test_the_duration_is_measured() -> None:
    outcome = attempt(lambda params: 1.0)

    assert outcome.duration_s is not None
    assert 0 <= outcome.duration_s < 60


def test_the_core_imports_neither_optuna_nor_numpy() -> None:
    loaded_names = "[m for m in ('optuna', 'numpy', 'sqlalchemy') if m in sys.modules]"
    program = f"import sys, highnoon.shared.objective.attempt; print({loaded_names})"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"


# --- Size and score

BUDGET = Scoring(param_budget=1000)
HARD = Scoring(param_budget=1000, param_budget_hard=True)


def sized(loss: object, *, reports: int = 0, params: Any = 500, active: Any = None, returns: bool = False) -> Objective:
    """An objective that reports its size, by a call or with its result, and its loss so often."""

    def objective(_: dict[str, Any]) -> object:
        if not returns:
            current.channel().report_params(params, active)
        for step in range(reports):
            current.channel().report(loss, step)  # type: ignore[arg-type]
        return {"loss": loss, "params": params, "active_params": active} if returns else loss

    return objective


@pytest.mark.parametrize("returns", [False, True])
def test_a_size_can_be_called_or_returned(returns: bool) -> None:
    outcome = attempt(sized(0.1, params=np.int64(500), active=200, returns=returns), scoring=BUDGET)

    assert (outcome.ending, outcome.loss, outcome.value) == (Ending.COMPLETED, 0.1, pytest.approx(0.105))
    assert (outcome.params_count, outcome.active_params) == (500, 200)
    assert type(outcome.params_count) is int


def test_without_a_budget_size_is_kept_and_changes_nothing() -> None:
    outcome = attempt(sized(-0.1, reports=1))

    assert (outcome.value, outcome.loss, outcome.params_count) == (-0.1, -0.1, 500)


def test_reports_and_result_are_scored_alike() -> None:
    channel = RecordingChannel()

    outcome = attempt(sized(0.1, reports=2), channel, BUDGET)

    assert [value for value, _ in channel.heard] == [outcome.value, outcome.value]
    assert channel.sizes == [(500, None)]


def test_a_pruned_trial_keeps_the_loss_beside_its_score() -> None:
    def objective(_: dict[str, Any]) -> None:
        current.channel().report_params(500)
        current.channel().report(0.1, 0)
        raise TrialPruned

    outcome = attempt(objective, scoring=BUDGET)

    assert (outcome.ending, outcome.value, outcome.loss) == (Ending.PRUNED, pytest.approx(0.105), 0.1)
    assert outcome.params_count == 500


@pytest.mark.parametrize(
    "objective",
    [
        lambda _: 0.1,
        lambda _: {"loss": 0.1},
        lambda _: current.channel().report(0.1, 0),
    ],
)
def test_a_missing_count_fails_and_names_the_three_ways(objective: Objective) -> None:
    channel = RecordingChannel()

    outcome = attempt(objective, channel, BUDGET)

    assert (outcome.ending, outcome.cause, outcome.value) == (Ending.FAILED, "no_param_count", None)
    for way in ("hn.create_model", "hpo.report_params(n)", '{"loss": ..., "params": ...}'):
        assert way in outcome.message
    assert channel.heard == []


@pytest.mark.parametrize("returns", [False, True])
def test_what_cannot_be_scored_fails_and_says_why(returns: bool) -> None:
    outcome = attempt(sized(-0.9, reports=0 if returns else 1, returns=returns), scoring=BUDGET)

    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "invalid_result")
    assert "a larger model would win" in outcome.message


@pytest.mark.parametrize(
    ("params", "active", "key"),
    [
        (0, None, "params"),
        (-5, None, "params"),
        (2**63, None, "params"),
        (5.5, None, "params"),
        (math.nan, None, "params"),
        ("5", None, "params"),
        (True, None, "params"),
        (None, 5, "params"),
        (Hostile(), None, "params"),
        (5, 0, "active_params"),
        (5, 6, "active_params"),
    ],
)
@pytest.mark.parametrize("returns", [False, True])
def test_what_is_no_count_is_refused_with_its_key(params: Any, active: Any, key: str, returns: bool) -> None:
    outcome = attempt(sized(0.1, params=params, active=active, returns=returns))

    assert (outcome.ending, outcome.cause) == (Ending.FAILED, "invalid_result" if returns else "exception")
    assert f"{key}: must be" in outcome.message


def test_a_sum_of_numpys_products_is_a_count() -> None:
    shapes: list[tuple[int, ...]] = [(3, 4), ()]

    assert attempt(sized(0.1, params=sum(np.prod(shape) for shape in shapes))).params_count == 13


def test_the_last_count_before_the_first_report_counts() -> None:
    def objective(_: dict[str, Any]) -> float:
        current.channel().report_params(100)
        current.channel().report_params(500)
        return 0.1

    assert attempt(objective, scoring=BUDGET).params_count == 500


@pytest.mark.parametrize("returns", [False, True])
def test_a_trial_keeps_the_size_that_its_reports_were_scored_with(returns: bool) -> None:
    def objective(_: dict[str, Any]) -> object:
        current.channel().report_params(500)
        current.channel().report(0.1, 0)
        if returns:
            return {"loss": 0.1, "params": 600}
        current.channel().report_params(600)
        return 0.1

    outcome = attempt(objective, scoring=BUDGET)

    assert (outcome.ending, outcome.cause, outcome.params_count) == (Ending.FAILED, "invalid_result", 500)
    assert "600 parameters now" in outcome.message


def test_beyond_a_hard_budget_a_trial_ends_before_training() -> None:
    channel = RecordingChannel()

    outcome = attempt(sized(0.1, reports=3, params=1500), channel, HARD)

    assert (outcome.ending, outcome.cause, outcome.constraint) == (Ending.STOPPED, "param_budget", 0.5)
    assert outcome.message == "1,500 parameters, 1,000 allowed"
    assert (outcome.params_count, outcome.value) == (1500, None)
    assert channel.heard == []


def test_a_hard_budget_holds_where_the_signal_was_swallowed_or_the_size_came_late() -> None:
    def swallows(_: dict[str, Any]) -> float:
        with contextlib.suppress(Exception):
            current.channel().report_params(1500)
        return 0.1

    for outcome in (attempt(swallows, scoring=HARD), attempt(sized(0.1, params=1500, returns=True), scoring=HARD)):
        assert (outcome.ending, outcome.cause, outcome.constraint) == (Ending.STOPPED, "param_budget", 0.5)
        assert outcome.loss == 0.1


def test_within_a_hard_budget_nothing_is_stopped() -> None:
    assert attempt(sized(0.1, params=1000, reports=1), scoring=HARD).ending is Ending.COMPLETED


def test_a_stop_carries_how_far_it_was_from_feasible() -> None:
    outcome = attempt(raising(TrialStopped("memory_forecast: 3 GB", cause="memory_forecast", constraint=0.5)))

    assert (outcome.ending, outcome.cause, outcome.constraint) == (Ending.STOPPED, "memory_forecast", 0.5)


@pytest.mark.parametrize("reason", ["plateau: no progress", "memory_guard: no, the validation set is too small", ""])
def test_a_stop_by_the_objective_has_one_cause_whatever_its_reason(reason: str) -> None:
    outcome = attempt(raising(TrialStopped(reason)))
    assert (outcome.ending, outcome.cause, outcome.message) == (Ending.STOPPED, "stopped", reason)
    assert trial_result(outcome).system_attrs == {}, "no constraint: it is no limit that it missed"


def test_logged_and_returned_numbers_are_kept_with_the_outcome(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_trial, "_warned", set())

    def objective(params: dict[str, Any]) -> object:
        hn.log(accuracy=0.5, step=1)
        hn.log(2, accuracy=np.float32(0.75), worst=math.inf)
        hn.log(1, accuracy=0.1)
        return {"loss": 0.25, "f1": 0.5, "curve": [1, 2], 7: 3, "params": 12}

    outcome = attempt(objective)

    assert outcome.ending is Ending.COMPLETED and outcome.value == 0.25 and outcome.params_count == 12
    assert outcome.metrics == {"accuracy": 0.75, "worst": "inf", "f1": 0.5}
    assert "the result: 'curve', 7 of the returned dict: no number, and not kept" in caplog.text
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_a_trial_that_fails_keeps_what_it_logged() -> None:
    def objective(params: dict[str, Any]) -> object:
        hn.log(accuracy=0.5)
        raise ValueError

    assert attempt(objective).metrics == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("arguments", "step", "words"),
    [
        ({"accuracy": "0.5"}, None, "accuracy: must be one number, not a value of type str: '0.5'"),
        ({"accuracy": None}, None, "accuracy: must be one number, not None"),
        ({"highnoon:loss": 1.0}, None, "name: must be 1 to 100 printable characters"),
        ({"accuracy": 1.0}, -1, "step: must be an integer from 0 to 2147483647, not -1"),
        ({"accuracy": 1.0}, 2**31, "step: must be an integer"),
    ],
)
def test_what_is_no_metric_is_refused(arguments: dict[str, Any], step: Any, words: str) -> None:
    def objective(params: dict[str, Any]) -> object:
        hn.log(step, **arguments)
        return 1.0

    outcome = attempt(objective)
    assert outcome.ending is Ending.FAILED and words in outcome.message
