"""The supervisor around one attempt: what it writes, and when it ends instead of waiting."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.errors import LeaseLost
from highnoon.shared.domain.extension import Extension
from highnoon.shared.domain.lease import Disposition, Lease, Progress
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.objective.trial_pipe import Pipe
from highnoon.shared.runtime.settings import load_settings
from highnoon.workers import kernel, store_thread, supervisor
from highnoon.workers.claim import OpenStudy, StartedAttempt
from highnoon.workers.code.code_gate import Code
from highnoon.workers.leftovers import remove_stray_scratch
from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotStates
from highnoon.workers.store_thread import StoreThread
from highnoon.workers.supervisor import Supervisor
from highnoon.workers.trial.launch import ExitStatus
from highnoon.workers.trial.process import SAVED_FILES
from tests.unit.test_claim import LEASE, MESSAGE, Stub

PID = 999_999_999
SPEC = StudySpec(
    name="digits",
    objective="train:objective",
    search_space={"x": ["uniform", 0, 1]},
    n_trials=9,
    trial_timeout=0.2,
)
COMPLETED = Outcome(ending=Ending.COMPLETED, value=0.5, loss=0.5)


class Replaced(BaseException):
    """The supervisor's process ended itself."""


@dataclass
class Ledger:
    """The attempts: what was finished and reaped. `answers` is cleared to freeze it."""

    finished: list[tuple[Outcome, Disposition, str, Sequence[Report]]] = field(default_factory=list)
    reaped: list[str] = field(default_factory=list)
    renewals: int = 0
    error: Exception | None = None
    answers: threading.Event = field(default_factory=threading.Event)
    at_finish: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.answers.set()

    def finish(
        self,
        lease: Lease,
        outcome: Outcome,
        *,
        disposition: Disposition,
        delay_s: float,
        reports: Sequence[Report],
        token: str,
    ) -> None:
        self.answers.wait(20.0)
        self.at_finish()
        if self.error is not None:
            raise self.error
        self.finished.append((outcome, disposition, token, reports))

    def renew(self, lease: Lease, progress: Progress, reports: Sequence[Report]) -> bool:
        self.renewals += 1
        return False

    def note_file(self, lease: Lease, file_id: str) -> None:
        """Before it is written."""

    def reap(self, ticket_id: int, attempt: int, *, message: str, only_expired: bool) -> None:
        self.reaped.append(message)


class Trial:
    """A trial that sends `events` and ends, or that nothing ends."""

    def __init__(self, *events: dict[str, Any], ends: bool = True) -> None:
        ours, theirs = kernel.socket_pair()
        self.pid: int | None = PID
        self.pipe = Pipe(ours)
        self.ends = ends
        self.killed_by: list[int] = []
        self.waited_s: float | None = None
        self._theirs = Pipe(theirs)
        for event in events:
            self._theirs.send(event)

    def exit_fds(self) -> list[int]:
        return []

    def poll(self) -> ExitStatus | None:
        return ExitStatus(status=0) if self.ends else None

    def kill(self, signum: int) -> None:
        self.killed_by.append(signum)

    def clean_up(self, wait_s: float) -> bool:
        self.waited_s = wait_s
        self.pipe.close()
        self._theirs.close()
        return self.ends


def result(outcome: Outcome) -> dict[str, Any]:
    return {"event": "result", "outcome": outcome.to_json(), "interrupted": False}


@dataclass
class Slot:
    """A supervisor without services: its trial, its ledger, its node."""

    node: Node
    supervisor: Any
    ledger: Ledger
    monkeypatch: pytest.MonkeyPatch

    def run(self, trial: Trial | Exception, *, at_launch: Callable[[], object] = lambda: None) -> None:
        def launched(*_: object) -> Trial:
            at_launch()
            if isinstance(trial, Exception):
                raise trial
            return trial

        self.monkeypatch.setattr(supervisor, "launch", launched)
        cast(Supervisor, self.supervisor).run(RunTrial(study=MESSAGE.study, ticket=MESSAGE.ticket))


@pytest.fixture
def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slot]:
    def replaced(status: int) -> None:
        raise Replaced(status)

    monkeypatch.setattr(os, "_exit", replaced)
    monkeypatch.setattr(supervisor, "declare_only_our_code", lambda: None)
    urls = {"database_url": "postgresql://nobody@127.0.0.1:1/nowhere", "redis_url": "redis://127.0.0.1:1/0"}
    node = Node(slots=1, resources=("cpu",), settings=load_settings({}, home=tmp_path, kill_grace_s=0.1, **urls))
    (node.folder / "slots").mkdir(parents=True)
    ledger = Ledger()
    made: Any = Supervisor(node, cast(Any, Stub(is_alive=lambda: True)))
    study = OpenStudy(version=1, spec=SPEC, optuna=cast(Any, Stub(prunes=False)))
    made._claims = Stub(start=lambda _: StartedAttempt(lease=LEASE, study=study, code=Code(folder=None)))
    made._attempts = ledger
    made._resources = Stub(take=resources, close=lambda: None)
    yield Slot(node=node, supervisor=made, ledger=ledger, monkeypatch=monkeypatch)
    ledger.answers.set()
    assert made._io.stop(5.0)


@contextmanager
def resources(*_: object, **__: object) -> Iterator[Any]:
    yield Stub(refusal=None, marked=lambda assignment: assignment, memory_of=lambda _: None, next_cgroup=lambda: None)


def test_outcome_is_finished_once_with_the_reports_that_were_not_written(slot: Slot) -> None:
    slot.run(Trial({"event": "report", "step": 1, "value": 0.7}, result(COMPLETED)))
    ((outcome, disposition, token, reports),) = slot.ledger.finished
    assert (outcome.ending, outcome.value, disposition) == (Ending.COMPLETED, 0.5, Disposition.CLOSE)
    assert reports == (Report(step=1, value=0.7),) and len(token) == 32
    assert SlotStates(slot.node.folder).states() == []


def test_number_of_an_ended_trial_is_not_kept_while_its_outcome_is_written(slot: Slot) -> None:
    """The machine may give it to another process, and a dead supervisor's trial is killed by it."""
    states = SlotStates(slot.node.folder)
    groups: list[list[int]] = []
    slot.ledger.at_finish = lambda: groups.append([*states.trial_groups(), states.busy()])
    slot.run(Trial(result(COMPLETED)))
    assert groups == [[1]]


def test_node_that_shares_only_the_disk_leaves_the_scratch_files_of_a_running_trial(slot: Slot, tmp_path: Path) -> None:
    """Containers share the runs, and each has the states of its own slots."""
    neighbour, scratch = tmp_path / "neighbour", slot.node.work_dir(SPEC.name, LEASE.trial_number) / "tmp"
    neighbour.mkdir()
    (neighbour / "runs").symlink_to(slot.node.settings.home / "runs")
    seen: list[object] = []

    def look() -> None:
        seen.extend([remove_stray_scratch(neighbour), scratch.is_dir()])

    def begin() -> None:
        scratch.mkdir(parents=True)
        look()

    slot.ledger.at_finish = look  # what it has saved is stored before
    slot.run(Trial(result(COMPLETED)), at_launch=begin)
    assert seen == [0, True, 0, True] and not scratch.exists()


def test_trial_that_sigkill_does_not_end_is_finished_reported_and_its_slot_replaced(slot: Slot) -> None:
    trial = Trial(ends=False)
    with pytest.raises(Replaced):
        slot.run(trial)
    ((outcome, disposition, _, _),) = slot.ledger.finished
    assert (outcome.ending, disposition) == (Ending.TIMED_OUT, Disposition.CLOSE)
    assert f"process {PID}" in outcome.message and "could not be ended" in outcome.message
    assert SlotStates(slot.node.folder).states() == [], "the agent finds nothing to release"


def test_lease_that_nothing_renews_does_not_expire_while_a_trial_with_a_result_ends(
    slot: Slot, caplog: pytest.LogCaptureFixture
) -> None:
    settings = slot.node.settings.model_copy(update={"kill_grace_s": 1.5, "lease_s": 2.0, "renew_s": 0.5})
    object.__setattr__(slot.node, "settings", settings)
    trial = Trial(result(COMPLETED), ends=False)
    with pytest.raises(Replaced):
        slot.run(trial)
    ((outcome, _, _, _),) = slot.ledger.finished
    assert outcome.ending is Ending.COMPLETED and slot.ledger.renewals > 0
    assert trial.waited_s is not None and trial.waited_s < settings.lease_s - 2 * settings.renew_s
    (line,) = [line for line in caplog.messages if line.startswith("action=killed_after_result")]
    assert "study=digits" in line and line.endswith("grace_s=1.5")


def test_supervisor_whose_fork_server_died_during_its_attempt_is_replaced_afterwards(slot: Slot) -> None:
    alive = iter([True, False])
    slot.supervisor._forks = Stub(is_alive=lambda: next(alive))
    with pytest.raises(Replaced):
        slot.run(Trial(result(COMPLETED)))
    assert len(slot.ledger.finished) == 1


def test_supervisor_whose_fork_server_died_between_attempts_loses_none(slot: Slot) -> None:
    declined: list[int] = []
    slot.supervisor._forks = Stub(is_alive=lambda: False)
    slot.supervisor._claims.decline = lambda message, delay_s: declined.append(message.ticket)
    with pytest.raises(Replaced):
        slot.run(Trial(result(COMPLETED)))
    assert declined == [MESSAGE.ticket] and slot.ledger.finished == slot.ledger.reaped == []


def test_lost_lease_writes_nothing(slot: Slot) -> None:
    slot.ledger.error = LeaseLost("ticket=17 attempt=1")
    slot.run(Trial(result(COMPLETED)))
    assert slot.ledger.finished == [] and slot.ledger.reaped == []


def test_fault_of_the_supervisor_gives_the_ticket_back_at_once(slot: Slot) -> None:
    slot.run(OSError(11, "no process for the trial"))
    (message,) = slot.ledger.reaped
    assert "no process for the trial" in message and slot.ledger.finished == []


def test_due_drain_does_not_wait_for_a_frozen_database(slot: Slot) -> None:
    slot.ledger.answers.clear()
    slot.node.drain.give(allowed_s=0.0)
    began = time.monotonic()
    slot.run(Trial(result(COMPLETED)))
    assert time.monotonic() - began < 10.0
    assert SlotStates(slot.node.folder).states() == []


def test_frozen_store_delays_no_outcome(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(store_thread, "file_store", lambda *_: Stub(put=lambda *_: answers.wait(20.0)))
    settings = slot.node.settings.model_copy(update={"artifacts_url": "/frozen"})
    slot.supervisor._store = StoreThread(settings, slot.supervisor._io.wakeup_fd, stalled_s=0.3)
    saved = Path(slot.node.work_dir(SPEC.name, LEASE.trial_number), *SAVED_FILES)

    def save() -> None:
        saved.mkdir(parents=True)
        (saved / "1").write_text("weights")

    for number in range(3):
        began = time.monotonic()
        slot.run(Trial({"event": "file", "file": "1", "name": "model.keras"}, result(COMPLETED)), at_launch=save)
        took_s = time.monotonic() - began

        outcome, disposition, _, _ = slot.ledger.finished[number]
        assert (outcome.ending, outcome.value, disposition) == (Ending.COMPLETED, 0.5, Disposition.CLOSE)
        assert outcome.message.startswith("not stored: model.keras (the store ") and outcome.artifacts == ()
        assert took_s < 15.0
    answers.set()


@pytest.mark.parametrize(
    ("is_drained", "ending", "disposition"),
    [(True, Ending.RELEASED, Disposition.RELEASE), (False, Ending.LOST, Disposition.RETRY)],
)
def test_longer_training_without_its_checkpoint_is_charged_unless_its_node_is_drained(
    slot: Slot, monkeypatch: pytest.MonkeyPatch, is_drained: bool, ending: Ending, disposition: Disposition
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(store_thread, "file_store", lambda *_: Stub(opened=lambda *_: answers.wait(20.0)))
    settings = slot.node.settings.model_copy(update={"artifacts_url": "/frozen"})
    stalled_s = 20.0 if is_drained else 0.3
    slot.supervisor._store = StoreThread(settings, slot.supervisor._io.wakeup_fd, stalled_s=stalled_s)
    stored = Checkpoint(id="c1", attempt=2, size_bytes=1, sha256="ab")
    extension = Extension(of=3, checkpoint=stored)
    lease = replace(LEASE, checkpoint=extension.first_checkpoint, extension=extension)
    study = OpenStudy(version=1, spec=SPEC, optuna=cast(Any, Stub(prunes=False)))
    slot.supervisor._claims = Stub(start=lambda _: StartedAttempt(lease=lease, study=study, code=Code(folder=None)))
    if is_drained:
        slot.node.drain.give(allowed_s=0.1)

    slot.run(Trial(result(COMPLETED)))
    answers.set()

    ((outcome, decided, _, _),) = slot.ledger.finished
    assert (outcome.ending, decided) == (ending, disposition)
    assert outcome.cause == ("drain" if is_drained else "checkpoint") and "trial 3" in outcome.message


def test_full_disk_hands_the_trial_back_and_is_said_once(slot: Slot, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        slot.run(OSError(errno.ENOSPC, "No space left on device"))
    assert slot.ledger.reaped == [], "nothing is charged"
    assert {(o.ending, o.cause, disposition) for o, disposition, _, _ in slot.ledger.finished} == {
        (Ending.RELEASED, "disk", Disposition.RELEASE)
    }
    assert len(slot.ledger.finished) == 3
    assert [record.getMessage().split()[0] for record in caplog.records if record.levelname == "ERROR"] == [
        "action=disk"
    ]
