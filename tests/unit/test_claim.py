"""From a message to a started attempt: what goes wrong with one study writes nothing and charges nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from highnoon.shared.domain.errors import RowLocked, ServiceUnavailable, SpaceExhausted, UnknownStudy
from highnoon.shared.domain.lease import Candidate, Lease, StartRefusal
from highnoon.shared.domain.messages import RunTrial
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store import outages
from highnoon.shared.store.database import Database
from highnoon.workers.claim import Claims, StartedAttempt
from highnoon.workers.code.code_gate import Code
from highnoon.workers.monitor.admission import Admitted
from highnoon.workers.node import Node
from highnoon.workers.slot_state import SlotStates
from highnoon.workers.telemetry import Telemetry

SPEC = StudySpec.model_validate(
    {
        "name": "digits",
        "objective": "train:objective",
        "search_space": {"x": ["uniform", 0, 1]},
        "n_trials": 9,
        "pruner": "none",
    }
)
CANDIDATE = Candidate(
    ticket_id=17,
    study_id=1,
    study_name="digits",
    spec=SPEC.to_json(),
    spec_version=1,
    ordinal=3,
    attempt=0,
    infrastructure_failures=0,
    errors=0,
)
MESSAGE = RunTrial(study="digits", ticket=17)


@dataclass
class World:
    """The database, Optuna and the broker at once: what was called, in order, and what it answers."""

    candidate: Candidate | Exception | None = CANDIDATE
    choose: Callable[[], object] = lambda: "point"
    answers: list[object] = field(default_factory=list)
    calls: list[object] = field(default_factory=list)
    closed: list[Study] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def look(self, ticket_id: int) -> Candidate | None:
        self.calls.append("look")
        if isinstance(self.candidate, Exception):
            raise self.candidate
        return self.candidate

    def start(self, candidate: Candidate, new: object, *_: object, **__: object) -> Lease | StartRefusal:
        self.calls.append(("start", candidate.spec_version, new))
        answer = self.answers.pop(0) if self.answers else LEASE
        if isinstance(answer, Exception):
            raise answer
        return cast(Any, answer)

    def exhaust(self, candidate: Candidate) -> None:
        self.calls.append("exhaust")

    def decline(self, ticket_id: int, *, delay_s: float) -> None:
        self.calls.append(("decline", delay_s))

    def notify(self) -> None:
        self.calls.append("notify")

    def record_declined(self, study_id: int, fault: str) -> None:
        self.faults.append((study_id, fault))


LEASE = Lease(
    ticket_id=17,
    attempt=1,
    spec=SPEC.to_json(),
    ordinal=3,
    infrastructure_failures=0,
    errors=0,
    ttl_s=30.0,
    trial_id=5,
    trial_number=5,
    params={"x": 0.5},
)


class Study:
    def __init__(self, world: World) -> None:
        self._world = world

    def choose(self, **_: object) -> object:
        return self._world.choose()

    def load_history(self) -> None:
        self._world.calls.append("load history")

    def repeat_bar(self) -> float | None:
        return None

    def close_plugins(self, *, if_idle: bool = False) -> None:
        if not if_idle:
            self._world.closed.append(self)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(outages, "wait_random_exponential", lambda **_: lambda _state: 0.0)
    return World()


@pytest.fixture
def claims(world: World, tmp_path: Path) -> Claims:
    node = Node(slots=1, resources=("cpu",), settings=load_settings({}, home=tmp_path))
    node.folder.mkdir(parents=True)
    database = Database("postgresql://nobody@127.0.0.1:1/nowhere")
    claims: Any = Claims(node, database, cast(Any, world), SlotStates(tmp_path), Telemetry(None))
    claims._attempts = claims._faults._control = world
    claims._store = Stub(open=lambda _: Study(world))
    claims._code = Stub(pass_or_refuse=lambda _: Code(folder=None))
    claims._admission = Stub(admit=lambda *_, **__: Admitted())
    return cast(Claims, claims)


class Stub:
    def __init__(self, **methods: object) -> None:
        self.__dict__.update(methods)


def test_message_becomes_a_started_attempt_in_one_look_and_one_start(claims: Claims, world: World) -> None:
    started = claims.start(MESSAGE)
    assert isinstance(started, StartedAttempt) and started.lease == LEASE
    assert world.calls == ["look", ("start", 1, "point")]


def test_only_the_studies_that_were_used_last_stay_open(claims: Claims, world: World) -> None:
    for study_id in (*range(16), 0, *range(16, 20)):
        world.candidate = replace(CANDIDATE, study_id=study_id)
        assert claims.start(MESSAGE) is not None
    assert list(claims._open) == [*range(5, 16), 0, *range(16, 20)]
    assert len(world.closed) == 4, "plug-ins of those that were closed are ended"


def test_plugins_of_an_older_version_of_a_study_are_ended(claims: Claims, world: World) -> None:
    assert claims.start(MESSAGE) is not None
    older = claims._open[1].optuna
    world.candidate = replace(CANDIDATE, spec_version=2)
    assert claims.start(MESSAGE) is not None
    assert world.closed == [older]


def test_row_locked_by_another_client_costs_no_slot(claims: Claims, world: World) -> None:
    world.answers = [RowLocked("canceling statement due to lock timeout")]
    assert claims.start(MESSAGE) is None
    assert world.calls == ["look", ("start", 1, "point"), ("decline", 10.0), "notify"]


def test_a_lock_that_is_held_for_a_moment_is_no_fault_of_the_study_and_hides_none(claims: Claims, world: World) -> None:
    world.answers = [RowLocked("canceling statement due to lock timeout"), ZeroDivisionError("unreadable")]
    assert claims.start(MESSAGE) is None and not world.faults
    assert claims.start(MESSAGE) is None and len(world.faults) == 1


def test_enqueued_trial_that_cannot_be_read_puts_the_ticket_back(claims: Claims, world: World) -> None:
    world.candidate = ValueError("no JSON")
    assert claims.start(MESSAGE) is None
    assert world.calls == ["look", ("decline", 10.0), "notify"]


def test_history_is_read_before_an_attempt_that_a_pruner_may_end(claims: Claims, world: World) -> None:
    world.candidate = replace(CANDIDATE, spec=SPEC.to_json() | {"pruner": "median"})
    claims.start(MESSAGE)
    assert world.calls == ["look", "load history", ("start", 1, "point")]


def test_ticket_that_is_not_available_is_dropped(claims: Claims, world: World) -> None:
    for refusal in (StartRefusal.NOT_AVAILABLE, StartRefusal.PAUSED, StartRefusal.STUDY_DELETED):
        world.answers = [refusal]
        assert claims.start(MESSAGE) is None
    world.candidate = None
    assert claims.start(MESSAGE) is None
    assert "notify" not in world.calls


def test_changed_study_is_looked_at_and_sampled_again(claims: Claims, world: World) -> None:
    world.answers = [StartRefusal.CHANGED]

    def choose() -> object:
        if world.calls.count("look") == 1:
            world.candidate = replace(CANDIDATE, spec_version=2)
            return "old point"
        return "new point"

    world.choose = choose
    assert claims.start(MESSAGE) is not None
    assert world.calls == ["look", ("start", 1, "old point"), "look", ("start", 2, "new point")]


def test_lost_acknowledgement_is_followed_by_the_same_call(claims: Claims, world: World) -> None:
    world.answers = [ServiceUnavailable("away"), ServiceUnavailable("away")]
    assert claims.start(MESSAGE) is not None
    assert world.calls == ["look", *[("start", 1, "point")] * 3]


def test_specification_of_a_newer_version_is_declined_and_reported_once(
    claims: Claims, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.candidate = replace(CANDIDATE, spec={**SPEC.to_json(), "quantum": True})
    with caplog.at_level(logging.WARNING):
        assert claims.start(MESSAGE) is None and claims.start(MESSAGE) is None
    assert world.calls == ["look", ("decline", 10.0), "notify"] * 2
    (line,) = [record.getMessage() for record in caplog.records if "action=declined" in record.getMessage()]
    assert "study=digits" in line and "quantum" in line


def test_fault_in_the_data_of_one_study_declines_its_ticket_only(claims: Claims, world: World) -> None:
    def broken() -> object:
        raise ZeroDivisionError("a row that no sampler can read")

    world.choose = broken
    assert claims.start(MESSAGE) is None
    assert world.calls == ["look", ("decline", 10.0), "notify"]
    world.choose, world.candidate = lambda: "point", replace(CANDIDATE, study_id=2, study_name="other")
    assert claims.start(MESSAGE) is not None


def test_fault_for_which_tickets_are_declined_is_written_to_the_ledger_now_and_then(
    claims: Claims, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("highnoon.workers.claim.time.monotonic", lambda: now[0])

    def broken() -> object:
        raise ZeroDivisionError("a row that no sampler can read")

    world.choose = broken
    for now[0] in (1000.0, 1010.0, 1031.0):
        assert claims.start(MESSAGE) is None
    assert [study_id for study_id, _ in world.faults] == [1, 1], "and again while it lasts"
    assert world.faults[0][1].startswith("ZeroDivisionError: a row that no sampler can read (")


def test_study_whose_own_sampler_has_failed_is_tried_again_each_minute(
    claims: Claims, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, faults = [1000.0], []
    monkeypatch.setattr("highnoon.workers.claim.time.monotonic", lambda: now[0])
    study: Any = Study(world)
    study.plugin_fault, study.allow_plugins = lambda: "no idea", lambda _: None
    claims._store = cast(Any, Stub(open=lambda _: study))
    claims._faults.report_plugin = lambda *_: faults.append(now[0])  # type: ignore[method-assign]
    world.candidate = replace(CANDIDATE, spec=SPEC.to_json() | {"sampler": "own.py:Sampler"})
    for now[0] in (1000.0, 1031.0, 1059.0, 1060.0):
        assert claims.start(MESSAGE) is None
    assert faults == [1000.0, 1060.0]


def test_study_without_further_points_ends_as_exhausted(
    claims: Claims, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted() -> object:
        raise SpaceExhausted("6 points")

    world.choose = exhausted
    assert claims.start(MESSAGE) is None and world.calls == ["look", "exhaust"]
    assert "action=exhausted" in caplog.text and "6 points" in caplog.text


def test_optuna_study_that_was_deleted_is_left_to_the_coordinator(claims: Claims, world: World) -> None:
    def deleted() -> object:
        raise UnknownStudy("no study named 'digits'")

    world.choose = deleted
    assert claims.start(MESSAGE) is None and world.calls == ["look"]


def test_draining_node_hands_the_message_back_at_once(claims: Claims, world: World) -> None:
    claims._node.drain.give(allowed_s=60.0)
    assert claims.start(MESSAGE) is None
    assert world.calls == ["look", ("decline", 0.0), "notify"]
