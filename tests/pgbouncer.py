"""A PgBouncer for tests that want one: the machine's own program on loopback, in transaction mode."""

from __future__ import annotations

import configparser
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url

from highnoon.coordinator.local.owned_process import credentials, ordinary_account
from highnoon.shared.runtime.processes import die_with_parent
from tests.ports import free_port, takes_calls
from tests.support import eventually

PROGRAM = "pgbouncer"

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "postgres" / "pgbouncer.ini"


def is_installed() -> bool:
    """True where the program is on PATH (Debian: pgbouncer)."""
    return shutil.which(PROGRAM) is not None


@contextmanager
def pooled(url: str, **changes: str) -> Iterator[str]:
    """The address of the same database behind a PgBouncer that ends with this block, or with this process.

    It is configured as in deploy/postgres/pgbouncer.ini, but for its addresses and these `changes`.
    """
    server, account = make_url(url), ordinary_account()
    folder, port = Path(tempfile.mkdtemp(prefix="highnoon-pgbouncer-")), free_port()
    (folder / "users.txt").write_text(f'"{server.username}" "{server.password}"\n')
    configuration = folder / "pgbouncer.ini"
    with configuration.open("w") as file:
        _configuration(folder, server, **{"listen_port": str(port), **changes}).write(file)
    if account is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, account.uid, account.gid)
    try:
        with (folder / "log").open("wb") as log:
            pooler = subprocess.Popen(
                [PROGRAM, str(configuration)],
                stdout=log,
                stderr=log,
                cwd=folder,
                preexec_fn=lambda: die_with_parent(signal.SIGKILL),
                **credentials(account),
            )
        try:
            eventually(lambda: takes_calls(port), 30, what=f"{PROGRAM} listens")
            yield server.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        finally:
            pooler.kill()
            pooler.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _configuration(folder: Path, server: URL, **changes: str) -> configparser.RawConfigParser:
    configuration = configparser.RawConfigParser()
    configuration.read(CONFIGURATION)
    configuration["databases"] = {"*": f"host={server.host} port={server.port}"}
    own = {"listen_addr": "127.0.0.1", "auth_file": f"{folder}/users.txt"}
    configuration["pgbouncer"].update({**own, **changes})
    return configuration
