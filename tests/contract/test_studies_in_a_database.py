"""Studies in a database: what Optuna reads of them, what they cost, concurrency and outages."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psycopg2
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import ClauseElement, create_engine, event

from highnoon.shared.domain.errors import (
    InvalidInput,
    InvariantBroken,
    SchemaMismatch,
    ServiceUnavailable,
    UserInputError,
)
from highnoon.shared.domain.sampler_spec import SamplerSpec
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.domain.trial import Outcome, Report
from highnoon.shared.runtime.urls import normalise
from highnoon.shared.store import history
from highnoon.shared.store import optuna_statements as statements
from highnoon.shared.store import optuna_tables as tables
from highnoon.shared.store.optuna_store import OptunaStore
from tests.conftest import driverless
from tests.contract.digits import POINT, before, completed, spec_of

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def messy_study(url: str) -> None:
    """One trial of every kind that a study can hold, from us and from Optuna."""
    with OptunaStore(url) as store:
        store.create_study("another", "maximize")
        store.open(spec_of(name="another", direction="maximize")).start_trial(ordinal=0)
        store.create_study("digits", "minimize")
        study = store.open(spec_of(sampler=SamplerSpec(name="cmaes")))
        for ordinal, ending in enumerate(Ending):
            asked = study.start_trial(ordinal=ordinal)
            values = (0.5, math.nan, math.inf, -math.inf)
            study.report_many(
                asked.trial_id, [Report(step=10 - step, value=value) for step, value in enumerate(values)]
            )
            study.finish_trial(
                asked.trial_id, Outcome(ending=ending, value=0.1 if ending is Ending.COMPLETED else None)
            )
        study.finish_trial(study.start_trial(ordinal=20).trial_id, completed(math.inf))
        study.start_trial(ordinal=0, before=before(POINT, 2))
        plain = study.optuna_study
        plain.ask().suggest_float("momentum", 0, 1)
        plain.enqueue_trial(POINT, user_attrs={"nested": {"list": [1, None, "x"]}})
        plain.tell(plain.ask(), -1.0)
        plain.enqueue_trial({"width": 64})


def test_optuna_in_another_process_reads_what_we_wrote(url: str) -> None:
    with OptunaStore(url) as store:
        store.create_study("digits", "minimize")
        study = store.open(spec_of(sampler=SamplerSpec(name="tpe"), seed=1))
        for ordinal in range(14):
            asked = study.start_trial(ordinal=ordinal)
            study.report_many(asked.trial_id, [Report(step=0, value=0.5)])
            study.finish_trial(asked.trial_id, completed(float(ordinal)))
        study.start_trial(ordinal=14)
        ours = [[t.number, str(t.state), t.params, t.value, dict(t.attrs)] for t in study.trials()]

    script = (
        "import json, sys, optuna; study = optuna.load_study(study_name='digits', storage=sys.argv[1]);"
        "print(json.dumps([[t.number, t.state.name, t.params, t.value, t.user_attrs] for t in study.trials]));"
        "trial = study.ask(); trial.suggest_float('dropout', 0.0, 0.5); study.tell(trial, 1.0)"
    )
    run = subprocess.run([sys.executable, "-c", script, normalise(url)], capture_output=True, text=True, check=True)

    assert json.loads(run.stdout) == json.loads(json.dumps(ours))
    with OptunaStore(url, create_schema=False) as store:
        assert store.open(spec_of()).trial(15).state is TrialState.COMPLETE, "and an ordinary script may join"


def test_our_reading_gives_what_optunas_gives(url: str) -> None:
    messy_study(url)
    theirs = optuna.load_study(study_name="digits", storage=RDBStorage(normalise(url)))
    with OptunaStore(url, create_schema=False) as store:
        ours = store.open(spec_of()).optuna_study
        for states in (None, (optuna.trial.TrialState.RUNNING,), (optuna.trial.TrialState.COMPLETE,)):
            expected = theirs.get_trials(states=states)
            assert expected
            assert [fields(trial) for trial in ours.get_trials(states=states)] == [fields(trial) for trial in expected]


def fields(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Everything about a trial, in a form in which NaN equals NaN and parameters are in order."""
    reports = {step: str(value) for step, value in trial.intermediate_values.items()}
    return {**vars(trial), "intermediate_values": reports, "order": list(trial.params)}


def test_a_history_longer_than_one_statement_is_read_whole(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highnoon.shared.store.history._AT_ONCE", 7)
    with OptunaStore(url) as store:
        store.create_study("digits", "minimize")
        study = store.open(spec_of())
        asked = [study.start_trial(ordinal=ordinal) for ordinal in range(22)]
        assert [trial.params for trial in study.trials()] == [trial.params for trial in asked]


@pytest.mark.filterwarnings("error")
def test_statements_compile_for_mysql() -> None:
    engine = create_engine("mysql+pymysql://host/db")
    ours = [
        *(value for name, value in vars(statements).items() if name.isupper() and isinstance(value, ClauseElement)),
        statements.insert_new(engine, tables.reports),
        statements.upsert_attrs(engine, tables.user_attrs),
        history._TRIALS,
        history._DETAILS,
    ]
    statements_text = "\n".join(str(statement.compile(engine)) for statement in ours)
    assert len(ours) > 20
    for words in ("FOR UPDATE", "INSERT IGNORE", "ON DUPLICATE KEY UPDATE", "UNION ALL"):
        assert words in statements_text


@contextmanager
def counted(store: OptunaStore) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    assert store._database is not None
    event.listen(store._database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(store._database.engine, "before_cursor_execute", note)


@pytest.mark.parametrize(
    ("sampler", "asking"), [(SamplerSpec(name="random"), 6), (SamplerSpec(name="tpe"), 8)], ids=["random", "tpe"]
)
def test_a_trial_costs_few_statements(url: str, sampler: SamplerSpec, asking: int) -> None:
    with OptunaStore(url) as store:
        store.create_study("digits", "minimize")
        study = store.open(spec_of(sampler=sampler))
        for ordinal in range(12):
            study.finish_trial(study.start_trial(ordinal=ordinal).trial_id, completed(float(ordinal)))

        def cost(act: Callable[[], Any], at_most: int) -> Any:
            with counted(store) as statements:
                result = act()
            assert len(statements) <= at_most, "\n".join(statements)
            return result

        asked = cost(lambda: study.start_trial(ordinal=12), asking)
        cost(lambda: study.report_many(asked.trial_id, [Report(step=s, value=1.0) for s in range(20)]), 2)
        cost(lambda: study.should_prune(asked.trial_id), 2)
        cost(lambda: study.finish_trial(asked.trial_id, completed()), 3)


def test_many_may_start_on_an_empty_database_at_once(url: str) -> None:
    def start(_: int) -> bool:
        with OptunaStore(url) as store:
            store.create_study("digits", "minimize")
            return store.exists("digits")

    with ThreadPoolExecutor(4) as starters:
        assert list(starters.map(start, range(4))) == [True] * 4
    with OptunaStore(url, create_schema=False) as store:
        assert store.open(spec_of()).trials() == []


def test_a_database_without_tables_is_named_as_such(url: str) -> None:
    with pytest.raises(SchemaMismatch, match="start a coordinator"):
        OptunaStore(url, create_schema=False)


def test_tables_of_another_version_are_named_as_such(url: str) -> None:
    with OptunaStore(url) as store:
        assert store._database is not None
        with store._database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v9.9.9'")
    with pytest.raises(SchemaMismatch, match="optuna"):
        OptunaStore(url)


@pytest.mark.parametrize("create_schema", [True, False])
def test_an_unreachable_database_is_unavailable_and_keeps_its_password(create_schema: bool) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        OptunaStore("postgresql://me:hunter2@127.0.0.1:9/db", create_schema=create_schema)
    assert "127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "address", ["postgresql+nosuchdriver://host/db", "mysql+mysqldb://host/db", "postgresql://host:port/db"]
)
def test_an_address_that_no_driver_takes_is_a_mistake(address: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be used"):
        OptunaStore(address)


def test_a_connection_cut_while_it_was_idle_is_not_noticed(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highnoon.shared.store.connections._IDLE_S", 0.0)
    with OptunaStore(postgres_url) as store:
        store.create_study("digits", "minimize")
        study = store.open(spec_of())
        asked = study.start_trial(ordinal=0)
        cut_connections(postgres_url)
        assert study.finish_trial(asked.trial_id, completed()) is True


def test_a_connection_cut_within_a_call_is_unavailable_and_the_call_may_be_repeated(postgres_url: str) -> None:
    with OptunaStore(postgres_url) as store:
        store.create_study("digits", "minimize")
        study = store.open(spec_of())
        asked = study.start_trial(ordinal=0)
        assert store._database is not None
        event.listen(
            store._database.engine, "before_cursor_execute", lambda *_: cut_connections(postgres_url), once=True
        )
        with pytest.raises(ServiceUnavailable):
            study.finish_trial(asked.trial_id, completed())
        assert study.finish_trial(asked.trial_id, completed()) is True


def test_a_lock_that_is_not_granted_is_unavailable(postgres_url: str) -> None:
    with OptunaStore(f"{postgres_url}?options=-c%20lock_timeout%3D50ms") as store:
        store.create_study("digits", "minimize")
        study = store.open(spec_of())
        with psycopg2.connect(driverless(postgres_url)) as frozen, frozen.cursor() as cursor:
            cursor.execute("SELECT * FROM studies FOR UPDATE")
            with pytest.raises(ServiceUnavailable, match="lock timeout"):
                study.start_trial(ordinal=0)
        assert study.start_trial(ordinal=0).number == 0


def test_a_forked_copy_is_refused(url: str) -> None:
    store = OptunaStore(url)
    store.create_study("digits", "minimize")
    study = store.open(spec_of())
    context = multiprocessing.get_context("fork")
    messages = context.SimpleQueue()

    def ask() -> None:
        try:
            study.start_trial(ordinal=0)
        except UserInputError as error:
            messages.put(str(error))
        os._exit(0)

    child = context.Process(target=ask)
    child.start()
    child.join()
    assert "open it again in each process" in messages.get()
    assert study.start_trial(ordinal=0).number == 0, "and the parent's connection lives"
    store.close()


def cut_connections(url: str) -> None:
    with psycopg2.connect(driverless(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_an_enqueued_trial_is_started_once(url: str) -> None:
    with OptunaStore(url) as store:
        store.create_study("digits", "minimize")
        plain = store.open(spec_of()).optuna_study
        for width in (32, 64, 96, 128, 160, 192):
            plain.enqueue_trial({**POINT, "width": width})

    def ask_twice(ticket: int) -> list[Any]:
        with OptunaStore(url, create_schema=False) as mine:
            study = mine.open(spec_of())
            return [study.start_trial(ordinal=ticket) for _ in range(2)]

    with ThreadPoolExecutor(4) as askers:
        asked = [trial for pair in askers.map(ask_twice, range(4)) for trial in pair]
    assert sorted(trial.number for trial in asked) == list(range(8))
    assert sorted(trial.params["width"] for trial in asked if trial.number < 6) == [32, 64, 96, 128, 160, 192]


def test_of_many_that_finish_a_trial_one_succeeds(url: str) -> None:
    with OptunaStore(url) as store:
        store.create_study("digits", "minimize")
        asked = store.open(spec_of()).start_trial(ordinal=0)

    def tell(value: float) -> bool | None:
        with OptunaStore(url, create_schema=False) as mine:
            try:
                return mine.open(spec_of()).finish_trial(asked.trial_id, completed(value))
            except InvariantBroken:
                return None

    with ThreadPoolExecutor(4) as tellers:
        heard = list(tellers.map(tell, [0.0, 1.0, 2.0, 3.0]))
    assert sorted(heard, key=str) == [None, None, None, True]
    with OptunaStore(url, create_schema=False) as store:
        assert store.open(spec_of()).trial(0).value == heard.index(True)


def test_optuna_reads_a_constraint_and_keeps_its_best_trial_feasible(url: str) -> None:
    with OptunaStore(url) as store:
        store.create_study("digits", "minimize")
        study = store.open(spec_of())
        stopped = Outcome(ending=Ending.STOPPED, cause="param_budget", constraint=0.5, params_count=1500)
        for outcome, report in ((stopped, 0.001), (completed(0.25), 0.3)):
            asked = study.start_trial(ordinal=0)
            study.report_many(asked.trial_id, [Report(step=0, value=report)])
            study.finish_trial(asked.trial_id, outcome)
    theirs = optuna.load_study(study_name="digits", storage=normalise(url))
    assert [trial.constraints for trial in theirs.trials] == [{"param_budget": 0.5}, {}]
    assert [trial.value for trial in theirs.trials] == [0.001, 0.25]
    assert theirs.best_trial.number == 1
