"""What `run_attempt` makes of everything that an objective can do."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from shared import current
from shared.errors import InvalidInput, NoTrialRunning, TrialCancelled, TrialPruned, TrialStopped
from shared.execution import Objective, run_attempt
from shared.states import Ending
from shared.tracebacks import TRACEBACK_LIMIT
from shared.trial import Outcome


class RecordingChannel:
    """A channel that keeps what it hears, and raises or prunes as the test says."""

    def __init__(self, *, prunes: bool = False, raises: BaseException | None = None) -> None:
        self.heard: list[tuple[float, int]] = []
        self._prunes = prunes
        self._raises = raises

    def report(self, value: float, step: int) -> None:
        if self._raises is not None:
            raise self._raises
        self.heard.append((value, step))

    def should_prune(self) -> bool:
        return self._prunes


def attempt(objective: Objective, channel: RecordingChannel | None = None, **params: Any) -> Outcome:
    return run_attempt(objective, params, channel or RecordingChannel())


def raising(error: BaseException) -> Objective:
    def objective(params: dict[str, Any]) -> float:
        raise error

    return objective


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
        ([0.5], "type list: [0.5]"),
        ({"loss": 0.5}, "a dict is not accepted"),
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


def test_the_channel_is_bound_only_while_the_objective_runs() -> None:
    attempt(raising(ValueError("x")))

    with pytest.raises(NoTrialRunning, match="inside an objective"):
        current.channel()


def test_two_threads_run_two_trials_without_mixing_their_reports() -> None:
    both_run = threading.Barrier(2, timeout=10)
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

    stopped = attempt(objective, RecordingChannel(raises=TrialStopped("swap_spike:600.0MB")))
    cancelled = attempt(objective, RecordingChannel(raises=TrialCancelled("the study was cancelled")))

    assert (stopped.ending, stopped.cause, stopped.message) == (Ending.STOPPED, "swap_spike", "swap_spike:600.0MB")
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
def test_each_error_has_its_cause(error: BaseException, cause: str) -> None:
    outcome = attempt(raising(error))

    assert (outcome.ending, outcome.cause) == (Ending.FAILED, cause)


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
    assert "shared/execution.py" not in outcome.traceback
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
    assert 0 <= outcome.duration_s < 1


def test_the_core_imports_neither_optuna_nor_numpy() -> None:
    program = "import sys, shared.execution; print([m for m in ('optuna', 'numpy', 'sqlalchemy') if m in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"
