"""Addresses: the driver is named, the password is hidden, and what is no database is refused with the valid ones."""

from __future__ import annotations

import pytest

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.runtime.urls import masked, normalise
from highnoon.shared.store.connections import is_on_this_machine
from highnoon.shared.store.database import Database


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("postgresql://user:pass@db:5432/optuna", "postgresql+psycopg2://user:pass@db:5432/optuna"),
        ("postgres://user:pass@db/optuna", "postgresql+psycopg2://user:pass@db/optuna"),
        ("PostgreSQL://Db/Optuna", "postgresql+psycopg2://Db/Optuna"),
        ("postgresql:///optuna?host=/tmp/socket", "postgresql+psycopg2:///optuna?host=/tmp/socket"),
        ("mysql://user:pass@host/db", "mysql+pymysql://user:pass@host/db"),
        ("mariadb://user:pass@host/db", "mariadb+pymysql://user:pass@host/db"),
        ("  sqlite:///hpo.db\n", "sqlite:///hpo.db"),
    ],
)
def test_names_the_driver_that_we_install(written: str, expected: str) -> None:
    assert normalise(written) == expected
    assert normalise(expected) == expected, "an address may be normalised twice"


@pytest.mark.parametrize("url", ["sqlite:///hpo.db", "sqlite:////var/hpo.db", "sqlite:///:memory:", "sqlite://"])
def test_leaves_sqlite_untouched(url: str) -> None:
    assert normalise(url) == url


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
        ("postgres+pg8000://host/db", "postgresql+pg8000://host/db"),
        ("mysql+mysqldb://host/db", "mysql+mysqldb://host/db"),
    ],
)
def test_keeps_a_driver_that_a_person_named(written: str, expected: str) -> None:
    assert normalise(written) == expected


@pytest.mark.parametrize("url", ["redis://localhost:6379/0", "nonsense", "", "http://host/db", "oracle://host/db"])
def test_refuses_anything_else_and_names_the_valid_ones(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        normalise(url, key="storage")
    (problem,) = caught.value.problems
    assert problem.key == "storage"
    for valid in ("sqlite:///", "postgresql://", "mysql://"):
        assert valid in problem.hint


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("postgresq://host/db", "Did you mean postgresql://?"),
        ("hpo.db", "Did you mean sqlite:///hpo.db?"),
        ("sqlite://hpo.db", "Did you mean sqlite:///hpo.db?"),
    ],
)
def test_names_the_nearest_right_spelling(written: str, remedy: str) -> None:
    with pytest.raises(InvalidInput, match=remedy.replace("?", r"\?").replace("+", r"\+")):
        normalise(written)


@pytest.mark.parametrize("url", ["postgresql://me:s3cret@db:54x/x", "postgresql+nodriver://me:s3cret@db/x"])
def test_an_address_that_no_driver_can_open_is_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"url: cannot be used .*Leave the driver out") as caught:
        Database(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("password", ["se@kret/x", "se/k@ret#"])
def test_an_unescaped_at_sign_in_a_password_is_refused_without_any_part_of_it(password: str) -> None:
    with pytest.raises(InvalidInput, match="%40") as caught:
        normalise(f"postgresql://u:{password}@h:5432/d")
    assert "kret" not in str(caught.value) and "ret#" not in str(caught.value)
    assert normalise("postgresql://user@corp:se/kret@h/d?options=a@b").endswith("user@corp:se/kret@h/d?options=a@b")


def test_a_refused_address_does_not_show_its_password() -> None:
    with pytest.raises(InvalidInput) as caught:
        normalise("redis://:hunter2@localhost/0")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:hunter2@db:5432/optuna", "postgresql://user:***@db:5432/optuna"),
        ("postgresql://user:hun@ter2@db/optuna", "postgresql://user:***@db/optuna"),
        ("postgresql://user:hun/ter:2@db/optuna", "postgresql://user:***@db/optuna"),
        ("redis://:hunter2@localhost:6379/0", "redis://:***@localhost:6379/0"),
        ("postgresql://db/optuna?user=me&password=hunter2&sslmode=require",) * 2,
        ("postgresql://user@db:5432/optuna",) * 2,
        ("postgresql://db:5432/optuna",) * 2,
        ("sqlite:///hpo.db",) * 2,
        ("not an address",) * 2,
        ("host=db user=u password=hunter2 dbname=x", "***"),
        ("postgres:/u:hunter2@h/x", "***"),
    ],
)
def test_hides_the_password_and_nothing_else(url: str, shown: str) -> None:
    assert masked(url) == shown.replace("password=hunter2", "password=***")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("postgresql://user:pass@127.0.0.1:5432/db", True),
        ("postgresql://localhost/db", True),
        ("postgresql://user@[::1]/db", True),
        ("postgresql:///db", True),
        ("postgresql:///db?host=/var/run/postgresql", True),
        ("sqlite:///hpo.db", True),
        ("mysql://user:pass@localhost/db", True),
        ("postgresql://user:127.0.0.1@db.example.org/db", False),
        ("postgresql:///db?host=db.example.org", False),
        ("postgresql://localhost/db?hostaddr=10.0.0.7", False),
        ("postgresql:///db?host=localhost&host=db.example.org", False),
    ],
)
def test_database_of_this_machine_is_known_by_its_host(
    written: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    assert is_on_this_machine(normalise(written)) is expected


def test_database_without_a_host_is_where_its_driver_connects_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_on_this_machine(normalise("postgresql:///db?service=prod"))
    for name, value in {"PGHOST": "db.example.org", "PGHOSTADDR": "10.0.0.7"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not is_on_this_machine(normalise("postgresql:///db"))
            assert is_on_this_machine(normalise("postgresql://localhost/db"))
    monkeypatch.setenv("PGSERVICE", "prod")
    assert not is_on_this_machine(normalise("postgresql://localhost/db"))
