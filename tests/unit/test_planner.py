"""The planner: from a snapshot to actions. Each rule of the protocol that the coordinator implements has a test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.coordinator.executor import in_turns
from highnoon.coordinator.planner import Close, Dispatch, QueueLoad, Reap, Resend, Snapshot, Stop, plan, slots_wait
from highnoon.coordinator.shares import messages_per_slot, ready_at_most
from highnoon.shared.domain.states import Ending, StudyState
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.snapshot_rows import ExpiringLease, QueuedTicket, StudyLoad
from highnoon.shared.store.study_records import StudyRecord

RULES = Settings(lease_s=30.0, redispatch_s=60.0, dispatch_buffer=4)


def load(
    *,
    study_id: int = 1,
    state: StudyState = StudyState.RUNNING,
    stop_reason: str | None = None,
    queue: str = "cpu",
    spec: dict[str, Any] | None = None,
    ready: int = 0,
    waiting: bool | None = None,
    **keys: Any,
) -> StudyLoad:
    record = StudyRecord(
        id=study_id,
        name=f"study-{study_id}",
        state=state,
        stop_reason=stop_reason,
        queue=queue,
        spec={"direction": "minimize", **(spec or {})},
        spec_version=3,
        optuna_study_id=study_id,
        submitted_at=0.0,
        started_at=0.0,
        ended_at=None,
    )
    return StudyLoad(study=record, ready=ready, waiting=bool(ready) if waiting is None else waiting, **keys)


def snapshot(*loads: StudyLoad, slots: int = 2, messages: int | None = 0, lost: int = 0, **keys: Any) -> Snapshot:
    queues = {"cpu": QueueLoad(slots=slots, messages=messages, lost=lost)}
    return Snapshot(**{"steady_s": 0, "loads": loads, "queues": queues, **keys})


def dispatch(count: int, study_id: int = 1, tried: int = 0) -> Dispatch:
    return Dispatch(study_id=study_id, name=f"study-{study_id}", resource="cpu", count=count, tried=tried)


def stop(reason: str) -> Stop:
    return Stop(study_id=1, name="study-1", reason=reason, spec_version=3)


def close(state: StudyState, reason: str, before: StudyState = StudyState.RUNNING) -> Close:
    return Close(study_id=1, name="study-1", before=before, state=state, reason=reason)


def test_dispatch_fills_the_free_slots_and_a_small_buffer() -> None:
    assert plan(snapshot(load(ready=100, running=1)), RULES) == [dispatch(1 + 8)]


def test_queued_tickets_count_against_the_room() -> None:
    assert plan(snapshot(load(ready=100, running=2, queued=7), messages=7), RULES) == [dispatch(1)]


def test_ticket_that_was_tried_before_needs_no_room() -> None:
    # Given a node that was lost: what was sent for its slots fills the queue
    full = load(ready=100, retried=2, running=2, queued=16)
    assert plan(snapshot(full, messages=16), RULES) == [dispatch(2, tried=2)]
    # And where there is room for one more anyway
    roomy = load(ready=100, retried=2, running=2, queued=5)
    assert plan(snapshot(roomy, messages=5), RULES) == [dispatch(3, tried=2)]
    # But not more than there are slots, nor than the study may run
    many = load(ready=100, retried=40, running=2, queued=16)
    assert plan(snapshot(many, messages=16), RULES) == [dispatch(2, tried=2)]
    assert plan(snapshot(load(ready=9, retried=2, running=1, spec={"max_running": 2})), RULES) == [dispatch(1, tried=1)]
    assert plan(snapshot(load(ready=9, retried=2), slots=0), RULES) == []


def test_ticket_that_was_tried_before_is_next_within_the_share_of_its_study() -> None:
    # Given a study that has one slot of the two that are its share, and another one whose messages fill the queue
    retrying = load(ready=100, retried=40, running=1)
    other = load(study_id=2, ready=100, running=3, queued=20)
    full = snapshot(retrying, other, slots=4, messages=20)
    assert plan(full, RULES) == [dispatch(1, tried=1)]
    # Then nothing more is sent ahead of the others, once that message waits there or its trial runs
    sent = QueuedTicket(ticket_id=1, study_id=1, age_s=0.1, tried=True)
    waits = (replace(retrying, queued=1), other)
    assert plan(replace(full, loads=waits, queued=(sent,)), RULES) == []
    runs = (replace(retrying, running=2), replace(other, running=2))
    assert plan(replace(full, loads=runs), RULES) == []


def test_nothing_is_dispatched_without_workers_or_without_redis() -> None:
    assert plan(snapshot(load(ready=5), slots=0), RULES) == []
    assert plan(snapshot(load(ready=5), messages=None), RULES) == []


def test_paused_study_is_not_dispatched_and_gpu_study_not_to_cpu_workers() -> None:
    paused = load(state=StudyState.PAUSED, ready=5)
    gpu = load(study_id=2, queue="gpu", ready=5)
    assert plan(snapshot(paused, gpu), RULES) == []


def test_tickets_that_must_wait_are_not_dispatched() -> None:
    assert plan(snapshot(load(ready=0, waiting=True)), RULES) == []


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 20))
def test_studies_share_the_room_fairly(wanted: list[int], slots: int) -> None:
    # Given several studies with work
    loads = tuple(load(study_id=i + 1, ready=want) for i, want in enumerate(wanted) if want)
    # When they are dispatched
    actions = plan(snapshot(*loads, slots=slots), RULES)
    counts = {action.study_id: action.count for action in actions if isinstance(action, Dispatch)}
    # Then the room is used as far as there is work, never exceeded, and no study lacks what another has in plenty
    room = slots * (1 + RULES.dispatch_buffer)
    assert sum(counts.values()) == min(room, sum(wanted))
    short = [counts.get(item.study.id, 0) for item in loads if counts.get(item.study.id, 0) < item.ready]
    assert not short or max(counts.values(), default=0) <= min(short) + 1


def test_queued_and_running_tickets_count_as_a_part_of_the_share() -> None:
    busy = load(ready=100, queued=2, running=2)
    idle = load(study_id=2, ready=100)
    assert plan(snapshot(busy, idle, messages=2), RULES) == [dispatch(1), dispatch(5, study_id=2)]


class Cluster:
    """A queue, slots, and studies of so many tickets; each step the oldest running trial ends, and a tick follows.

    Of the studies `retrying` every ticket has been tried before.
    """

    def __init__(
        self,
        tickets: dict[int, int],
        slots: int,
        specs: dict[int, dict[str, Any]] | None = None,
        *,
        retrying: Collection[int] = (),
        trial_s: Mapping[int, float] | None = None,
    ) -> None:
        self.waiting, self.slots, self.specs = dict(tickets), slots, specs or {}
        self.retrying, self.trial_s = retrying, trial_s or {}
        self.queue: list[int] = []
        self.running: list[int] = []
        self.started: Counter[int] = Counter()
        self.turns: dict[int, float] = {}

    def tick(self) -> None:
        self.running = self.running[1:]
        loads = [
            load(
                study_id=study,
                spec=self.specs.get(study),
                ready=ready,
                retried=ready if study in self.retrying else 0,
                queued=self.queue.count(study),
                running=self.running.count(study),
                trial_s=self.trial_s.get(study, 0.0),
            )
            for study, ready in self.waiting.items()
        ]
        queued = tuple(
            QueuedTicket(ticket_id=0, study_id=study, age_s=0.0, tried=study in self.retrying) for study in self.queue
        )
        now = snapshot(*loads, slots=self.slots, messages=len(queued), queued=queued, turns=self.turns)
        dispatched = [action for action in plan(now, RULES) if isinstance(action, Dispatch)]
        self.queue += in_turns([action.study_id] * (action.count - action.tried) for action in dispatched)
        self.queue[:0] = in_turns([action.study_id] * action.tried for action in dispatched)
        for action in dispatched:
            self.waiting[action.study_id] -= action.count
            self.turns[action.study_id] = action.turn
        while self.queue and len(self.running) < self.slots:
            study = self.queue.pop(0)
            self.started[study] += 1
            self.running.append(study)


@pytest.mark.parametrize("first", [1, 2])
def test_two_like_studies_stay_together_whichever_has_more_tickets(first: int) -> None:
    cluster = Cluster({first: 210, 3 - first: 200}, slots=2)
    for _ in range(380):
        cluster.tick()
        assert abs(cluster.started[1] - cluster.started[2]) <= 1
    assert sum(cluster.started.values()) >= 380


@pytest.mark.parametrize("big", [1, 21])
def test_big_study_is_served_beside_twenty_small_ones(big: int) -> None:
    cluster = Cluster({study: 1000 if study == big else 30 for study in range(1, 22)}, slots=2)
    for _ in range(420):
        cluster.tick()
    assert 15 <= cluster.started[big] <= 25, "its share is 1/21"
    assert min(cluster.started.values()) >= 15


@pytest.mark.parametrize("slots", [1, 2, 4, 16])
@pytest.mark.parametrize(("high", "low"), [(3, 1), (3, 2), (100, 1)])
def test_studies_start_trials_in_the_ratio_of_their_priorities(slots: int, high: int, low: int) -> None:
    cluster = Cluster({1: 5000, 2: 5000}, slots, {1: {"priority": low}, 2: {"priority": high}})
    for _ in range(600):
        cluster.tick()
    share = cluster.started[1] / sum(cluster.started.values())
    assert share == pytest.approx(low / (low + high), rel=0.35, abs=0.01)


@pytest.mark.parametrize("trial_s", [0.0, 600.0])
@pytest.mark.parametrize(("high", "low"), [(1, 1), (10, 1)])
def test_study_whose_tickets_have_all_been_tried_before_gets_its_share_and_no_more(
    high: int, low: int, trial_s: float
) -> None:
    specs = {1: {"priority": low}, 2: {"priority": high}}
    cluster = Cluster({1: 5000, 2: 5000}, 4, specs, retrying={1}, trial_s={1: trial_s, 2: trial_s})
    for _ in range(300):
        cluster.tick()
        assert len(cluster.queue) <= cluster.slots * RULES.dispatch_buffer
    share = cluster.started[1] / sum(cluster.started.values())
    assert share == pytest.approx(low / (low + high), rel=0.35)


@pytest.mark.parametrize(("slots", "studies"), [(1, 2), (4, 5), (2, 3)])
def test_study_whose_share_is_less_than_a_slot_starts_beside_short_trials_that_fill_the_queue(
    slots: int, studies: int
) -> None:
    # Given a study that comes last, and of whose trials no one knows yet how long they take
    cluster = Cluster(dict.fromkeys(range(1, studies + 1), 5000), slots, trial_s={studies: math.inf})
    for _ in range(300):
        cluster.tick()
    assert cluster.started[studies] >= 0.04 * sum(cluster.started.values())


@pytest.mark.parametrize(("slots", "studies"), [(1, 2), (4, 5), (3, 2)])
def test_a_free_slot_takes_what_was_tried_before_also_beyond_the_share(slots: int, studies: int) -> None:
    cluster = Cluster(dict.fromkeys(range(1, studies + 1), 8), slots, retrying=range(1, studies + 1))
    for _ in range(8 * studies + slots):
        cluster.tick()
    assert set(cluster.started.values()) == {8} and not cluster.queue
    # Nor is a slot kept for a study that may run no more
    busy = load(study_id=2, ready=9, running=1, trial_s=math.inf, spec={"max_running": 1})
    alone = load(ready=100, retried=100, running=50, trial_s=600.0)
    (sent,) = plan(snapshot(alone, busy, slots=100), RULES)
    assert isinstance(sent, Dispatch) and sent.study_id == 1 and sent.tried == sent.count >= 49


def test_a_changed_priority_counts_from_the_next_message() -> None:
    cluster = Cluster({1: 5000, 2: 5000}, 2, {})
    for _ in range(100):
        cluster.tick()
    before = cluster.started.copy()
    cluster.specs[2] = {"priority": 9}
    for _ in range(100):
        cluster.tick()
    assert before[1] == pytest.approx(before[2], abs=2)
    assert cluster.started[2] - before[2] >= 4 * (cluster.started[1] - before[1])


def test_a_study_that_comes_late_is_next_and_makes_up_for_nothing() -> None:
    cluster = Cluster({1: 5000}, 2)
    for _ in range(200):
        cluster.tick()
    cluster.waiting[2] = 5000
    before = cluster.started[1]
    for _ in range(60):
        cluster.tick()
    assert cluster.started[2] == pytest.approx(cluster.started[1] - before, abs=12)


def test_no_more_than_max_running_are_queued_and_running() -> None:
    few = load(ready=100, queued=1, running=2, spec={"max_running": 4})
    many = load(study_id=2, ready=100)
    assert plan(snapshot(few, slots=10, messages=1), RULES) == [dispatch(1)]
    assert dispatch(1) in plan(snapshot(few, many, slots=10, messages=1), RULES)
    for running in (4, 6):
        full = load(ready=100, running=running, spec={"max_running": 4})
        assert plan(snapshot(full, slots=10), RULES) == []


@pytest.mark.parametrize(
    ("trial_s", "waiting"), [(0.02, 8), (0.5, 8), (1.0, 4), (2.5, 2), (29.0, 2), (30.0, 0), (3600.0, 0), (math.inf, 0)]
)
def test_as_many_messages_wait_as_trials_are_short(trial_s: float, waiting: int) -> None:
    study = load(ready=100, trial_s=trial_s)
    assert plan(snapshot(study), RULES) == [dispatch(2 + waiting)]
    # And what is queued already counts
    study = load(ready=100, trial_s=trial_s, running=2, queued=1)
    assert plan(snapshot(study, messages=1), RULES) == ([dispatch(waiting - 1)] if waiting > 1 else [])


def test_long_trials_leave_the_buffer_to_short_ones() -> None:
    long, short = load(ready=100, trial_s=600.0, running=1), load(study_id=2, ready=100, trial_s=0.1, running=1)
    assert plan(snapshot(long, short), RULES) == [dispatch(8, study_id=2)]


def test_message_of_a_long_trial_waits_behind_short_ones_while_its_study_lacks_slots_of_its_share() -> None:
    # Given short trials that have all slots, and messages for whatever slot becomes free
    short = load(study_id=2, ready=100, trial_s=0.1, running=2, queued=7)
    long = load(ready=100, trial_s=600.0)
    assert plan(snapshot(long, short, messages=7), RULES) == [dispatch(1)]
    # When it waits, the short ones get the rest
    waits = replace(long, queued=1)
    assert plan(snapshot(waits, replace(short, queued=6), messages=7), RULES) == [dispatch(1, study_id=2)]


def test_few_messages_wait_until_enough_trials_of_a_study_have_ended() -> None:
    # Given a study whose first trials ended at once; the others may take longer
    rules = RULES.model_copy(update={"dispatch_buffer": 16})
    for ended, waiting in {1: 8, 8: 8, 31: 8, 32: 32}.items():
        study = load(ready=100, trial_s=0.01, ended=ended)
        assert plan(snapshot(study), rules) == [dispatch(2 + waiting)], ended


@pytest.mark.parametrize(
    ("waits", "messages", "found"),
    [
        (True, 0, load(ready=5, running=1)),
        (False, 1, load(ready=5, running=1)),
        (False, 0, load(ready=5, running=2)),
        (False, 0, load(ready=0, running=1)),
        (False, 0, load(ready=5, running=1, state=StudyState.PAUSED)),
        (False, None, load(ready=5, running=1)),
        (False, 0, load(ready=5, running=1, spec={"max_running": 1})),
    ],
    ids=["waits", "has a message", "no slot is free", "no ticket", "paused", "redis is away", "max_running"],
)
def test_slots_wait_while_a_study_could_use_them_and_no_message_is_there(
    waits: bool, messages: int | None, found: StudyLoad
) -> None:
    assert slots_wait(snapshot(found, messages=messages)) is waits


def test_reaper_waits_until_holders_could_renew() -> None:
    expired = tuple(ExpiringLease(ticket_id=n, attempt=1, study_id=1, name="study-1", left_s=-1.0) for n in (7, 8))
    assert plan(Snapshot(steady_s=29.9, expired=expired), RULES) == []
    assert plan(Snapshot(steady_s=30.0, expired=expired), RULES) == [
        Reap(study_id=1, name="study-1", ticket_id=n, attempt=1) for n in (7, 8)
    ]


def test_messages_that_redis_lost_are_sent_again() -> None:
    queued = tuple(QueuedTicket(ticket_id=i, study_id=1, age_s=20.0 - i) for i in range(4))
    full = load(queued=4, running=2)
    again = Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(0, 1, 2, 3))
    assert plan(snapshot(full, lost=4, queued=queued), RULES) == [again]
    again = Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(0,))
    assert plan(snapshot(full, messages=3, lost=1, queued=queued), RULES) == [again]


def test_lost_message_of_a_ticket_that_was_tried_before_is_sent_again_first() -> None:
    # Given 20 tickets whose messages wait, and one that was tried: its message went to the head of the queue
    untried = tuple(QueuedTicket(ticket_id=n, study_id=1, age_s=30.0) for n in range(20))
    tried = QueuedTicket(ticket_id=20, study_id=1, age_s=6.0, tried=True)
    full = load(queued=21, running=2)
    (again,) = plan(snapshot(full, messages=20, lost=1, queued=(*untried, tried)), RULES)
    assert again == Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(20,))
    # But a message that was sent a moment ago cannot have been missing for so long
    tried = replace(tried, age_s=4.0)
    (again,) = plan(snapshot(full, messages=20, lost=1, queued=(*untried, tried)), RULES)
    assert again == Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(0,))


def test_message_of_a_ticket_that_was_tried_before_is_lost_once_a_later_message_was_taken() -> None:
    """Also where an outage, or other messages on the queue, hide for how long it has been missing."""
    tried = QueuedTicket(ticket_id=20, study_id=1, age_s=6.0, tried=True)
    untried = QueuedTicket(ticket_id=1, study_id=1, age_s=6.0)
    full = load(queued=2, running=2)
    again = Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(20,))
    later = snapshot(full, messages=500, queued=(untried, tried), started={"cpu": 3.0})
    assert plan(later, RULES) == [again]
    # Not where what runs was sent before it, or on another queue, nor a moment after it was sent
    for started in ({"cpu": 7.0}, {"gpu": 3.0}):
        assert plan(replace(later, started=started), RULES) == []
    assert plan(replace(later, queued=(replace(tried, age_s=4.0),)), RULES) == []


def test_tickets_queued_for_long_though_slots_are_free_are_sent_again() -> None:
    queued = (QueuedTicket(ticket_id=1, study_id=1, age_s=61.0),)
    again = Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(1,))
    assert plan(snapshot(load(queued=1), messages=1, queued=queued), RULES) == [again]
    assert plan(snapshot(load(queued=1, running=2), messages=1, queued=queued), RULES) == []


def test_messages_wait_while_trials_of_another_queue_have_the_slots_of_both() -> None:
    # Given two nodes of which one serves both queues, and a GPU study whose message has waited for long
    waits = QueuedTicket(ticket_id=1, study_id=2, age_s=61.0)
    again = Resend(study_id=2, name="study-2", resource="gpu", ticket_ids=(1,))
    queues = {
        "cpu": QueueLoad(slots=6, messages=0, shared={"gpu": 2}),
        "gpu": QueueLoad(slots=2, messages=1, shared={"cpu": 2}),
    }

    def planned(running: int, shared: int = 2) -> list[Any]:
        loads = load(running=running), load(study_id=2, queue="gpu", queued=1)
        now = {**queues, "gpu": replace(queues["gpu"], shared={"cpu": shared})}
        return plan(Snapshot(steady_s=0, loads=loads, queues=now, queued=(waits,)), RULES)

    # Then it is not sent again while trials of the CPU study may have the slots
    assert planned(running=6) == planned(running=2) == []
    # But it is once one of them must be free, and at once where no node serves both
    assert planned(running=1) == planned(running=6, shared=0) == [again]


def test_messages_that_are_never_taken_are_sent_again_up_to_a_limit() -> None:
    """The only node was taken back from quarantine, and its pool waits for the end of a long trial."""
    stuck = tuple(QueuedTicket(ticket_id=n, study_id=1, age_s=100.0) for n in (1, 2))
    again = [Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(1, 2))]
    for messages, wanted in {2: again, 19: again, 20: [], 500: []}.items():
        assert plan(snapshot(load(queued=2), slots=1, messages=messages, queued=stuck), RULES) == wanted, messages


def test_study_is_closed_when_no_ticket_is_open() -> None:
    assert plan(snapshot(load()), RULES) == [close(StudyState.FINISHED, "n_trials")]
    for still_open in ({"waiting": True}, {"queued": 1}, {"running": 1}):
        actions = plan(snapshot(load(**still_open)), RULES)
        assert not any(isinstance(action, Close) for action in actions), still_open


def test_cancelling_study_ends_as_cancelled() -> None:
    cancelling = load(state=StudyState.CANCELLING, stop_reason="cancelled")
    assert plan(snapshot(cancelling), RULES) == [close(StudyState.CANCELLED, "cancelled", StudyState.CANCELLING)]


def test_timeout_stops_what_has_not_begun() -> None:
    limited = {"spec": {"timeout": 60.0}, "ready": 5, "running": 1}
    assert not any(isinstance(action, Stop) for action in plan(snapshot(load(age_s=59.0, **limited)), RULES))
    assert plan(snapshot(load(age_s=60.0, **limited)), RULES) == [stop("timeout")]


@pytest.mark.parametrize(
    ("direction", "target", "best", "stops"),
    [
        ("minimize", 0.1, 0.2, False),
        ("minimize", 0.1, 0.1, True),
        ("maximize", 0.9, 0.8, False),
        ("maximize", 0.9, 0.95, True),
    ],
)
def test_target_value_stops_in_the_direction_of_the_study(
    direction: str, target: float, best: float, stops: bool
) -> None:
    limited = load(spec={"target_value": target, "direction": direction}, waiting=True, best_value=best)
    assert plan(snapshot(limited), RULES) == ([stop("target_value")] if stops else [])


def test_failures_in_a_row_stop_unless_a_success_is_among_them() -> None:
    failed, timed_out, good = Ending.FAILED, Ending.TIMED_OUT, Ending.COMPLETED
    for recent, stops in (
        ((failed,) * 3, True),
        ((failed, timed_out, Ending.LOST), True),
        ((failed, good, failed), False),
        ((failed,) * 2, False),
        ((Ending.CANCELLED,) * 3, False),
        ((failed, Ending.CANCELLED, failed), False),
        ((failed, Ending.CANCELLED, failed, Ending.CANCELLED, failed), True),
    ):
        limited = load(spec={"max_failures_in_a_row": 3}, waiting=True, recent_endings=recent)
        assert plan(snapshot(limited), RULES) == ([stop("failures_in_a_row")] if stops else []), recent


def test_five_failures_before_the_first_success_stop_unless_that_is_turned_off() -> None:
    failed, lost = Ending.FAILED, Ending.LOST
    for spec, recent, has_success, stops in (
        ({}, (failed,) * 5, False, True),
        ({}, (failed,) * 4, False, False),
        ({}, (failed,) * 5, True, False),
        ({}, (failed, lost, failed, failed, failed), False, False),
        ({"max_failures_in_a_row": 0}, (failed,) * 9, False, False),
        ({"max_failures_in_a_row": 7}, (failed,) * 6, False, False),
        ({"max_failures_in_a_row": None}, (Ending.TIMED_OUT,) * 5, False, True),
    ):
        limited = load(spec=spec, waiting=True, recent_endings=recent, has_success=has_success)
        assert plan(snapshot(limited), RULES) == ([stop("failures_in_a_row")] if stops else []), (spec, recent)


@pytest.mark.parametrize(("since_best", "stops"), [(29, False), (30, True), (31, True)])
def test_early_stop_ends_a_study_that_does_not_get_better(since_best: int, stops: bool) -> None:
    limited = load(spec={"early_stop": {"patience": 30}}, waiting=True, since_best=since_best)
    assert plan(snapshot(limited), RULES) == ([stop("early_stop")] if stops else [])


def test_study_deleted_in_optuna_starts_nothing_more() -> None:
    assert plan(snapshot(load(ready=1, deleted=True)), RULES) == [stop("deleted")]


def test_study_deleted_in_optuna_closes_as_deleted_though_nothing_was_left_to_stop() -> None:
    assert plan(snapshot(load(deleted=True)), RULES) == [close(StudyState.FINISHED, "deleted")]


def test_ticket_given_back_after_the_limit_is_stopped_too() -> None:
    assert plan(snapshot(load(stop_reason="timeout", ready=1)), RULES) == [stop("timeout")]


def test_faulty_study_starts_nothing_and_the_others_get_its_room() -> None:
    faulty = load(spec={"timeout": "soon"}, ready=5, running=1, fault="specification")
    sound = load(study_id=2, ready=100)
    assert plan(snapshot(faulty, sound), RULES) == [dispatch(9, study_id=2)]


def test_faulty_study_is_still_closed_when_a_person_gives_it_up() -> None:
    given_up = load(state=StudyState.CANCELLING, stop_reason="cancelled", fault="specification")
    assert plan(snapshot(given_up), RULES) == [close(StudyState.CANCELLED, "cancelled", StudyState.CANCELLING)]


def test_ready_tickets_are_counted_as_far_as_the_largest_share() -> None:
    assert ready_at_most(0, [1]) == 0
    assert ready_at_most(40, [1] * 50) == 40
    assert ready_at_most(5000, [1]) == 5000
    assert ready_at_most(5000, [1] * 50) == 200
    assert ready_at_most(5000, [9, 1]) == 5000


def test_no_message_of_a_long_trial_waits_for_a_slot() -> None:
    all_seconds = (0.0, 0.1, 1.0, 29.0, 30.0, math.inf)
    assert [messages_per_slot(seconds, 100, 4) for seconds in all_seconds] == [4, 4, 2, 1, 0, 0]
