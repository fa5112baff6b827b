"""How many messages each study may send next: its share of a queue's slots. Pure.

A message goes to the study that has least queued and running for its priority. Among equals they take turns, the more
often the higher the priority (stride scheduling, Waldspurger and Weihl 1995): with more studies than slots, no other
order would ever reach the last of them.

A ticket that has been tried before goes to the head of the queue, and is sent though messages fill the queue: those may
be there for the slots of a node that is gone. But only as many are sent as the study has slots of its share left, or a
study whose trials fail would keep every slot; the others of its kind wait in the ledger until a slot is free.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from highnoon.shared.store.snapshot_rows import StudyLoad

_BUFFERED_S = 2.0
"""So much work may wait for each slot: the time of a tick, and of some that are late."""

_LONG_TRIAL_S = 30.0
"""Of longer trials no message waits once the study has its share of the slots: to send one when a slot is free costs
the slot 0.5 %, and whatever is more urgent by then goes first."""

TIMED_TRIALS = 32
"""Until so many trials of a study have ended, how long they took is no good estimate: the first ones may be refused or
fail at once, and the others take an hour."""

_BUFFER_AT_FIRST = 4
"""Messages of such a study for each slot, at most: messages of other studies wait behind them."""

_READY_AT_LEAST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Of one queue: its slots, those without a trial, messages that wait, and how many per slot may wait."""

    slots: int
    free: int
    queued: int
    buffer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a study gets, and the turn of its last message: what the next plan goes on from.

    `tried`: how many of the `count` have been tried before.
    """

    count: int
    turn: float
    tried: int = 0


def fair_shares(
    wanting: Sequence[StudyLoad], room: Room, turns: Mapping[int, float], waiting_at_head: Mapping[int, int]
) -> dict[int, Share]:
    """The shares by study, of those that get something.

    `waiting_at_head`: of each study the queued tickets that have been tried before.
    """
    loads = {load.study.id: load for load in wanting}
    now = max((turns[study_id] for study_id in loads if study_id in turns), default=0.0)
    slots = _slots_of(wanting, room, turns, now)
    tried = {
        study_id: _tried(load, room, slots[study_id], waiting_at_head.get(study_id, 0))
        for study_id, load in loads.items()
    }
    has = {study_id: load.queued + load.running + tried[study_id] for study_id, load in loads.items()}
    last = {study_id: turns.get(study_id) for study_id in loads}
    shares: dict[int, Share] = {}
    for study_id, count in tried.items():
        if count:
            load = loads[study_id]
            turn = last[study_id] = _next_turn(load, last[study_id], now) + (count - 1) / load.priority
            shares[study_id] = Share(count=count, turn=turn, tried=count)
    heap = [
        (has[study_id] // load.priority, _next_turn(load, last[study_id], now), study_id)
        for study_id, load in loads.items()
        if most_messages(load) > tried[study_id]
    ]
    heapq.heapify(heap)
    highest = max((load.priority for load in wanting), default=1)
    given = sum(tried.values())
    while heap and given < room.free + room.slots * room.buffer - room.queued:
        _, turn, study_id = heapq.heappop(heap)
        load, count = loads[study_id], shares[study_id].count if study_id in shares else 0
        was_tried = count - tried[study_id] >= load.ready - load.retried
        # Short trials, whose messages fill the queue, would leave no slot for others.
        is_next = room.queued > 0 and has[study_id] < slots[study_id]
        may_wait = not was_tried and (is_next or _may_wait(load, count, room, load.priority / highest))
        if given >= room.free - room.queued and not may_wait:
            continue
        tried[study_id] += was_tried
        shares[study_id] = Share(count=count + 1, turn=turn, tried=tried[study_id])
        given += 1
        has[study_id] += 1
        if count + 1 < most_messages(load):
            heapq.heappush(heap, (has[study_id] // load.priority, turn + 1 / load.priority, study_id))
    return shares


def most_messages(load: StudyLoad) -> int:
    """How many messages a study may send at all: by its ready tickets, and by `max_running`."""
    if load.max_running is None:
        return load.ready
    return min(load.ready, load.max_running - load.queued - load.running)


def _slots_of(wanting: Sequence[StudyLoad], room: Room, turns: Mapping[int, float], now: float) -> dict[int, int]:
    """How many slots each study may count on: its share in whole ones, or one at its turn where that is none."""
    priorities = sum(load.priority for load in wanting)
    slots = {}
    for load in wanting:
        is_due = _next_turn(load, turns.get(load.study.id), now) <= now
        slots[load.study.id] = room.slots * load.priority // priorities or int(is_due)
    return slots


def _tried(load: StudyLoad, room: Room, slots: int, waiting: int) -> int:
    """How many tickets of a study that have been tried before are sent now, whatever waits in the queue.

    Of a study that is alone so many are `waiting` at its head as there are slots, or a few more short ones: they
    overtake its own messages only. Beside others so many of them wait or run as the study has `slots`.
    """
    if slots == room.slots and load.queued == room.queued:
        left = slots * (1 + messages_per_slot(load.trial_s, load.ended, room.buffer)) - waiting
    else:
        left = slots - load.running - waiting
    return max(0, min(load.retried, most_messages(load), room.slots, left))


def _next_turn(load: StudyLoad, last: float | None, now: float) -> float:
    """A study that is new, or had nothing to send for a while, is next, and has no turns to make up for."""
    return now if last is None else max(now, last + 1 / load.priority)


def messages_per_slot(trial_s: float, ended: int, buffer: int) -> int:
    """How many messages may wait for each slot, of a study of which so many trials have ended; `buffer` is the most."""
    if trial_s >= _LONG_TRIAL_S:
        return 0
    if ended < TIMED_TRIALS:
        buffer = min(buffer, _BUFFER_AT_FIRST)
    return buffer if trial_s <= 0 else min(buffer, math.ceil(_BUFFERED_S / trial_s))


def ready_at_most(room: int, priorities: Sequence[int]) -> int:
    """How many ready tickets of a study are worth counting, where there is room for so many messages of all of them.

    Twice the largest share: what one study leaves to the others is sent by the next tick.
    """
    share = 2 * room * max(priorities) / sum(priorities)
    return min(room, max(_READY_AT_LEAST, math.ceil(share)))


def _may_wait(load: StudyLoad, count: int, room: Room, weight: float) -> bool:
    """Whether one more of its messages may wait in the queue while no slot is free.

    `weight` is its priority as a part of the highest: what waits is started in turns, whatever its priority.
    """
    per_slot = messages_per_slot(load.trial_s, load.ended, room.buffer)
    return per_slot > 0 and load.queued + count < math.ceil(weight * (room.free + per_slot * room.slots))
