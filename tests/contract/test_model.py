"""Any order of what holders, reapers, people and other Optuna programs do leaves ledger and Optuna in agreement.

Hypothesis draws the orders, on a real PostgreSQL. After every step the whole study is read by plain SQL and compared
with the reading before: at most one holder, fences never go back, what is closed stays as it is.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from optuna.storages import RDBStorage
from sqlalchemy import text

from highnoon.shared.domain.errors import LeaseLost, StudyConflict
from highnoon.shared.domain.lease import Candidate, Disposition, Holder, Lease, Progress, StartRefusal
from highnoon.shared.domain.states import OPTUNA_STATE, Ending, StudyState
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.store.study_records import StudyRecord
from tests.ledger import Ledger, point

HOLDERS = [Holder(worker_id=f"worker-{number}", host="host", pid=number) for number in range(3)]
OUTCOMES = [
    Outcome(ending=Ending.COMPLETED, value=0.25),
    Outcome(ending=Ending.COMPLETED, value=float("inf")),
    Outcome(ending=Ending.PRUNED, cause="pruned"),
    Outcome(ending=Ending.FAILED, cause="exception"),
    Outcome(ending=Ending.CANCELLED, cause="cancelled"),
]
NOT_FINAL = {
    Disposition.RETRY: Outcome(ending=Ending.KILLED, cause="signal"),
    Disposition.RELEASE: Outcome(ending=Ending.RELEASED, cause="drain"),
}
REPORTS = [Report(value=value, step=step) for step, value in enumerate((1.0, float("nan"), float("-inf"), 2.5))]
SELDOM = st.sampled_from([False] * 5 + [True])
"""For what leaves a study with little to happen."""

GIVEN_UP = (StudyState.CANCELLING, StudyState.CANCELLED)


@dataclass
class Reading:
    """The study as SQL shows it."""

    state: str
    tickets: dict[int, Any]
    attempts: dict[tuple[int, int], Any]
    trials: dict[int, Any]
    """Of ours alone."""
    foreign: dict[int, Any]


@dataclass(frozen=True)
class Decision:
    """A finish that was called: with the same token it finds its first try, with another one the lease is lost."""

    lease: Lease
    outcome: Outcome
    disposition: Disposition
    token: str
    answer: str | None


@dataclass
class Model:
    """What must hold of the leases, as far as it follows from the calls."""

    holder: dict[int, Lease] = field(default_factory=dict)
    worker: dict[tuple[int, int], str] = field(default_factory=dict)
    """Who was given each attempt of each ticket."""
    retried: bool = False
    ended_by_others: set[int] = field(default_factory=set)


def machine(ledger: Ledger, storage: RDBStorage, names: Iterator[str]) -> type[RuleBasedStateMachine]:
    class Study(RuleBasedStateMachine):
        candidates, leases, decisions = Bundle("candidates"), Bundle("leases"), Bundle("decisions")

        @initialize(
            target=leases,
            n_trials=st.integers(1, 4),
            enqueued=st.integers(0, 2),
            max_attempts=st.integers(1, 3),
            begun=st.lists(st.integers(0, 3), max_size=6),
        )
        def submit(self, n_trials: int, enqueued: int, max_attempts: int, begun: list[int]) -> Any:
            """A study in its middle: hypothesis leaves out rules at random, also those that start attempts."""
            self.name = next(names)
            self.study: StudyRecord = ledger.study(n_trials, self.name, max_attempts=max_attempts)
            self.optuna = optuna.load_study(study_name=self.name, storage=storage)
            self.optuna_deleted = False
            self.model = Model()
            self.granted: list[Lease] = []
            for number in range(enqueued):
                self.optuna.enqueue_trial({"x": float(number)})
            self.before: Reading | None = None
            for which in begun:
                for held in [*self.model.holder.values()]:
                    if held.ticket_id == ledger.tickets(self.study)[which % n_trials]:
                        self._finish(held, NOT_FINAL[Disposition.RELEASE], Disposition.RELEASE, [])
                self._start_when_due(which, HOLDERS[which % len(HOLDERS)])
            return multiple(*self.granted)

        # Holders

        @rule(target=candidates, which=st.integers(0, 5))
        def look(self, which: int) -> Any:
            ids = ledger.tickets(self.study)
            candidate = ledger.attempts.look(ids[which % len(ids)])
            return multiple() if candidate is None else candidate

        @rule(target=leases, candidate=candidates, holder=st.sampled_from(HOLDERS))
        def start(self, candidate: Candidate, holder: Holder) -> Any:
            """Also with a candidate that is long out of date, and twice."""
            return self._start(candidate, holder)

        def _start(self, candidate: Candidate, holder: Holder) -> Any:
            held = self.model.holder.get(candidate.ticket_id)
            waiting = None if candidate.waiting is None else candidate.waiting.trial_id
            answer = ledger.start_at(candidate, holder, point(0.5, waiting_trial_id=waiting))
            if isinstance(answer, StartRefusal):
                return multiple()
            if held is not None:
                assert answer.attempt == held.attempt, "two holders"
            worker = self.model.worker.setdefault((answer.ticket_id, answer.attempt), holder.worker_id)
            assert worker == holder.worker_id, "two holders"
            self.model.holder[candidate.ticket_id] = answer
            self.granted.append(answer)
            return answer

        @rule(target=leases, which=st.integers(0, 5), holder=st.sampled_from(HOLDERS))
        def start_when_due(self, which: int, holder: Holder) -> Any:
            """As most attempts start: so that many tickets have leases of earlier attempts."""
            return self._start_when_due(which, holder)

        def _start_when_due(self, which: int, holder: Holder) -> Any:
            ids = ledger.tickets(self.study)
            if ledger.state(ids[which % len(ids)]) == "waiting":
                ledger.skip_delay(ids[which % len(ids)])
            candidate = ledger.attempts.look(ids[which % len(ids)])
            return multiple() if candidate is None else self._start(candidate, holder)

        @rule(lease=leases, with_reports=st.booleans())
        def renew(self, lease: Lease, with_reports: bool) -> None:
            reports = REPORTS if with_reports else []
            if self._holds(lease):
                is_cancelled = ledger.studies.get(self.name).state in GIVEN_UP
                assert ledger.attempts.renew(lease, Progress(step=1), reports) is is_cancelled
            else:
                with pytest.raises(LeaseLost):
                    ledger.attempts.renew(lease, Progress(step=1), reports)

        @rule(target=decisions, lease=leases, outcome=st.sampled_from(OUTCOMES), with_reports=st.booleans())
        def close(self, lease: Lease, outcome: Outcome, with_reports: bool) -> Any:
            return self._finish(lease, outcome, Disposition.CLOSE, REPORTS if with_reports else [])

        @rule(target=decisions, lease=leases, disposition=st.sampled_from([*NOT_FINAL]))
        def give_back(self, lease: Lease, disposition: Disposition) -> Any:
            return self._finish(lease, NOT_FINAL[disposition], disposition, [])

        def _finish(self, lease: Lease, outcome: Outcome, disposition: Disposition, reports: list[Report]) -> Any:
            token = uuid.uuid4().hex

            def finish() -> str | None:
                return ledger.finish(lease, outcome, disposition, token=token, reports=reports)

            if not self._holds(lease):
                with pytest.raises(LeaseLost):
                    finish()
                return multiple()
            answer = finish()
            del self.model.holder[lease.ticket_id]
            return Decision(lease, outcome, disposition, token, answer)

        @rule(decision=decisions)
        def finish_again(self, decision: Decision) -> None:
            """The acknowledgement was lost: nothing changes, whatever has happened since."""
            again = ledger.finish(decision.lease, decision.outcome, decision.disposition, token=decision.token)
            assert again == decision.answer

        @rule(which=st.integers(0, 5))
        def decline(self, which: int) -> None:
            ids = ledger.tickets(self.study)
            ledger.attempts.decline(ids[which % len(ids)])

        @rule(candidate=candidates, happens=SELDOM)
        def exhaust(self, candidate: Candidate, happens: bool) -> None:
            if happens:
                ledger.attempts.exhaust(candidate)

        # Death and time

        @rule(lease=leases, is_expired=st.booleans())
        def reap(self, lease: Lease, is_expired: bool) -> None:
            if is_expired and self._holds(lease):
                ledger.expire(lease)
            self._reap(lease, only_expired=True, succeeds=ledger.is_expired(lease))

        @rule(seconds=st.sampled_from([-86_400, -40, 40, 86_400]))
        def clock_jumps(self, seconds: int) -> None:
            """The database's time, by which alone leases expire."""
            ledger.shift_clock(seconds)

        @rule(happens=SELDOM)
        def restart(self, happens: bool) -> None:
            """Every session ends, and a coordinator finds tables that are there: nothing is kept in memory."""
            if happens:
                ledger.end_all_sessions()
                for engine in (ledger.database.engine, storage.engine):
                    engine.dispose()
                ledger.database.create_schema()

        @rule(lease=leases)
        def release_of_the_dead(self, lease: Lease) -> None:
            self._reap(lease, only_expired=False, succeeds=True)

        def _reap(self, lease: Lease, *, only_expired: bool, succeeds: bool) -> None:
            answer = ledger.attempts.reap(lease.ticket_id, lease.attempt, message="dead", only_expired=only_expired)
            assert (answer is not None) == (succeeds and self._holds(lease))
            if answer is not None:
                del self.model.holder[lease.ticket_id]

        @rule(which=st.integers(0, 5))
        def delay_passes(self, which: int) -> None:
            ids = ledger.tickets(self.study)
            if ledger.state(ids[which % len(ids)]) == "waiting":
                ledger.skip_delay(ids[which % len(ids)])

        # Coordinator

        @rule(count=st.integers(1, 3))
        def dispatch(self, count: int) -> None:
            ledger.control.dispatch(self.study.id, count)

        @rule(is_old=st.booleans(), happens=SELDOM)
        def stop_at_a_limit(self, is_old: bool, happens: bool) -> None:
            if not happens:
                return
            version = ledger.studies.get(self.name).spec_version - is_old
            stopped = ledger.control.stop(self.study.id, "timeout", spec_version=version)
            assert not (stopped and is_old), "the study was changed since that was planned"

        @rule()
        def close_study(self) -> None:
            record = ledger.studies.get(self.name)
            after = StudyState.CANCELLED if record.state is StudyState.CANCELLING else StudyState.FINISHED
            reason = "cancelled" if after is StudyState.CANCELLED else "n_trials"
            if not record.is_over:
                closed = ledger.control.finish(self.study.id, before=record.state, state=after, reason=reason)
                assert not (closed and self.model.holder), "closed over an attempt"

        # People

        @rule(happens=SELDOM)
        def pause(self, happens: bool) -> None:
            if happens:
                ledger.studies.pause(self.study.id)

        @rule()
        def resume(self) -> None:
            ledger.studies.resume(self.study.id)

        @rule(happens=SELDOM)
        def cancel(self, happens: bool) -> None:
            if happens:
                ledger.studies.cancel(self.study.id)

        @rule(endings=st.sampled_from([(Ending.FAILED,), (Ending.COMPLETED, Ending.PRUNED), (Ending.LOST,)]))
        def retry(self, endings: tuple[Ending, ...]) -> None:
            given_up = ledger.studies.get(self.name).state in GIVEN_UP
            count = ledger.studies.retry(self.study.id, endings=endings)
            assert not (count and given_up), "cancelled is final"
            self.model.retried = count > 0

        @rule(count=st.integers(1, 2))
        def add_trials(self, count: int) -> None:
            given_up = ledger.studies.get(self.name).state in GIVEN_UP
            self.model.retried = True
            assert ledger.studies.add_trials(self.study.id, count, at_most=8) == 0 or not given_up

        @rule(n_trials=st.integers(1, 6))
        def extend(self, n_trials: int) -> None:
            record = ledger.studies.get(self.name)
            self.model.retried = True
            if record.state in GIVEN_UP:
                with pytest.raises(StudyConflict):
                    ledger.studies.extend(self.study.id, record.spec, n_trials=n_trials)
            else:
                ledger.studies.extend(self.study.id, record.spec, n_trials=n_trials)

        # Other programs on Optuna's tables

        @precondition(lambda self: not self.optuna_deleted)
        @rule(lease=leases, state=st.sampled_from([optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE]))
        def ended_by_others(self, lease: Lease, state: optuna.trial.TrialState) -> None:
            if self._holds(lease) and lease.trial_id not in self.model.ended_by_others:
                values = [7.0] if state == optuna.trial.TrialState.COMPLETE else None
                storage.set_trial_state_values(lease.trial_id, state, values)
                self.model.ended_by_others.add(lease.trial_id)

        @precondition(lambda self: not self.optuna_deleted)
        @rule(complete=st.booleans())
        def a_script_joins(self, complete: bool) -> None:
            trial = self.optuna.ask()
            if complete:
                self.optuna.tell(trial, 1.0)

        @precondition(lambda self: not self.optuna_deleted)
        @rule(happens=SELDOM)
        def deleted_in_optuna(self, happens: bool) -> None:
            if happens:
                optuna.delete_study(study_name=self.name, storage=storage)
                self.optuna_deleted = True

        # What holds after every step

        @invariant()
        def ledger_and_optuna_agree(self) -> None:
            if not hasattr(self, "name"):
                return
            now = read(ledger, self.study)
            check(now, self.model, optuna_deleted=self.optuna_deleted)
            if self.before is not None:
                compare(self.before, now, reopened=self.model.retried)
            self.before, self.model.retried = now, False

        @invariant()
        def earlier_holder_of_a_running_ticket_can_do_nothing(self) -> None:
            if not hasattr(self, "name"):
                return
            for lease in self.granted:
                if lease.ticket_id not in self.model.holder or self._holds(lease):
                    continue
                with pytest.raises(LeaseLost):
                    ledger.attempts.renew(lease, Progress(), [])
                with pytest.raises(LeaseLost):
                    ledger.attempts.add_reports(lease, REPORTS)
                with pytest.raises(LeaseLost):
                    ledger.finish(lease)
                assert ledger.attempts.reap(lease.ticket_id, lease.attempt, message="?", only_expired=False) is None

        def _holds(self, lease: Lease) -> bool:
            held = self.model.holder.get(lease.ticket_id)
            return held is not None and held.attempt == lease.attempt

    return Study


def read(ledger: Ledger, study: StudyRecord) -> Reading:
    def rows(statement: str) -> list[Any]:
        return list(connection.execute(text(statement), {"study": study.id, "optuna": study.optuna_study_id}))

    with ledger.database.transaction() as connection:
        trials = rows(
            "select t.trial_id, t.number, t.state::text as state, v.value, v.value_type::text as kind,"
            " (select value_json::int from trial_user_attributes a where a.trial_id = t.trial_id"
            "  and key = 'highnoon:ticket') as ticket,"
            " (select value_json::int from trial_user_attributes a where a.trial_id = t.trial_id"
            "  and key = 'highnoon:attempt') as attempt"
            " from trials t left join trial_values v on v.trial_id = t.trial_id where t.study_id = :optuna"
        )
        attempts = rows(
            "select a.* from hn_attempts a join hn_tickets t on t.id = a.ticket_id where t.study_id = :study"
        )
        return Reading(
            state=rows("select state from hn_studies where id = :study")[0].state,
            tickets={row.id: row for row in rows("select * from hn_tickets where study_id = :study")},
            attempts={(row.ticket_id, row.attempt): row for row in attempts},
            trials={row.trial_id: row for row in trials if row.ticket is not None},
            foreign={row.trial_id: row for row in trials if row.ticket is None},
        )


def check(now: Reading, model: Model, *, optuna_deleted: bool) -> None:
    """What must be true of one reading alone."""
    numbers = [row.number for row in (*now.trials.values(), *now.foreign.values())]
    assert len(set(numbers)) == len(numbers), "a number was given twice"
    running = {(id, ticket.attempt) for id, ticket in now.tickets.items() if ticket.state == "running"}
    assert running == {(id, lease.attempt) for id, lease in model.holder.items()}
    assert {key for key, attempt in now.attempts.items() if attempt.ended_at is None} == running
    for id, ticket in now.tickets.items():
        assert [number for of, number in sorted(now.attempts) if of == id] == [*range(1, ticket.attempt + 1)]
        if ticket.state == "running":
            assert ticket.worker_id == now.attempts[id, ticket.attempt].worker_id
        if ticket.state == "closed":
            assert ticket.ending == now.attempts[id, ticket.attempt].ending == json_of(ticket.outcome)["ending"]
    if now.state in GIVEN_UP:
        assert not {ticket.state for ticket in now.tickets.values()} & {"waiting", "queued"}, "cancelled is final"
        assert "WAITING" not in {row.state for row in now.foreign.values()}, "what was enqueued ends with its study"
    if optuna_deleted:
        return
    by_attempt = {(row.ticket, row.attempt): row for row in now.trials.values()}
    assert len(by_attempt) == len(now.trials), "an attempt has two trials"
    assert by_attempt.keys() == now.attempts.keys()
    for key, attempt in now.attempts.items():
        trial = by_attempt[key]
        assert trial.number == attempt.trial_number
        if trial.trial_id in model.ended_by_others:
            assert trial.state in ("COMPLETE", "FAIL")
        elif attempt.ended_at is None:
            assert trial.state == "RUNNING"
        else:
            assert trial.state == OPTUNA_STATE[Ending(attempt.ending)].value.upper(), (trial, attempt.ending)
            assert attempt.foreign_ending is None
    for ticket in now.tickets.values():
        trial = by_attempt.get((ticket.id, ticket.attempt))
        if ticket.state == "closed" and trial is not None and trial.trial_id not in model.ended_by_others:
            is_infinite = trial.kind == "INF_POS"
            if ticket.ending == "completed":
                assert ticket.value == (float("inf") if is_infinite else trial.value)


def compare(before: Reading, now: Reading, *, reopened: bool) -> None:
    """What one step may not do."""
    assert before.attempts.keys() <= now.attempts.keys(), "an attempt is kept for ever"
    for key, attempt in before.attempts.items():
        if attempt.ended_at is not None:
            assert now.attempts[key] == attempt, "an attempt that ended was changed"
    for id, ticket in before.tickets.items():
        after = now.tickets[id]
        assert after.attempt in (ticket.attempt, ticket.attempt + 1), "fences never go back"
        if ticket.state in ("closed", "cancelled") and not reopened:
            assert after == ticket, "closed is final"
    for trial_id, trial in before.trials.items():
        if trial.state in ("COMPLETE", "FAIL", "PRUNED") and trial_id in now.trials:
            assert now.trials[trial_id] == trial, "a trial that ended was changed"
    if before.state in GIVEN_UP:
        assert now.state in GIVEN_UP, "cancelled is final"
    assert max(Counter(ticket.ordinal for ticket in now.tickets.values()).values()) == 1


def json_of(stored: Any) -> Any:
    return json.loads(stored) if isinstance(stored, str) else stored


def test_any_order_of_events_leaves_ledger_and_optuna_in_agreement(ledger: Ledger) -> None:
    ledger.own_clock()
    names = (f"study-{number}" for number in itertools.count())
    run_state_machine_as_test(
        machine(ledger, RDBStorage(ledger.database.url), names),
        settings=settings(
            max_examples=int(os.environ.get("TEST_MODEL_EXAMPLES", "40")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
        ),
    )


def test_any_simultaneous_events_leave_ledger_and_optuna_in_agreement(ledger: Ledger) -> None:
    """The same steps from eight threads at once, without a model: none fails or waits for ever, and the books agree."""
    study = ledger.study(12, "crowd", max_attempts=3)
    storage = RDBStorage(ledger.database.url)

    def act(seed: int, stop_at: float) -> Counter[str]:
        chance, done = random.Random(seed), Counter[str]()
        mine: list[Lease] = []
        holder = Holder(worker_id=f"worker-{seed}", host="host", pid=seed)
        script = optuna.load_study(study_name="crowd", storage=storage)
        while time.monotonic() < stop_at:
            left_s = stop_at - time.monotonic()
            name, step = chance.choice(steps(ledger, study, script, mine, holder, chance, left_s))
            try:
                step()
                done[name] += 1
            except (LeaseLost, StudyConflict):
                done[f"{name} refused"] += 1
        return done

    wanted, done = {"start", "finish", "reap", "finish refused"}, Counter[str]()
    # Once more on a machine that is too slow for all of it within four seconds.
    for _ in range(10):
        with ThreadPoolExecutor(8) as pool:
            done += sum(pool.map(act, range(8), [time.monotonic() + 4.0] * 8), Counter[str]())
        if wanted <= done.keys():
            break
    assert wanted <= done.keys(), done
    now = read(ledger, study)
    check(now, Model(holder=running_in(now), ended_by_others=ended_by_others_in(now)), optuna_deleted=False)


def steps(
    ledger: Ledger,
    study: StudyRecord,
    script: optuna.Study,
    mine: list[Lease],
    holder: Holder,
    chance: random.Random,
    left_s: float,
) -> list[tuple[str, Callable[[], object]]]:
    """What one of many may do next, the frequent steps more than once."""
    lease = chance.choice(mine) if mine else None

    def start() -> None:
        candidate = ledger.attempts.look(chance.choice(ledger.tickets(study)))
        if candidate is not None:
            waiting = None if candidate.waiting is None else candidate.waiting.trial_id
            answer = ledger.start_at(candidate, holder, point(0.5, waiting_trial_id=waiting))
            if isinstance(answer, Lease):
                mine.append(answer)

    def finish() -> None:
        assert lease is not None
        mine.remove(lease)
        disposition = chance.choice([*Disposition])
        ledger.finish(lease, NOT_FINAL.get(disposition, chance.choice(OUTCOMES)), disposition, reports=REPORTS)

    def reap() -> None:
        running = [row for row in ledger.studies.attempts(study.id) if row.ended_at is None]
        if running:
            row = chance.choice(running)
            ledger.attempts.reap(row.ticket_id, row.attempt, message="dead", only_expired=False)
            ledger.skip_delay(row.ticket_id)

    def end_by_hand() -> None:
        assert lease is not None
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            script._storage.set_trial_state_values(lease.trial_id, optuna.trial.TrialState.FAIL)

    of_people: list[tuple[str, Callable[[], object]]] = [
        ("pause", lambda: ledger.studies.pause(study.id)),
        ("resume", lambda: ledger.studies.resume(study.id)),
        ("retry", lambda: ledger.studies.retry(study.id, endings=tuple(Ending))),
        ("add", lambda: ledger.studies.add_trials(study.id, 2, at_most=30)),
        ("extend", lambda: ledger.studies.extend(study.id, study.spec, n_trials=20)),
        ("stop", lambda: ledger.control.stop(study.id, "timeout", spec_version=1)),
        ("close", lambda: _close(ledger, study)),
        ("script", lambda: script.tell(script.ask(), 1.0)),
    ]
    if left_s > 1.5:
        of_people.append(("enqueue", lambda: script.enqueue_trial({"x": 1.0})))
    elif left_s < 0.3:
        # What follows a cancelled study is little.
        of_people.append(("cancel", lambda: ledger.studies.cancel(study.id)))
    often: list[tuple[str, Callable[[], object]]] = [
        ("start", start),
        ("dispatch", lambda: ledger.control.dispatch(study.id, 3)),
        ("resume", lambda: ledger.studies.resume(study.id)),
    ]
    if lease is not None:
        often += [("finish", finish), ("renew", lambda: ledger.attempts.renew(lease, Progress(), REPORTS))]
        of_people.append(("end by hand", end_by_hand))
    return [*of_people, *often * 4, ("reap", reap), ("reap", reap)]


def _close(ledger: Ledger, study: StudyRecord) -> None:
    record = ledger.studies.get(study.name)
    after = StudyState.CANCELLED if record.state is StudyState.CANCELLING else StudyState.FINISHED
    ledger.control.finish(study.id, before=record.state, state=after, reason="n_trials")


def running_in(now: Reading) -> dict[int, Any]:
    return {id: ticket for id, ticket in now.tickets.items() if ticket.state == "running"}


def ended_by_others_in(now: Reading) -> set[int]:
    """Trials that a script ended while we held them, or before we ended them otherwise."""
    return {
        trial.trial_id
        for trial in now.trials.values()
        if (attempt := now.attempts[trial.ticket, trial.attempt]).foreign_ending is not None
        or (attempt.ended_at is None and trial.state == "FAIL")
    }
