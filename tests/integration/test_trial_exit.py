"""Trials that leave slowly after their result: their lease is renewed, and nothing changes the result any more."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.workers.trial.launch import ExitStatus, TrialHandle
from tests.integration.test_trial_process import CANCELLED, RELEASED, Diary, begin

LOST = "lost"


@dataclass
class Leaving(Diary):
    """Once the trial leaves, study or node have a wish; three looks later the trial may end."""

    folder: Path = field(default_factory=Path)
    wish: Outcome | str | None = None
    may_end: bool = True
    looks_at_leaving: int = 0

    def interruption(self) -> Outcome | None:
        self.looks_at_leaving += (self.folder / "leaving").exists()
        if self.looks_at_leaving == 2:  # its result, which came before, has been read by now
            self.lost = self.wish == LOST
            self.end_with = self.wish if isinstance(self.wish, Outcome) else None
        if self.looks_at_leaving == 5 and self.may_end:
            (self.folder / "go").touch()
        return super().interruption()


@pytest.fixture(autouse=True)
def _go_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_GO_FILE", str(tmp_path / "go"))


@pytest.mark.parametrize("wish", [None, CANCELLED, RELEASED], ids=["nothing", "cancel", "drain"])
def test_lease_is_renewed_while_a_trial_leaves_and_its_result_stands(tmp_path: Path, wish: Outcome | None) -> None:
    diary = Leaving(folder=tmp_path, wish=wish)
    outcome = begin(tmp_path, "leaves_slowly").watch(diary, kill_grace_s=20.0)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0)
    assert outcome.exit_status == 0, "it had its time to leave"


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_threads_of_a_trial_finish_their_work_before_its_exit_functions_run(tmp_path: Path, isolation: str) -> None:
    outcome = begin(tmp_path, "leaves_threads", isolation=isolation).watch(Leaving(folder=tmp_path), kill_grace_s=20.0)
    assert (outcome.ending, outcome.value, outcome.exit_status) == (Ending.COMPLETED, 1.0, 0)
    assert "done: ['pool', 'thread']" in outcome.log_tail


def test_threads_that_do_not_end_are_killed_after_the_grace_period_and_the_result_stands(tmp_path: Path) -> None:
    attempt = begin(tmp_path, "leaves_threads")
    outcome = attempt.watch(Leaving(folder=tmp_path, may_end=False), kill_grace_s=0.5)
    assert (outcome.ending, outcome.value, outcome.exit_status) == (Ending.COMPLETED, 1.0, None)
    assert attempt.has_ended
    assert (tmp_path / "table.csv").read_text() == "written before the result\n"
    assert outcome.log_tail.count("highnoon: killed 0.5 s after its result (HIGHNOON_KILL_GRACE_S): a thread,") == 1


def test_lost_lease_ends_a_trial_that_leaves_and_its_result_is_not_changed(tmp_path: Path) -> None:
    diary = Leaving(folder=tmp_path, wish=LOST, may_end=False)
    attempt = begin(tmp_path, "leaves_slowly")
    outcome = attempt.watch(diary, kill_grace_s=20.0)
    assert (outcome.ending, outcome.value, outcome.exit_status) == (Ending.COMPLETED, 1.0, None)
    assert diary.lost and attempt.has_ended


class Large:
    """A trial whose memory the kernel frees slowly: its end is seen five looks after SIGKILL."""

    def __init__(self, trial: TrialHandle, diary: Diary) -> None:
        self.trial, self.diary = trial, diary
        self.pid, self.pipe = trial.pid, trial.pipe
        self.killed_at_look: int | None = None

    def exit_fds(self) -> list[int]:
        return []

    def poll(self) -> ExitStatus | None:
        is_freed = self.killed_at_look is not None and self.looks_since_kill() >= 5
        return self.trial.poll() if is_freed else None

    def looks_since_kill(self) -> int:
        return len(self.diary.looks) - (self.killed_at_look or 0)

    def kill(self, signum: int) -> None:
        if self.killed_at_look is None:
            self.killed_at_look = len(self.diary.looks)
        self.trial.kill(signum)

    def clean_up(self, wait_s: float) -> bool:
        return self.trial.clean_up(wait_s)


def test_lease_is_renewed_while_a_killed_trial_ends(tmp_path: Path) -> None:
    diary = Leaving(folder=tmp_path, may_end=False)
    attempt = begin(tmp_path, "leaves_slowly")
    attempt.trial = large = Large(attempt.trial, diary)
    outcome = attempt.watch(diary, kill_grace_s=1.0)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0)
    assert large.killed_at_look is not None and large.looks_since_kill() >= 5
    assert attempt.has_ended


def test_attributes_that_are_left_out_are_noted_once_and_the_trial_completes(tmp_path: Path) -> None:
    suggestions = SimpleNamespace(take=lambda setting: setting["value"] < 10)
    outcome = begin(tmp_path, "sets_attributes", defines_by_run=True).watch(Diary(suggestions=suggestions))
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0)
    assert outcome.log_tail.count("attributes come faster than they are stored") == 1
