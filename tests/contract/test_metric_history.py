"""Curves of logged metrics where they are kept: with attempts in the ledger, with Optuna's trials in process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import highnoon as hn
from highnoon.cluster import Cluster
from highnoon.handle import StudyHandle
from highnoon.shared.domain.errors import EveryTrialFailed, UserInputError
from highnoon.shared.domain.lease import Disposition, Progress
from highnoon.shared.domain.metric_history import METRIC_HISTORY, MOST_TEXT, Curves, curves_in
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import MetricHistory, Outcome
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.access import Access
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import submit
from tests.ledger import DONE, KILLED, Ledger, add_closed_tickets, rows_read
from tests.made_up import spec_of
from tests.objectives import logs_and_dies
from tests.web import Visitor, dashboard
from tests.wire import counted

HISTORY: MetricHistory = {"accuracy": ((0, 0.5), (1, "nan"), (2, 0.75)), "<b>lr": ((0, 0.1), (2, "-inf"))}
CURVES = {"accuracy": [(0, 0.5), (1, math.nan), (2, 0.75)], "<b>lr": [(0, 0.1), (2, -math.inf)]}
LOGGED = replace(DONE, metric_history=HISTORY)
SPACE: dict[str, Any] = {"x": ("uniform", 0.0, 1.0)}


@pytest.fixture
def handle(ledger: Ledger) -> Iterator[StudyHandle]:
    """Of a study of three tickets."""
    submit(spec_of("digits", n_trials=3), ledger.access)
    settings = load_settings({}).model_copy(update={"database_url": ledger.access.url})
    handle = StudyHandle("digits", Cluster(settings=settings))
    yield handle
    handle.access.close()


def of_attempts(ledger: Ledger) -> list[MetricHistory | None]:
    with ledger.database.transaction() as connection:
        statement = text("select metric_history from hn_attempts order by ticket_id, attempt")
        return list(connection.scalars(statement))


def curves_of_trial(ledger: Ledger, study: StudyRecord, number: int) -> Curves:
    trial = ledger.access.store.view(study.name).trials()[number]
    return ledger.access.metric_history(study.name, trial, study)


def as_json(history: MetricHistory) -> Any:
    return json.loads(json.dumps(history))


def test_an_attempt_keeps_its_curves_and_optuna_gets_none(ledger: Ledger) -> None:
    first, second, *_ = ledger.tickets(ledger.study(3))
    ledger.run(first, LOGGED)
    ledger.run(second)
    assert of_attempts(ledger) == [as_json(HISTORY), None]
    with ledger.database.transaction() as connection:
        outcomes = list(connection.scalars(text("select outcome from hn_tickets where state = 'closed'")))
    assert [("metric_history" in outcome, outcome["value"]) for outcome in outcomes] == [(False, 0.25)] * 2
    assert not any(METRIC_HISTORY in trial.system_attrs for trial in ledger.optuna().get_trials())


def test_a_renewal_brings_them_and_what_ends_without_any_leaves_them(ledger: Ledger) -> None:
    study = ledger.study(3)
    leases = [ledger.start(ticket) for ticket in ledger.tickets(study)]
    for lease in leases:
        ledger.attempts.renew(lease, Progress(step=1, metric_history={"accuracy": ((0, 0.5), (1, 0.6))}))
        ledger.attempts.renew(lease, Progress(step=2, metric_history=HISTORY))
        ledger.attempts.renew(lease, Progress(step=3))
    assert curves_of_trial(ledger, study, leases[0].trial_number)["accuracy"][-1] == (2, 0.75)
    # When one is reaped, one ends by a supervisor that knows none, and one with newer ones
    assert ledger.attempts.reap(leases[0].ticket_id, 1, message="died", only_expired=False)
    ledger.finish(leases[1], KILLED, Disposition.RETRY)
    newer = {"accuracy": ((0, 0.5), (3, 0.9))}
    ledger.finish(leases[2], replace(DONE, metric_history=newer))
    assert of_attempts(ledger) == [as_json(HISTORY), as_json(HISTORY), as_json(newer)]


def test_each_attempt_has_its_own(ledger: Ledger, handle: StudyHandle) -> None:
    ticket, *_ = ledger.tickets(ledger.studies.get("digits"))
    ledger.finish(ledger.start(ticket), replace(KILLED, metric_history=HISTORY), Disposition.RETRY)
    ledger.skip_delay(ticket)
    ledger.run(ticket, replace(DONE, metric_history={"accuracy": ((2, 0.7), (3, 0.8))}))
    assert str(handle.metric_history(0)) == str(CURVES), "NaN is unequal to itself"
    assert handle.metric_history(1) == {"accuracy": [(2, 0.7), (3, 0.8)]}


def test_a_trial_without_curves_has_none_and_what_is_no_trial_is_refused(ledger: Ledger, handle: StudyHandle) -> None:
    ledger.run(ledger.tickets(ledger.studies.get("digits"))[0])
    assert handle.metric_history(0) == {}
    with pytest.raises(UserInputError, match="has no trial 7"):
        handle.metric_history(7)


def test_a_trial_of_a_manager_in_a_clusters_study_has_them_too(ledger: Ledger, handle: StudyHandle) -> None:
    spec = StudySpec.from_json(ledger.studies.get("digits").spec)
    study = ledger.access.store.open(spec)
    started = study.start_trial(ordinal=0)
    study.finish_trial(started.trial_id, Outcome(ending=Ending.COMPLETED, value=1.0, metric_history=HISTORY))
    assert str(handle.metric_history(started.number)) == str(CURVES)


def test_no_list_reads_them(ledger: Ledger) -> None:
    study = ledger.study(2)
    for ticket in ledger.tickets(study):
        ledger.run(ticket, LOGGED)
    with counted(ledger.database.url) as wire:
        access = Access(wire.url)
        assert len(access.studies.attempts(study.id)) == 2
        trials = access.store.view("digits").trials()
        assert len(trials) == 2
        attempts, details = [one for one in wire.statements if "hn_attempts" in one or "system_attributes" in one]
        assert "hn_attempts.memory" in attempts and "metric_history" not in attempts
        assert "key != 'highnoon:metric_history'" in details
        wire.clear()
        assert access.has_metric_history("digits", trials[1], study)
        assert len(wire.statements) == 1 and "metric_history IS NOT NULL" in wire.statements[0]
        wire.clear()
        assert access.metric_history("digits", trials[1], study)
        assert len(wire.statements) == 1, wire.statements
        access.close()


def test_curves_of_one_trial_are_found_among_many_attempts_by_an_index(ledger: Ledger) -> None:
    study = ledger.study(1)
    ledger.run(*ledger.tickets(study), LOGGED)
    (trial,) = ledger.access.store.view("digits").trials()
    add_closed_tickets(ledger.database, study.id, 5_000)
    with ledger.database.transaction() as connection:
        connection.execute(_ATTEMPTS)
        connection.exec_driver_sql("ANALYZE hn_attempts")
    with rows_read(ledger.database, "hn_tickets", "hn_attempts") as read:
        assert ledger.access.metric_history("digits", trial, study).keys() == HISTORY.keys()
        assert ledger.access.has_metric_history("digits", trial, study)
    assert len(read) == 2 and max(read) <= 4


_ATTEMPTS = text(
    "insert into hn_attempts (ticket_id, attempt, worker_id, host, pid, trial_number, started_at)"
    " select id, attempt, 'w', 'h', 1, ordinal, 0 from hn_tickets where ordinal >= 10000"
)


@pytest.mark.parametrize("stored", ["5", '{"accuracy": 3, "loss": [["first", 1.0]]}', "[[0, 0.5]]", "null"])
def test_curves_that_an_edited_backup_has_damaged_break_no_page(
    ledger: Ledger, handle: StudyHandle, tmp_path: Path, stored: str
) -> None:
    ledger.run(ledger.tickets(ledger.studies.get("digits"))[0], LOGGED)
    with ledger.database.transaction() as connection:
        connection.execute(text("update hn_attempts set metric_history = cast(:stored as json)"), {"stored": stored})
    assert handle.metric_history(0) == {}
    with dashboard(ledger.access.url, tmp_path) as address, Visitor(address) as visitor:
        assert visitor.get("/hpo/studies/digits/trials/0").status_code == 200
        assert visitor.api("GET", "/studies/digits/trials/0").json()["metric_history"] == {}
        assert visitor.api("GET", "/studies/digits/trials/0/figures/metrics").json()["data"] == []


def test_a_renewal_with_curves_is_one_round_trip(ledger: Ledger) -> None:
    lease = ledger.start(*ledger.tickets(ledger.study()))
    with counted(ledger.database.url) as wire:
        access = Access(wire.url)
        attempts = type(ledger.attempts)(access.database)
        attempts.renew(lease, Progress())
        wire.clear()
        attempts.renew(lease, Progress(metric_history=HISTORY))
        attempts.finish(lease, LOGGED, disposition=Disposition.CLOSE, token="t")
        assert len(wire.statements) == 2, wire.statements
        access.close()


def test_the_dashboard_draws_them(ledger: Ledger, handle: StudyHandle, tmp_path: Path) -> None:
    first, second, third = ledger.tickets(ledger.studies.get("digits"))
    ledger.run(first, LOGGED)
    ledger.run(second)
    ledger.start(third)
    with dashboard(ledger.access.url, tmp_path) as address, Visitor(address) as visitor:
        pages = [visitor.get(f"/hpo/studies/digits/trials/{number}").text for number in range(3)]
        place = 'data-figure="/api/hpo/studies/digits/trials/{}/figures/metrics"'
        assert [place.format(number) in page for number, page in enumerate(pages)] == [True, False, True]
        assert ["plotly" in page for page in pages] == [True, False, True]
        found = [visitor.api("GET", f"/studies/digits/trials/{number}").json() for number in range(2)]
        assert [one["metric_history"].get("accuracy") for one in found] == [
            [{"step": 0, "value": 0.5}, {"step": 1, "value": "nan"}, {"step": 2, "value": 0.75}],
            None,
        ]
        figure = visitor.api("GET", "/studies/digits/trials/0/figures/metrics").json()
        assert [(trace["name"], trace["x"], trace["y"]) for trace in figure["data"]] == [
            ("accuracy", [0, 1, 2], [0.5, None, 0.75]),
            ("&lt;b&gt;lr", [0, 2], [0.1, None]),
        ]
        assert (figure["layout"]["grid"]["columns"], figure["note"]) == (2, "2 values that are not finite: a gap.")
        running = visitor.api("GET", "/studies/digits/trials/2/figures/metrics").json()
        assert running["data"] == [] and "hn.log" in running["note"]
        assert visitor.api("GET", "/studies/digits/trials/9/figures/metrics").status_code == 404


# --- In process


def logging(params: dict[str, Any]) -> float:
    for step in range(3):
        hn.log(step, accuracy=0.5 + step / 4, **{"loss of it": math.inf})
    return float(params["x"])


def test_in_process_they_are_kept_with_the_trial_and_no_history_has_them(optuna_store: OptunaStore) -> None:
    manager = hn.HPOTrialManager("logged", n_trials=2, storage=optuna_store.url, sampler="random")
    manager.optimize(logging, SPACE)
    expected = {"accuracy": [(0, 0.5), (1, 0.75), (2, 1.0)], "loss of it": [(step, math.inf) for step in range(3)]}
    assert manager.metric_history(1) == expected
    with pytest.raises(UserInputError, match="has no trial 2"):
        manager.metric_history(2)
    if optuna_store.url is None:
        return
    # Then another process finds them, and none of its readings has them, but for an ordinary program's
    with OptunaStore(optuna_store.url) as other:
        assert other.metric_history("logged", 0) == expected
        theirs = other.view("logged")._study.get_trials(deepcopy=False)
        assert not any(METRIC_HISTORY in trial.system_attrs for trial in theirs)
        plain = other.view("logged")._study._storage._backend.get_trial(theirs[0]._trial_id)  # type: ignore[attr-defined]
        assert curves_in(plain.system_attrs[METRIC_HISTORY]) == expected


def test_the_dashboard_draws_them_of_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hpo.db"
    hn.HPOTrialManager("shown", n_trials=1, storage=url, sampler="random", isolation="fork").optimize(logging, SPACE)
    with dashboard(url, tmp_path) as address, Visitor(address) as visitor:
        assert "trials/0/figures/metrics" in visitor.get("/hpo/studies/shown/trials/0").text
        found = visitor.api("GET", "/studies/shown/trials/0").json()["metric_history"]["accuracy"]
        assert found == [{"step": step, "value": 0.5 + step / 4} for step in range(3)]


def test_a_trial_process_that_is_killed_leaves_its_curves() -> None:
    manager = hn.HPOTrialManager("killed", n_trials=1, isolation="fork")
    with pytest.raises(EveryTrialFailed):
        manager.optimize(logs_and_dies, SPACE)
    assert len(manager.metric_history(0)["accuracy"]) > 10


def test_many_metrics_fit_into_the_attribute(optuna_store: OptunaStore) -> None:
    def objective(params: dict[str, Any]) -> float:
        for step in range(10_000):
            hn.log(step, **{f"metric {number}": 1.0 / (step + number + 1) for number in range(30)})
        return 1.0

    manager = hn.HPOTrialManager("many", n_trials=1, storage=optuna_store.url)
    manager.optimize(objective, SPACE)
    curves = manager.metric_history(0)
    assert len(curves) == 30 and all(points[-1][0] == 9999 for points in curves.values())
    assert sum(map(len, curves.values())) * 20 < MOST_TEXT
