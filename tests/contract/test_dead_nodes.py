"""What a node leaves whose agent was killed: the next agent on the machine ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from highnoon.shared.domain.errors import RowLocked, ServiceUnavailable
from highnoon.shared.domain.lease import Holder, Lease
from highnoon.shared.domain.states import TicketState, WorkerState
from highnoon.shared.runtime.processes import identify
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.nodes import Nodes
from highnoon.workers import node_record
from highnoon.workers.node import Node, node_lock
from highnoon.workers.node_metrics import NodeMetrics
from highnoon.workers.node_record import NodeRecord
from highnoon.workers.slot_state import SlotState, SlotStates, encoded
from highnoon.workers.telemetry import inbox, received
from highnoon.workers.trial.scratch import lock_of
from tests.conftest import SHORT_PERIODS
from tests.ledger import Ledger

DEAD = "dead0000"


@pytest.fixture
def node(ledger: Ledger, redis_url: str, tmp_path: Path) -> Node:
    urls = {"database_url": ledger.database.url, "redis_url": redis_url}
    return Node(slots=2, resources=("cpu",), settings=load_settings({}, home=tmp_path, **SHORT_PERIODS, **urls))


def record(node: Node) -> NodeRecord:
    return NodeRecord(node, SlotStates(node.folder), until_idle=False)


def dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def left_by(
    node: Node, lease: Lease, *, pid: int, study: str = "digits", noted: bool = True, started_ticks: int = 1
) -> tuple[Path, Path]:
    """The folders of a node that was killed in the middle of this attempt, and of the attempt's scratch files."""
    folder = node.folder.parent / DEAD
    with node_lock(folder):
        (folder / "slots").mkdir(exist_ok=True)
    scratch = node.work_dir(study, lease.trial_number) / "tmp"
    scratch.mkdir(parents=True)
    (scratch / "weights").write_bytes(b"x" * 1000)
    lock_of(scratch.parent).touch()
    state = SlotState(pid=pid, started_ticks=started_ticks, study=study, ticket=lease.ticket_id)
    if noted:
        state = replace(state, attempt=lease.attempt, work_dir=str(scratch.parent))
    (folder / "slots" / f"{pid}.state").write_bytes(encoded(state))
    return folder, scratch


def test_attempt_lost_with_its_supervisor_counts_in_the_metrics_of_its_node(ledger: Ledger, node: Node) -> None:
    node = replace(node, settings=node.settings.model_copy(update={"worker_metrics_port": 1}))
    node.folder.mkdir(parents=True)
    holder = Holder(worker_id=node.worker_id, host="here", pid=7)
    held = [ledger.start(ticket, holder) for ticket in ledger.tickets(ledger.study(2))]
    here = record(node)
    registry = CollectorRegistry()
    metrics = NodeMetrics(node, registry)

    with inbox(node.folder) as receiver:
        for lease in (held[0], held[0], held[1]):
            here.release(SlotState(pid=7, started_ticks=1, study="digits", ticket=lease.ticket_id, attempt=1))
        receiver.setblocking(False)
        for report in received(receiver):
            metrics.count(report)

    assert registry.get_sample_value("highnoon_worker_attempts_total", {"ending": "lost", "cause": "lost"}) == 2
    assert registry.get_sample_value("highnoon_worker_retries_total", {"ending": "lost"}) == 2


@pytest.mark.parametrize("noted", [True, False], ids=["during its trial", "right after the grant of its lease"])
def test_next_agent_gives_back_what_a_killed_node_held(ledger: Ledger, node: Node, noted: bool) -> None:
    study, pid = ledger.study(), dead_pid()
    (ticket,) = ledger.tickets(study)
    ledger.nodes.enter(DEAD, host="here", pid=1, slots=2, queues=["cpu"])
    lease = ledger.start(ticket, Holder(worker_id=DEAD, host="here", pid=pid))
    folder, scratch = left_by(node, lease, pid=pid, noted=noted)

    mine = record(node)
    assert mine.remove_dead_nodes() == 1
    mine.leave(60.0)

    assert ledger.state(ticket) == TicketState.WAITING, "nothing waits for the lease to run out"
    assert not folder.exists() and (not noted or not scratch.exists())
    (worker,) = ledger.nodes.workers(silent_for_s=1e9) or [None]
    assert worker is None or worker.state is WorkerState.GONE
    assert record(node).remove_dead_nodes() == 0


def test_node_whose_supervisors_still_end_is_left_for_the_next_look(ledger: Ledger, node: Node) -> None:
    (ticket,) = ledger.tickets(ledger.study())
    me = identify(os.getpid())
    assert me is not None
    lease = ledger.start(ticket, Holder(worker_id=DEAD, host="here", pid=me.pid))
    folder, _ = left_by(node, lease, pid=me.pid, started_ticks=me.started_ticks)
    assert record(node).remove_dead_nodes() == 0
    assert folder.is_dir() and ledger.state(ticket) == TicketState.RUNNING


def test_attempt_of_another_supervisor_is_left_alone(ledger: Ledger, node: Node) -> None:
    """The dead one had only taken the message."""
    (ticket,) = ledger.tickets(ledger.study())
    lease = ledger.start(ticket, Holder(worker_id="other", host="there", pid=7))
    left_by(node, lease, pid=dead_pid(), noted=False)
    assert record(node).remove_dead_nodes() == 1
    assert ledger.state(ticket) == TicketState.RUNNING


def test_locked_row_keeps_no_lease_of_another_study(ledger: Ledger, node: Node) -> None:
    # Given a dead node with two attempts of one study, whose rows another client has locked, and two of another one
    locked, other = ledger.study(2, "a-locked-one"), ledger.study(2, "z-another-one")
    tickets = [*ledger.tickets(locked), *ledger.tickets(other)]
    ledger.nodes.enter(DEAD, host="here", pid=1, slots=2, queues=["cpu"])
    pid = dead_pid()
    for number, ticket in enumerate(tickets):
        lease = ledger.start(ticket, Holder(worker_id=DEAD, host="here", pid=pid))
        study = locked if number < 2 else other
        folder, _ = left_by(node, lease, pid=pid - number, study=study.name)
    mine = record(node)

    with ledger.database.transaction() as connection:
        connection.execute(text("select 1 from hn_tickets where study_id = :id for update"), {"id": locked.id})
        # Then each round waits for one locked row only, and the next one begins with the other study
        assert mine.remove_dead_nodes() == 0
        connection.execute(text("select 1"))  # the server closes idle transactions
        assert mine.remove_dead_nodes() == 0
    states = [ledger.state(ticket) for ticket in tickets]
    assert states == [TicketState.RUNNING] * 2 + [TicketState.WAITING] * 2 and folder.is_dir()

    assert mine.remove_dead_nodes() == 1
    assert [ledger.state(ticket) for ticket in tickets] == [TicketState.WAITING] * 4 and not folder.exists()


def test_checkpoints_of_a_study_that_has_ended_elsewhere_are_removed(ledger: Ledger, node: Node) -> None:
    for name in ("over", "digits"):
        ledger.study(name=name)
        checkpoints = node.checkpoints / name / "ticket-00000" / "attempt-1"
        checkpoints.mkdir(parents=True)
        for folder in (checkpoints, checkpoints.parent, checkpoints.parent.parent):
            os.utime(folder, (0, 0))
    mine = record(node)
    mine.enter()
    ledger.run(ledger.tickets(ledger.studies.get("over"))[0])
    ledger.database.changed(text("update hn_studies set state = 'finished' where name = 'over'"))
    mine.remove_dead_nodes()
    mine.leave(60.0)
    assert [path.name for path in node.checkpoints.iterdir()] == ["digits"]


def test_heartbeat_waits_for_no_removal(node: Node, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a disk that takes long to remove what is left on it
    answers = threading.Event()
    begun, ended = [], []

    def slow(home: Path) -> int:
        begun.append(home)
        answers.wait(20.0)
        ended.append(home)
        return 0

    monkeypatch.setattr(node_record, "remove_stray_scratch", slow)
    monkeypatch.setattr(node_record, "_LEFTOVERS_EVERY_S", 0.0)
    mine = record(node)
    mine.enter()
    for folder in node.written_folders:
        folder.mkdir(parents=True, exist_ok=True)
    for _ in range(3):
        mine.remove_dead_nodes()
        assert mine.beat().state is WorkerState.ACTIVE
    assert ended == []
    answers.set()
    mine.leave(60.0)
    assert len(begun) == len(ended) == 1, "one at a time"


def test_round_ends_at_the_first_locked_row(ledger: Ledger, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs seconds, and the heartbeat comes after the round."""
    tried: list[int] = []

    def locked(_: object, ticket: int, *args: object, **options: object) -> None:
        tried.append(ticket)
        raise RowLocked("another client has locked it")

    monkeypatch.setattr(node_record.Attempts, "reap", locked)
    pid = dead_pid()
    tickets = [ledger.tickets(ledger.study(name=name))[0] for name in ("a", "b", "c")]
    for number, ticket in enumerate(tickets):
        lease = ledger.start(ticket, Holder(worker_id=DEAD, host="here", pid=pid))
        left_by(node, lease, pid=pid - number, study="abc"[number])
    mine = record(node)
    for _ in tickets:
        assert mine.remove_dead_nodes() == 0
    assert sorted(tried) == sorted(tickets), "one in each round, and each study has its turn"

    # The same for supervisors of this node
    state = SlotState(pid=pid, started_ticks=1, study="c", ticket=tickets[2], attempt=1)
    with pytest.raises(RowLocked):
        mine.release(state)
    assert len(tried) == 3


def test_full_disk_of_the_runs_is_noticed_where_the_nodes_folder_is_on_another_one(ledger: Ledger, node: Node) -> None:
    """As in containers, where the node's folder is in memory."""
    node.folder.mkdir(parents=True)
    runs = node.settings.home / "runs"
    runs.symlink_to("/proc/self")  # takes no file
    mine = record(node)
    mine.enter()
    beat = mine.beat()
    assert beat.state is WorkerState.QUARANTINED and beat.trouble is not None and str(runs) in beat.trouble

    runs.unlink()
    runs.mkdir()
    assert mine.beat().state is WorkerState.ACTIVE
    assert list(runs.iterdir()) == []


def test_node_lifts_no_quarantine_but_its_own(ledger: Ledger, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a node that has taken itself out, which a person reinstates when there is room again
    trouble: list[str | None] = ["disk: no space left on it"]
    monkeypatch.setattr(node_record, "disk_trouble", lambda *folders: trouble[-1])
    mine, nodes = record(node), Nodes(ledger.database)
    mine.enter()
    assert mine.beat().state is WorkerState.QUARANTINED
    trouble.append(None)
    assert nodes.reinstate(node.worker_id)
    assert mine.beat().state is WorkerState.ACTIVE

    # When another client puts it into quarantine, then it stays there
    nodes.mark(node.worker_id, WorkerState.QUARANTINED)
    assert mine.beat().state is mine.beat().state is WorkerState.QUARANTINED


@pytest.mark.parametrize("is_written", [True, False], ids=["its answer is lost", "it is not done"])
@pytest.mark.parametrize("fails", [WorkerState.QUARANTINED, WorkerState.ACTIVE])
def test_node_with_room_on_its_disk_comes_back_also_after_an_outage_of_its_move(
    ledger: Ledger, node: Node, monkeypatch: pytest.MonkeyPatch, fails: WorkerState, is_written: bool
) -> None:
    # Given a node whose disk is full, and a database that goes away when the node is moved
    trouble: list[str | None] = ["disk: no space left on it"]
    monkeypatch.setattr(node_record, "disk_trouble", lambda *folders: trouble[-1])
    outages, move = [fails], Nodes.move

    def moved(nodes: Nodes, worker_id: str, before: Any, after: WorkerState, *args: Any, **options: Any) -> bool:
        is_away = after in outages
        done = move(nodes, worker_id, before, after, *args, **options) if is_written or not is_away else False
        if is_away:
            outages.remove(after)
            raise ServiceUnavailable("no answer")
        return done

    monkeypatch.setattr(Nodes, "move", moved)
    mine = record(node)
    mine.enter()

    def beat() -> WorkerState | None:
        with suppress(ServiceUnavailable):
            return mine.beat().state
        return None

    # When there is room again, then it is active with the next heartbeat that reaches the database
    states = [beat(), beat()]
    trouble.append(None)
    states += [beat(), beat()]
    assert WorkerState.QUARANTINED in states
    assert states[-1] is WorkerState.ACTIVE
    assert not outages
