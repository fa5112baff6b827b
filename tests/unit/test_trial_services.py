"""Services to a running trial: the monitor never waits, and decides itself on what the I/O thread has read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial

from highnoon.shared.domain.errors import LeaseLost, PluginFailed, ServiceUnavailable
from highnoon.shared.domain.lease import Lease, Progress
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Report
from highnoon.shared.search.plugged import PluggedPruner
from highnoon.shared.search.pruning import PrunerView
from highnoon.shared.store.optuna_trials import NewTrial
from highnoon.workers import trial_services
from highnoon.workers.io_thread import IoThread
from highnoon.workers.node import DrainOrder
from highnoon.workers.report_buffer import MOST_WAITING, MOST_WRITTEN, ReportBuffer
from highnoon.workers.suggestions import Suggestions
from highnoon.workers.trial_services import TrialServices
from tests.support import eventually

_WAIT_S = 2.0
"""How long the first answer may wait for the other trials."""

LEASE = Lease(
    ticket_id=17,
    attempt=1,
    spec={"name": "digits"},
    ordinal=0,
    infrastructure_failures=0,
    errors=0,
    ttl_s=30.0,
    trial_id=5,
    trial_number=5,
    params={},
)


@dataclass
class Database:
    """Attempts and an Optuna study at once: prunes from step 2 on. `answers` is cleared to freeze it."""

    prunes = True
    views: int = 0
    rungs: dict[str, Any] = field(default_factory=dict)

    reports: list[Report] = field(default_factory=list)
    renewals: list[Progress] = field(default_factory=list)
    error: Exception | None = None
    is_cancelled: bool = False
    tries: int = 0
    definition: Any = None
    answers: threading.Event = field(default_factory=threading.Event)

    pruner: ClassVar[BasePruner]
    others: ClassVar[list[dict[int, float]]] = []

    def __post_init__(self) -> None:
        self.answers.set()

    def renew(self, lease: Lease, progress: Progress, reports: Sequence[Report]) -> bool:
        self._answer()
        self.renewals.append(progress)
        self.reports += reports
        return self.is_cancelled

    def add_reports(self, lease: Lease, reports: Sequence[Report]) -> None:
        self._answer()
        self.reports += reports

    def add(self, lease: Lease, new: NewTrial) -> None:
        self._answer()
        self.rungs |= new.system_attrs

    def pruner_view(self, trial_id: int) -> PrunerView:
        self._answer()
        self.views += 1
        study = optuna.create_study(pruner=self.pruner)
        for values in self.others:
            study.add_trial(optuna.create_trial(value=1.0, intermediate_values=values))
        return PrunerView(study, study.get_trials(), trial_id)

    def _answer(self) -> None:
        self.tries += 1
        self.answers.wait(60.0)
        if self.error is not None:
            raise self.error


class FromStepTwo(BasePruner):
    """Notes each step, as successive halving notes rungs."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        study._storage.set_trial_system_attr(trial._trial_id, f"rung_{trial.last_step}", 1.0)
        return (trial.last_step or 0) >= 2


Database.pruner = FromStepTwo()


class Measured:
    """The memory of a trial that holds little, while its process has inherited much."""

    held_bytes = 7


@dataclass
class Scene:
    """The services of one trial on a database that a test can freeze or break."""

    database: Database
    services: TrialServices
    drain: DrainOrder

    def report(self, step: int) -> None:
        self.services.take_report(Report(step=step, value=float(step)))

    def ask(self, step: int) -> tuple[bool, float]:
        """The answer to a report and a question, and how long it took."""
        self.report(step)
        began = time.monotonic()
        self.services.ask_should_prune()
        answer = _answer(self.services.prune_answer)
        return answer, time.monotonic() - began

    def ask_at_once(self, step: int) -> bool:
        """The answer, which must not wait for the database, nor as long as the first one may."""
        answer, took_s = self.ask(step)
        assert took_s < _WAIT_S / 2
        return answer


def _answer(prune_answer: Callable[[], bool | None]) -> bool:
    deadline = time.monotonic() + 60.0
    while (answer := prune_answer()) is None:
        assert time.monotonic() < deadline, "no answer"
        time.sleep(0.002)
    return answer


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(trial_services, "HOLDS_S", 0.1)
    monkeypatch.setattr(trial_services, "_VIEW_WITHIN_S", _WAIT_S)
    monkeypatch.setattr(trial_services, "_RENEW_AGAIN_S", 0.02)
    database, io, drain = Database(), IoThread(), DrainOrder(tmp_path / "drain")
    files: Any = SimpleNamespace(advance=lambda: False)
    node: Any = SimpleNamespace(settings=SimpleNamespace(renew_s=0.05), drain=drain)
    yield Scene(database, TrialServices(node, io, cast(Any, database), LEASE, cast(Any, database), files), drain)
    database.answers.set()
    assert io.stop(60.0)


def test_each_answer_is_about_the_newest_report(scene: Scene) -> None:
    assert [scene.ask(step)[0] for step in range(4)] == [False, False, True, True]
    # The reports and rungs are written when the others are read again, or with what is written next
    scene.services.flush()
    assert scene.database.rungs == {f"rung_{step}": 1.0 for step in range(4)}
    assert [*scene.database.reports, *scene.services.unwritten] == [Report(step=s, value=float(s)) for s in range(4)]


def test_thousand_answers_read_the_others_only_now_and_then(scene: Scene) -> None:
    began = time.monotonic()
    for step in range(1000):
        scene.ask(step)
    assert scene.database.views <= 2 + (time.monotonic() - began) / 0.1


def test_a_question_about_others_read_long_ago_waits_for_a_new_reading(scene: Scene) -> None:
    scene.ask(0)
    scene.database.answers.clear()
    time.sleep(0.11)  # the others are to be read again
    threading.Timer(0.05, scene.database.answers.set).start()
    assert scene.ask(1)[0] is False and scene.database.views == 2


def test_what_is_safe_expires_with_the_reading_of_the_others(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "pruner", NopPruner())
    scene.ask(0)
    safe = scene.services.safe_reports()
    assert safe is not None and 0.0 < safe.for_s < 0.1 and safe.allow(99, 99.0)
    time.sleep(0.11)
    assert scene.services.safe_reports() is None, "nothing can be known of others that were read so long ago"


def test_bounds_of_a_step_are_computed_once_for_each_reading(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_services, "HOLDS_S", 60.0)
    monkeypatch.setattr(Database, "pruner", MedianPruner(n_startup_trials=1))
    monkeypatch.setattr(Database, "others", [dict.fromkeys(range(10), 4.0)])
    scene.ask(0)
    assert scene.services.safe_reports() is None, "it is not known yet how often the trial reports"
    scene.ask(1)
    safe = scene.services.safe_reports()
    assert safe is not None and safe.bounds == dict.fromkeys(range(2, 10), 4.0)
    scene.ask(2)
    assert scene.services.safe_reports() is None


def test_beyond_the_last_step_of_all_others_bounds_are_looked_for_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(view: PrunerView, trial: Any, n_steps: int, *, for_s: float) -> Any:
        searches.append(n_steps > 0)
        return compute(view, trial, n_steps, for_s=for_s)

    searches, compute = list[bool](), PrunerView.safe_reports
    monkeypatch.setattr(PrunerView, "safe_reports", counted)
    monkeypatch.setattr(trial_services, "HOLDS_S", 60.0)
    monkeypatch.setattr(Database, "pruner", MedianPruner(n_startup_trials=1))
    monkeypatch.setattr(Database, "others", [dict.fromkeys(range(10), 400.0)])
    for step in range(20, 26):
        scene.ask(step)
        scene.services.safe_reports()
    assert searches == [False, True, False, False, False, False]


def test_a_trial_that_reports_faster_than_before_gets_further_bounds(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_services, "HOLDS_S", 60.0)
    monkeypatch.setattr(Database, "pruner", MedianPruner(n_startup_trials=1))
    monkeypatch.setattr(Database, "others", [dict.fromkeys(range(100), 400.0)])
    now = [trial_services.now_s()]
    monkeypatch.setattr(trial_services, "now_s", lambda: now[0])
    scene.ask(0)
    scene.services.safe_reports()
    now[0] += 20.0  # the machine was busy with something else
    scene.ask(1)
    first = scene.services.safe_reports()
    assert first is not None and list(first.bounds) == [2, 3]
    now[0] += 0.1
    scene.report(2)
    scene.report(3)
    scene.ask(4)
    further = scene.services.safe_reports()
    assert further is not None and list(further.bounds) == [*range(5, 100)]


def test_answers_go_on_while_the_database_is_frozen(scene: Scene) -> None:
    scene.ask(0)
    scene.database.answers.clear()
    time.sleep(0.11)  # the others are to be read again
    assert [scene.ask_at_once(step) for step in range(1, 4)] == [False, True, True]
    assert scene.ask_at_once(4) is True
    # And no report is lost
    scene.database.answers.set()
    scene.ask(5)
    eventually(lambda: len(scene.database.reports) == 6 or scene.ask(5) is None, 5)
    assert [report.step for report in scene.database.reports] == list(range(6))


def test_the_first_answer_waits_for_the_others_and_not_for_ever(scene: Scene) -> None:
    scene.database.answers.clear()
    answer, took_s = scene.ask(7)
    assert answer is False and 0.8 * _WAIT_S < took_s < 30.0
    assert scene.ask_at_once(8) is False, "away: the trial goes on"
    scene.database.answers.set()
    eventually(lambda: scene.ask(9)[0], 5, what="the others are read")


def test_outage_is_answered_with_go_on_and_keeps_the_reports(scene: Scene) -> None:
    scene.database.error = ServiceUnavailable("away")
    assert scene.ask_at_once(7) is False
    scene.database.error = None
    eventually(lambda: scene.ask(8)[0], 5, what="the others are read")
    assert [report.step for report in scene.database.reports] == [7, 8]


def test_questions_during_an_outage_try_the_database_only_now_and_then(scene: Scene) -> None:
    scene.database.error = ServiceUnavailable("away")
    began, step = time.monotonic(), 0
    while time.monotonic() < began + 0.3:
        assert scene.ask(step)[0] is False
        step += 1
        time.sleep(0.002)  # as a trial between two steps
    assert scene.database.tries <= 2 + (time.monotonic() - began) / 0.1 < step


def test_a_study_without_a_pruner_reads_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "prunes", False)
    assert scene.ask(7)[0] is False and scene.database.views == 0


def test_slow_pruner_of_the_study_does_not_block_the_monitor(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(PluggedPruner):
        def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
            assert may_answer.wait(60.0)
            study._storage.set_trial_system_attr(trial._trial_id, "plugin:seen", trial.last_step)
            return True

    def view(trial_id: int) -> PrunerView:
        study = optuna.create_study(pruner=Slow("own.py:Slow", {}))
        return PrunerView(study, [], trial_id)

    may_answer = threading.Event()
    monkeypatch.setattr(scene.database, "pruner_view", view)
    scene.report(1)
    scene.services.ask_should_prune()
    began = time.monotonic()
    while time.monotonic() - began < 0.2:
        asked = time.monotonic()
        assert scene.services.prune_answer() is None
        assert time.monotonic() - asked < 2.0
        time.sleep(0.01)
    may_answer.set()
    assert _answer(scene.services.prune_answer)
    scene.services.flush()
    assert scene.database.rungs == {"plugin:seen": 1}


def test_lease_is_renewed_in_time_with_the_reports_and_again_soon_after_an_outage(scene: Scene) -> None:
    scene.report(1)
    eventually(lambda: scene.services.interruption() or scene.database.renewals, 5, what="a renewal")
    assert scene.database.renewals[0].step == 1 and len(scene.database.reports) == 1
    scene.database.error = ServiceUnavailable("away")
    renewals = len(scene.database.renewals)
    for _ in range(20):
        assert scene.services.interruption() is None
        time.sleep(0.01)
    scene.database.error = None
    eventually(lambda: scene.services.interruption() or len(scene.database.renewals) > renewals, 5, what="a renewal")


def test_first_renewal_has_the_memory_and_does_not_wait_for_a_whole_period(scene: Scene) -> None:
    scene.services._renew_at = time.monotonic() + 3600
    scene.services.attend(Measured())  # type: ignore[arg-type]
    eventually(lambda: scene.services.interruption() or scene.database.renewals, 30, what="a renewal")
    assert scene.database.renewals[0].rss_bytes == 7


def test_curves_go_with_the_next_renewal_and_once(scene: Scene) -> None:
    scene.services.take_history({"accuracy": ((0, 0.5), (1, 0.6))})
    scene.database.error = ServiceUnavailable("away")
    eventually(lambda: scene.services.interruption() or scene.services._renew_at > 0, 5)
    newest = {"accuracy": ((0, 0.5), (2, 0.7))}
    scene.services.take_history(newest)
    scene.database.error = None

    def sent() -> list[object]:
        return [one.metric_history for one in scene.database.renewals if one.metric_history is not None]

    eventually(lambda: scene.services.interruption() or sent(), 5, what="a renewal with the curves")
    count = len(scene.database.renewals)
    eventually(lambda: scene.services.interruption() or len(scene.database.renewals) > count, 5, what="another one")
    assert sent()[-1] == newest and len(sent()) <= 2


def test_curves_are_written_less_often_than_the_lease_is_renewed(scene: Scene) -> None:
    def written() -> list[object]:
        return [one.metric_history for one in scene.database.renewals if one.metric_history is not None]

    def take_and_renew(count: int) -> None:
        wanted = len(scene.database.renewals) + count

        def has_renewed() -> bool:
            scene.services.take_history({"accuracy": ((0, 0.5), (len(scene.database.renewals) + 1, 0.6))})
            scene.services.interruption()
            return len(scene.database.renewals) >= wanted

        eventually(has_renewed, 10, what="renewals")

    take_and_renew(5)
    assert len(written()) == 1
    scene.services._write_curves_at = 0.0
    take_and_renew(3)
    assert len(written()) == 2 and written()[0] != written()[1]


def test_a_trial_without_curves_keeps_none(scene: Scene) -> None:
    scene.services.take_history({})
    assert not scene.services._renew()
    assert [one.metric_history for one in scene.database.renewals] == [None]


def test_a_persons_cancel_and_a_lost_lease_arrive_with_the_renewal(scene: Scene) -> None:
    scene.database.is_cancelled = True
    outcome = eventually(scene.services.interruption, 5, what="the cancellation arrives")
    assert outcome.ending is Ending.CANCELLED
    scene.database.error = LeaseLost("ticket=17 attempt=1")
    with pytest.raises(LeaseLost):
        eventually(lambda: scene.services.interruption() is None, 5)


def test_due_drain_is_obeyed_while_the_database_is_frozen(scene: Scene) -> None:
    scene.database.answers.clear()
    scene.report(1)
    scene.services.ask_should_prune()
    assert scene.services.interruption() is None
    scene.drain.give(allowed_s=0.0)
    outcome = eventually(scene.services.interruption, 10, what="the order is read")
    assert outcome.ending is Ending.RELEASED


def test_flood_of_reports_is_thinned_and_the_newest_kept() -> None:
    buffer = ReportBuffer()
    kept = [buffer.add(Report(step=step, value=0.0)) for step in range(1_000_000)]
    steps = [report.step for report in buffer.waiting()]
    assert len(steps) <= MOST_WAITING and steps == sorted(steps) and steps[-1] == 999_999
    assert all(kept[:MOST_WAITING]) and not all(kept)


def test_attempt_that_has_stored_thousands_of_reports_keeps_only_the_newest() -> None:
    buffer, stored = ReportBuffer(), 0
    for step in range(10 * MOST_WRITTEN):
        buffer.add(Report(step=step, value=0.0))
        if step % 500 == 0:
            waiting = buffer.waiting()
            assert waiting[-1].step == step
            buffer.remove(waiting)
            stored += len(waiting)
    assert stored <= MOST_WRITTEN + 10 * MOST_WRITTEN / 500


def test_reports_that_come_while_others_are_written_stay() -> None:
    buffer = ReportBuffer()
    buffer.add(Report(step=1, value=1.0))
    writing = buffer.waiting()
    buffer.add(Report(step=1, value=2.0))
    buffer.add(Report(step=2, value=2.0))
    buffer.remove(writing)
    assert buffer.waiting() == (Report(step=2, value=2.0),)


@pytest.fixture
def io() -> Iterator[IoThread]:
    thread = IoThread()
    yield thread
    assert thread.stop(60.0)


class Sampler:
    """A definition that is away for some questions."""

    def __init__(self, outages: int) -> None:
        self.outages = outages
        self.set: dict[str, Any] = {}
        self.flushed = 0
        self.set_attr = self.set_constraint = self.set.__setitem__

    def suggest(self, name: str, domain: str) -> float:
        if self.outages:
            self.outages -= 1
            raise ServiceUnavailable("away")
        if name == "broken":
            raise PluginFailed("sampler own:Sampler: no idea")
        if name == "wrong":
            raise ValueError("no such domain")
        return 0.5

    def flush(self) -> None:
        self.flushed += 1


def test_a_suggestion_waits_for_the_database_and_what_optuna_refuses_is_an_answer(io: IoThread) -> None:
    sampler = Sampler(outages=2)
    study = SimpleNamespace(definition=lambda **_: sampler)
    suggestions = Suggestions(io, cast(Any, None), LEASE, cast(Any, study))

    def answer_to(name: str) -> object:
        suggestions.ask({"question": "suggest", "name": name, "domain": "{}"})
        return eventually(suggestions.answer, 20)

    suggestions.take({"kind": "user_attr", "key": "size", "value": 3})
    assert answer_to("x") == {"value": 0.5} and sampler.outages == 0
    assert sampler.set == {"size": 3}
    assert answer_to("wrong") == {"error": "no such domain"}
    suggestions.take({"kind": "constraint", "key": "memory", "value": 1})
    suggestions.flush()
    assert sampler.set["memory"] == 1.0 and sampler.flushed == 1


def test_attempt_is_handed_back_when_the_studys_own_sampler_fails(scene: Scene) -> None:
    scene.database.definition = lambda **_: Sampler(outages=0)
    scene.services.suggestions.ask({"question": "suggest", "name": "broken", "domain": "{}"})
    eventually(lambda: scene.services.suggestions.answer() or scene.services.suggestions.fault, 20)
    outcome = scene.services.interruption()
    assert outcome is not None and outcome.ending is Ending.RELEASED
    assert outcome.message == "handed back: sampler own:Sampler: no idea"


def setting(key: str, value: int = 0) -> dict[str, Any]:
    return {"kind": "user_attr", "key": key, "value": value}


def test_what_a_trial_sets_is_kept_once_for_each_key_and_bounded_while_nothing_is_written(io: IoThread) -> None:
    sampler = Sampler(outages=0)
    study = SimpleNamespace(definition=lambda **_: sampler)
    is_back = threading.Event()
    io.submit(is_back.wait)
    suggestions = Suggestions(io, cast(Any, None), LEASE, cast(Any, study))
    for step in range(5_000):
        assert suggestions.take(setting("step", step))
    kept = [suggestions.take(setting(f"step {step}")) for step in range(5_000)]
    assert kept == [True] * 999 + [False] * 4_001
    assert suggestions.take(setting("step", 5_000)), "one that waits may be replaced"
    is_back.set()
    eventually(lambda: len(sampler.set) == 1_000, what="what was kept is written")
    assert sampler.set["step"] == 5_000 and suggestions.take(setting("step 1000"))


def test_many_attributes_are_written_before_a_renewal_is_due_and_bounded_for_each_attempt(io: IoThread) -> None:
    sampler = Sampler(outages=0)
    study = SimpleNamespace(definition=lambda **_: sampler)
    suggestions = Suggestions(io, cast(Any, None), LEASE, cast(Any, study))
    for step in range(10_000):
        eventually(partial(suggestions.take, setting(f"step {step}")), what="there is room again")
    assert not suggestions.take(setting("one more"))
    eventually(partial(suggestions.take, setting("step 7", 7)), what="a known one may be set again")
    io.submit(suggestions.flush).result(20)
    assert len(sampler.set) == 10_000 and sampler.set["step 7"] == 7


def test_a_trial_that_sets_nothing_costs_no_definition(io: IoThread) -> None:
    study = SimpleNamespace(definition=lambda **_: pytest.fail("a definition was made"))
    Suggestions(io, cast(Any, None), LEASE, cast(Any, study)).flush()


def test_lease_is_renewed_while_attributes_cannot_be_written(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another client holds the row of this one trial."""

    def locked() -> None:
        raise ServiceUnavailable("locked")

    monkeypatch.setattr(scene.services.suggestions, "flush", locked)
    assert not scene.services._renew() and len(scene.database.renewals) == 1


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (ValueError("low is above high"), "low is above high"),
        (OverflowError("too large"), "OverflowError: too large"),
        (AssertionError("no point"), "AssertionError: no point"),
    ],
)
def test_suggestion_that_cannot_be_answered_is_the_trials_own_error(error: Exception, answer: str) -> None:
    def suggest(name: str, domain: str) -> float:
        raise error

    study = SimpleNamespace(definition=lambda **_: SimpleNamespace(suggest=suggest))
    suggestions = Suggestions(cast(Any, None), cast(Any, None), LEASE, cast(Any, study))
    assert suggestions._answered({"question": "suggest", "name": "x", "domain": "{}"}) == {"error": answer}
