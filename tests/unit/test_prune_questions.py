"""When a trial process asks whether it is to be pruned, and when the answer is certain."""

from __future__ import annotations

import math

import pytest

from highnoon.shared.domain.errors import TrialCancelled
from highnoon.shared.domain.safe_reports import SafeReports
from highnoon.shared.objective.prune_questions import PruneQuestions
from highnoon.shared.objective.trial_pipe import Pipe, PipeChannel
from highnoon.workers import kernel

SAFE = SafeReports(for_s=1.0, before_step=2, bounds={3: 0.5, 4: 0.4})


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def questions(clock: Clock) -> PruneQuestions:
    return PruneQuestions(clock)


def needless(questions: PruneQuestions, *reports: tuple[int, float]) -> list[bool]:
    found = []
    for step, value in reports:
        questions.note(value, step)
        found.append(questions.can_skip())
    return found


def test_the_first_question_is_always_asked(questions: PruneQuestions) -> None:
    assert needless(questions, (0, 0.1)) == [False]
    questions.set_safe_reports(None)
    assert needless(questions, (1, 0.1)) == [False], "a pruner that must be asked each time"


def test_report_is_safe_by_its_step_or_by_the_best_value_so_far(questions: PruneQuestions) -> None:
    questions.set_safe_reports(SAFE.to_json())
    assert needless(questions, (0, 9.0), (1, 0.5), (2, 0.1), (3, 9.0), (4, 9.0), (5, 0.0)) == [
        *[True, True],
        *[False, True, True],  # of step 2 nothing is known; then the best one so far is 0.1
        False,
    ]


def test_value_at_the_bound_is_safe_and_one_beyond_is_asked_about(questions: PruneQuestions) -> None:
    questions.set_safe_reports(SAFE.to_json())
    assert needless(questions, (3, 0.5), (4, 0.45)) == [True, False]


def test_scores_that_are_maximized_are_safe_above_the_bound(questions: PruneQuestions) -> None:
    questions.set_safe_reports(SafeReports(for_s=1.0, bounds={1: 0.5, 2: 0.9}, maximizes=True).to_json())
    assert needless(questions, (1, 0.6), (2, 0.7)) == [True, False]


def test_what_is_safe_expires(questions: PruneQuestions, clock: Clock) -> None:
    questions.set_safe_reports(SAFE.to_json())
    clock.now += 0.9
    assert needless(questions, (0, 9.0)) == [True]
    clock.now += 0.2
    assert needless(questions, (1, 9.0)) == [False]


@pytest.mark.parametrize("reports", [[(3, 0.1), (1, 0.1)], [(1, 0.1), (1, 0.1)]], ids=["backwards", "twice"])
def test_reports_out_of_order_are_asked_about(questions: PruneQuestions, reports: list[tuple[int, float]]) -> None:
    questions.set_safe_reports(SAFE.to_json())
    assert needless(questions, *reports) == [True, False]


def test_nan_is_no_best_value(questions: PruneQuestions) -> None:
    questions.set_safe_reports(SAFE.to_json())
    assert needless(questions, (3, math.nan)) == [False]
    assert needless(questions, (4, 0.1)) == [True]


def test_cancelled_trial_learns_it_also_where_it_need_not_ask() -> None:
    ours, theirs = kernel.socket_pair()
    supervisor, channel = Pipe(ours), PipeChannel(Pipe(theirs))
    channel.report(0.1, 0)
    supervisor.send(
        {"event": "answer", "id": 1, "answer": False, "safe": SafeReports(for_s=600.0, before_step=9).to_json()}
    )
    assert channel.should_prune() is False and channel.should_prune() is False
    assert [event["event"] for event in supervisor.receive(0.0)] == ["report", "ask"]
    supervisor.send({"event": "cancel"})
    with pytest.raises(TrialCancelled):
        channel.should_prune()
