"""Optuna's studies on each kind of storage. Their tables are made once per session; each test finds no study there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest

from highnoon.coordinator.file_keeper import FileKeeper
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.file_store import FileStore, file_store
from highnoon.shared.store.optuna_store import OptunaStore, quiet
from tests.conftest import empty_database
from tests.ledger import Ledger


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    quiet()


@pytest.fixture
def optuna_store(_made_store: OptunaStore) -> Iterator[OptunaStore]:
    """A store without studies: in memory, on SQLite and on PostgreSQL."""
    yield _made_store
    for name in optuna.get_all_study_names(_made_store._storage):
        optuna.delete_study(study_name=name, storage=_made_store._storage)


@pytest.fixture(scope="session", params=["memory", "sqlite", "postgresql"])
def _made_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OptunaStore]:
    exits = ExitStack()
    match request.param:
        case "memory":
            url = None
        case "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('studies')}/studies.db"
        case _:
            url = exits.enter_context(empty_database(request.getfixturevalue("stack")))
    with exits, OptunaStore(url) as store:
        yield store


@pytest.fixture(scope="session")
def _ledger_template(stack: Stack) -> Iterator[str]:
    """A database with all tables and no study: copying it is faster than making them."""
    with empty_database(stack) as url:
        Ledger(url).close()
        yield url.rpartition("/")[2]


@pytest.fixture
def ledger(stack: Stack, _ledger_template: str) -> Iterator[Ledger]:
    """All roles on a database of the test's own."""
    with empty_database(stack, template=_ledger_template) as url:
        ledger = Ledger(url, create=False)
        yield ledger
        ledger.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the store of artifacts and checkpoints."""
    return tmp_path / "files"


@pytest.fixture
def store(folder: Path) -> FileStore:
    return file_store(folder)


@pytest.fixture
def keeper(store: FileStore, ledger: Ledger) -> FileKeeper:
    return FileKeeper(store, ledger.access)
