"""Whom PostgreSQL runs as. It refuses to run as root, so that for root there is an ordinary account to drop to.

Owns the account and its way to our files, and changes as little as that needs: ancestors of a folder are opened for
passage (o+x), never for listing. For anybody but root there is nothing to do.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.logs import event

NAME = "highnoon"
_FALLBACK = "nobody"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An ordinary user of this machine."""

    uid: int
    gid: int


class Credentials(TypedDict, total=False):
    """The arguments of `subprocess` that drop to another account."""

    user: int
    group: int
    extra_groups: list[int]


def credentials(account: Account | None) -> Credentials:
    """How to run a command as `account`; empty when we are to stay who we are."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def ordinary_account() -> Account | None:
    """None when we are one ourselves; for root the account `highnoon`, made if it is missing, or else `nobody`."""
    if os.geteuid() != 0:
        return None
    entry = _find(NAME) or _make(NAME) or _find(_FALLBACK)
    if entry is None:
        raise EmbeddedServiceError(
            f"PostgreSQL does not run as root, and no ordinary account was found or could be made. "
            f"Run as an ordinary user, make the account {NAME!r}, or set HIGHNOON_DATABASE_URL."
        )
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def open_passage(folder: Path) -> None:
    """Lets other accounts pass through the folders above `folder`. Raises EmbeddedServiceError when it may not."""
    for above in reversed(folder.parents):
        if _allow(above, stat.S_IXOTH):
            event(logger, "open_passage", folder=above, reason="PostgreSQL runs as an ordinary account")


def open_for_reading(folder: Path) -> None:
    """Lets other accounts read and run what is in `folder`, as an installation under a strict umask does not."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            _allow(path, stat.S_IROTH | stat.S_IXOTH if runs else stat.S_IROTH)


def give(path: Path, account: Account) -> None:
    """Makes `path` the account's own, closed for everybody else."""
    os.chown(path, account.uid, account.gid)
    path.chmod(0o700 if path.is_dir() else 0o600)


def _allow(path: Path, bits: int) -> bool:
    """True when the mode had to be changed."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits == bits:
        return False
    try:
        path.chmod(mode | bits)
    except OSError as error:
        raise EmbeddedServiceError(
            f"PostgreSQL runs as an ordinary account, and {path} is closed to it ({error.strerror}). "
            f"Move the project or HIGHNOON_HOME, run as an ordinary user, or set HIGHNOON_DATABASE_URL."
        ) from error
    return True


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _make(name: str) -> pwd.struct_passwd | None:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        event(logger, "no_account", level=logging.DEBUG, name=name, reason=error)
    return _find(name)
