"""A MariaDB for tests that want MySQL's dialect: the machine's own server on loopback, with its own data folder."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pymysql

from highnoon.coordinator.local.owned_process import credentials, ordinary_account
from highnoon.shared.runtime.processes import die_with_parent
from tests.ports import free_port
from tests.support import eventually

SERVER = "mariadbd"
_TOOLS = (SERVER, "mariadb-install-db")
_PASSWORD = "guide"


def is_installed() -> bool:
    """True where the server and the tool that makes its data folder are on PATH (Debian: mariadb-server)."""
    return all(shutil.which(tool) for tool in _TOOLS)


@contextmanager
def running_mariadb() -> Iterator[str]:
    """The address of an empty database, `mysql://...`, of a server that ends with this block, or with this process."""
    folder = Path(tempfile.mkdtemp(prefix="highnoon-mariadb-"))
    account = ordinary_account()
    identity = credentials(account)
    if account is not None:
        shutil.chown(folder, account.uid, account.gid)
    options = [f"--datadir={folder}/data", "--skip-log-bin"]
    try:
        install = ["mariadb-install-db", "--no-defaults", *options, "--auth-root-authentication-method=normal"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, cwd=folder, **identity)
        port = free_port()
        listening = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [SERVER, "--no-defaults", *options, *listening, f"--pid-file={folder}/pid"],
                stdout=log,
                stderr=log,
                cwd=folder,
                preexec_fn=lambda: die_with_parent(signal.SIGKILL),
                **identity,
            )
        try:
            eventually((folder / "socket").exists, 60, what=f"{SERVER} listens")
            _make_database(folder / "socket")
            yield f"mysql://guide:{_PASSWORD}@127.0.0.1:{port}/hpo"
        finally:
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_database(path: Path) -> None:
    with closing(pymysql.connect(user="root", unix_socket=str(path))) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE hpo")
        for host in ("127.0.0.1", "localhost"):
            cursor.execute(f"CREATE USER guide@'{host}' IDENTIFIED BY '{_PASSWORD}'")
            cursor.execute(f"GRANT ALL ON hpo.* TO guide@'{host}'")
