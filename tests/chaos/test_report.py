"""What a run reports of its faults."""

from __future__ import annotations

from tests.chaos.books import Attempt
from tests.chaos.faults import Hit
from tests.chaos.report import Done, Report, recovery_times, summary, times_until_given_back
from tests.chaos.world import Slot


def test_ticket_is_given_back_before_it_runs_again() -> None:
    slots = [Slot(supervisor=1, trial=2, ticket=ticket, attempt=1) for ticket in (5, 6)]
    done = [Done("kill_trial", 100.0, Hit(victims=slots))]
    attempts = [
        Attempt(5, 1, 99.0, 100.5, "killed"),
        Attempt(5, 2, 102.0, 103.0, "completed"),
        Attempt(6, 1, 99.0, 100.1, "completed"),
    ]
    assert times_until_given_back(done, attempts) == {"kill_trial": [0.5]}
    assert recovery_times(done, attempts) == {"kill_trial": [2.0]}


def test_report_and_summary_show_the_mean_load() -> None:
    reports = [Report(1, loads=[2.0, 4.0]), Report(2, loads=[6.0, 12.0])]
    assert "load 3.0, " in reports[0].text()
    assert "load 6.0, " in summary(reports)
    assert "load" not in Report(3).text()
