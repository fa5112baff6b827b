"""Whom PostgreSQL runs as. It refuses to run as root: for root it runs under an ordinary account that exists already.

Judges where that account may go, and changes nothing: no account is made, and no permission of a folder that is not
ours. For other users there is nothing to do.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from highnoon.shared.domain.errors import EmbeddedServiceError

_CANDIDATES = ("nobody", "postgres", "daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An ordinary user of this machine."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    def reaches(self, folder: Path) -> bool:
        """True when the account may enter the folder and all above it."""
        return all(self._has(path, stat.S_IXOTH) for path in (folder, *folder.parents))

    def may_use(self, folder: Path) -> bool:
        """True when the account reaches the folder, and may read and run what is in it as its owner may."""
        return self.reaches(folder) and all(
            self._has(path, stat.S_IROTH | (path.stat().st_mode & stat.S_IXUSR and stat.S_IXOTH))
            for path in folder.rglob("*")
            if not path.is_symlink()
        )

    def _has(self, path: Path, bits: int) -> bool:
        """True for rights that the kernel grants by the mode; `bits` are those of others."""
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
        return found.st_mode & (bits << shift) == bits << shift


class Credentials(TypedDict, total=False):
    """The arguments of `subprocess` that change to another account."""

    user: int
    group: int
    extra_groups: list[int]


def credentials(account: Account | None) -> Credentials:
    """How to run a command as `account`; empty where no change is needed."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def ordinary_account(*owned: Path) -> Account | None:
    """None unless we are root; then the owner of the first of these paths that exists and is not root's.

    Without one, the first ordinary account of a short list. Raises EmbeddedServiceError when there is none.
    """
    if os.geteuid() != 0:
        return None
    for path in owned:
        if path.exists() and (found := path.stat()).st_uid != 0:
            return Account(uid=found.st_uid, gid=found.st_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise EmbeddedServiceError(
        f"PostgreSQL does not run as root, and this machine has none of the accounts {', '.join(_CANDIDATES)}. "
        "Run as an ordinary user, give the data folder to one, or set HIGHNOON_DATABASE_URL."
    )


def give(path: Path, account: Account) -> None:
    """Makes `path`, which is ours, the account's own, closed to all others."""
    os.chown(path, account.uid, account.gid)
    path.chmod(0o700 if path.is_dir() else 0o600)
