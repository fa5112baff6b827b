"""The planner: from what is seen to what is done. Each rule of the protocol that the coordinator owes is a test."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from highnoon.coordinator.planner import (
    Close,
    Dispatch,
    FailOrphan,
    Orphan,
    QueueLoad,
    Reap,
    Resend,
    Rules,
    Snapshot,
    Stop,
    Tell,
    plan,
)
from highnoon.shared.domain.states import Ending, StudyState, TicketState
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.store.control import QueuedTicket, SettledTicket, TicketLoad
from highnoon.shared.store.optuna_trials import OwnedTrial, Owner
from highnoon.shared.store.studies import StudyRecord

RULES = Rules(lease_s=30.0, tell_grace_s=10.0, redispatch_s=60.0, dispatch_buffer=4)
W, Q, L, S, C = (
    TicketState.WAITING,
    TicketState.QUEUED,
    TicketState.RUNNING,
    TicketState.SETTLED,
    TicketState.CLOSED,
)


def load(
    *,
    study_id: int = 1,
    state: StudyState = StudyState.RUNNING,
    ready: int | None = None,
    stop_reason: str | None = None,
    queue: str = "cpu",
    spec: dict[str, Any] | None = None,
    tickets: dict[TicketState, int] | None = None,
) -> TicketLoad:
    record = StudyRecord(
        id=study_id,
        name=f"study-{study_id}",
        state=state,
        stop_reason=stop_reason,
        queue=queue,
        spec={"direction": "minimize", **(spec or {})},
        submitted_at=0.0,
        started_at=0.0,
        ended_at=None,
    )
    by_state = tickets or {}
    return TicketLoad(study=record, by_state=by_state, ready=by_state.get(W, 0) if ready is None else ready)


def settled(*, ending: Ending = Ending.COMPLETED, age_s: float = 0.0) -> SettledTicket:
    outcome = Outcome(ending=ending)
    return SettledTicket(ticket_id=7, attempt=1, study_id=1, trial_id=3, outcome=outcome, age_s=age_s)


def cpu(slots: int, messages: int | None = 0, lost: int = 0) -> dict[str, QueueLoad]:
    return {"cpu": QueueLoad(slots=slots, messages=messages, lost=lost)}


def test_dispatch_fills_the_free_slots_and_a_small_buffer() -> None:
    snapshot = Snapshot(steady_s=0, loads=(load(tickets={W: 100, L: 1}),), queues=cpu(2))
    assert plan(snapshot, RULES) == [Dispatch(study_id=1, name="study-1", resource="cpu", count=1 + 8)]


def test_what_is_queued_already_counts_against_the_room() -> None:
    snapshot = Snapshot(steady_s=0, loads=(load(tickets={W: 100, L: 2, Q: 7}),), queues=cpu(2, messages=7))
    assert plan(snapshot, RULES) == [Dispatch(study_id=1, name="study-1", resource="cpu", count=1)]


def test_nothing_is_dispatched_without_workers_or_without_redis() -> None:
    waiting = load(tickets={W: 5})
    assert plan(Snapshot(steady_s=0, loads=(waiting,), queues=cpu(0)), RULES) == []
    assert plan(Snapshot(steady_s=0, loads=(waiting,), queues=cpu(2, messages=None)), RULES) == []


def test_a_paused_study_is_not_dispatched_and_a_gpu_study_not_to_cpu_workers() -> None:
    paused = load(state=StudyState.PAUSED, tickets={W: 5})
    gpu = load(study_id=2, queue="gpu", tickets={W: 5})
    assert plan(Snapshot(steady_s=0, loads=(paused, gpu), queues=cpu(2)), RULES) == []


def test_tickets_that_must_wait_are_not_dispatched() -> None:
    assert plan(Snapshot(steady_s=0, loads=(load(tickets={W: 5}, ready=0),), queues=cpu(2)), RULES) == []


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 20))
def test_studies_share_the_room_fairly(wanted: list[int], slots: int) -> None:
    # Given several studies with work
    loads = tuple(load(study_id=i + 1, tickets={W: want}) for i, want in enumerate(wanted) if want)
    # When they are dispatched
    actions = plan(Snapshot(steady_s=0, loads=loads, queues=cpu(slots)), RULES)
    counts = {action.study_id: action.count for action in actions if isinstance(action, Dispatch)}
    # Then the room is used up as far as there is work, never exceeded, and nobody is short while another has plenty
    room = slots * (1 + RULES.dispatch_buffer)
    assert sum(counts.values()) == min(room, sum(wanted))
    short = [counts.get(item.study.id, 0) for item in loads if counts.get(item.study.id, 0) < item.ready]
    assert not short or max(counts.values(), default=0) <= min(short) + 1


def test_the_reaper_waits_until_holders_could_renew() -> None:
    expired = ((7, 1), (8, 2))
    assert plan(Snapshot(steady_s=29.9, expired=expired), RULES) == []
    assert plan(Snapshot(steady_s=30.0, expired=expired), RULES) == [
        Reap(ticket_id=7, attempt=1),
        Reap(ticket_id=8, attempt=2),
    ]


def test_the_worker_tells_first_and_the_coordinator_after_a_grace() -> None:
    assert plan(Snapshot(steady_s=0, settled=(settled(age_s=9.0),)), RULES) == []
    late = settled(age_s=10.0)
    assert plan(Snapshot(steady_s=0, settled=(late,)), RULES) == [Tell(settled=late)]


def test_a_lost_ticket_has_no_worker_to_wait_for() -> None:
    lost = settled(ending=Ending.LOST, age_s=0.0)
    assert plan(Snapshot(steady_s=0, settled=(lost,)), RULES) == [Tell(settled=lost)]


def test_messages_that_redis_lost_are_sent_again() -> None:
    queued = tuple(QueuedTicket(ticket_id=i, study_id=1, age_s=20.0 - i) for i in range(4))
    flushed = Snapshot(steady_s=0, loads=(load(tickets={Q: 4, L: 2}),), queues=cpu(2, lost=4), queued=queued)
    assert plan(flushed, RULES) == [Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(0, 1, 2, 3))]
    half = Snapshot(steady_s=0, loads=(load(tickets={Q: 4, L: 2}),), queues=cpu(2, messages=3, lost=1), queued=queued)
    assert plan(half, RULES) == [Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(0,))]


def test_queued_for_long_though_slots_are_free_is_sent_again() -> None:
    queued = (QueuedTicket(ticket_id=1, study_id=1, age_s=61.0),)
    snapshot = Snapshot(steady_s=0, loads=(load(tickets={Q: 1}),), queues=cpu(2, messages=1), queued=queued)
    assert plan(snapshot, RULES) == [Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(1,))]
    busy = Snapshot(steady_s=0, loads=(load(tickets={Q: 1, L: 2}),), queues=cpu(2, messages=1), queued=queued)
    assert plan(busy, RULES) == []


def test_a_study_is_closed_when_no_ticket_is_open_and_no_trial_is_running() -> None:
    done = load(tickets={C: 20})
    assert plan(Snapshot(steady_s=0, loads=(done,)), RULES) == [
        Close(study_id=1, name="study-1", state=StudyState.FINISHED, reason="n_trials")
    ]
    orphan = Orphan(study_id=1, trial=OwnedTrial(trial_id=5, number=4, owner=Owner(ticket=9, attempt=1)))
    assert plan(Snapshot(steady_s=0, loads=(done,), orphans=(orphan,)), RULES) == [FailOrphan(orphan=orphan)]
    for state in (W, Q, L, S):
        actions = plan(Snapshot(steady_s=0, loads=(load(tickets={C: 19, state: 1}),)), RULES)
        assert not any(isinstance(action, Close) for action in actions), state


def test_a_cancelling_study_ends_as_cancelled() -> None:
    cancelling = load(state=StudyState.CANCELLING, tickets={C: 3, TicketState.CANCELLED: 2})
    assert plan(Snapshot(steady_s=0, loads=(cancelling,)), RULES) == [
        Close(study_id=1, name="study-1", state=StudyState.CANCELLED, reason="cancelled")
    ]


def test_a_timeout_stops_what_has_not_begun() -> None:
    limited = load(spec={"timeout": 60.0}, tickets={W: 5, L: 1})
    assert not any(
        isinstance(action, Stop)
        for action in plan(Snapshot(steady_s=0, loads=(limited,), ages_s={1: 59.0}, queues=cpu(1)), RULES)
    )
    assert plan(Snapshot(steady_s=0, loads=(limited,), ages_s={1: 60.0}, queues=cpu(1)), RULES) == [
        Stop(study_id=1, reason="timeout")
    ]


def test_a_target_value_stops_in_the_studys_direction() -> None:
    low = load(spec={"target_value": 0.1}, tickets={W: 1})
    high = load(spec={"target_value": 0.9, "direction": "maximize"}, tickets={W: 1})
    assert plan(Snapshot(steady_s=0, loads=(low,), best_values={1: 0.2}), RULES) == []
    assert plan(Snapshot(steady_s=0, loads=(low,), best_values={1: 0.1}), RULES) == [
        Stop(study_id=1, reason="target_value")
    ]
    assert plan(Snapshot(steady_s=0, loads=(high,), best_values={1: 0.8}), RULES) == []
    assert plan(Snapshot(steady_s=0, loads=(high,), best_values={1: 0.95}), RULES) == [
        Stop(study_id=1, reason="target_value")
    ]


def test_failures_in_a_row_stop_and_one_success_between_them_does_not() -> None:
    limited = load(spec={"max_failures_in_a_row": 3}, tickets={W: 1})
    failed, timed_out, good = Ending.FAILED, Ending.TIMED_OUT, Ending.COMPLETED
    for recent, stops in (
        ((failed,) * 3, True),
        ((failed, timed_out, Ending.LOST), True),
        ((failed, good, failed), False),
        ((failed,) * 2, False),
    ):
        actions = plan(Snapshot(steady_s=0, loads=(limited,), recent_endings={1: recent}), RULES)
        assert actions == ([Stop(study_id=1, reason="failures_in_a_row")] if stops else []), recent


def test_a_study_that_was_deleted_in_optuna_starts_nothing_more() -> None:
    gone = load(tickets={W: 1})
    assert plan(Snapshot(steady_s=0, loads=(gone,), queues=cpu(2), deleted=frozenset({1})), RULES) == [
        Stop(study_id=1, reason="deleted")
    ]


def test_a_ticket_given_back_after_the_limit_is_stopped_too() -> None:
    stopped = load(stop_reason="timeout", tickets={W: 1})
    assert plan(Snapshot(steady_s=0, loads=(stopped,), queues=cpu(2)), RULES) == [Stop(study_id=1, reason="timeout")]


def test_a_study_deleted_in_optuna_says_so_though_nothing_of_it_was_left_to_stop() -> None:
    snapshot = Snapshot(steady_s=0, loads=(load(tickets={C: 3}),), deleted=frozenset({1}))
    assert plan(snapshot, RULES) == [
        Close(study_id=1, name="study-1", state=StudyState.FINISHED, reason="deleted"),
    ]


def test_what_nobody_takes_is_sent_again_and_again_but_not_without_end() -> None:
    """The only node was taken back from quarantine, and its pool waits for the end of a long trial."""
    stuck = tuple(QueuedTicket(ticket_id=n, study_id=1, age_s=100.0) for n in (1, 2))
    loads = (load(tickets={Q: 2}),)
    again = [Resend(study_id=1, name="study-1", resource="cpu", ticket_ids=(1, 2))]
    for messages, wanted in {2: again, 19: again, 20: [], 500: []}.items():
        snapshot = Snapshot(steady_s=0, loads=loads, queues=cpu(1, messages=messages), queued=stuck)
        assert plan(snapshot, RULES) == wanted, messages
