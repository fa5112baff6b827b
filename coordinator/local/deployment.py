"""`coordinator init-deploy`: the secrets of a deployment, made once, each in a file for its owner alone.

Owns their names, how they are made, and what each account of Redis may do. `deploy/compose.yaml` and the Kubernetes
files hand them to the services.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.messages import NOTIFICATION_CHANNEL, RESOURCES, queue_name
from highnoon.shared.runtime.whole_file import whole_file

ACCOUNT_ID = 10001
"""The user of our images. Only root can give files to it; for other users the services run as that user."""

PASSWORDS = (
    "postgres_admin",
    "postgres_coordinator",
    "postgres_worker",
    "redis_coordinator",
    "redis_worker",
    "redis_flower",
    "webui_token",
    "flower_password",
    "metrics_token",
    "cluster_key",
    "grafana_admin",
)
REDIS_ACL = "redis_users.acl"
REDIS_ACCOUNTS = {"coordinator": "redis_coordinator", "worker": "redis_worker", "flower": "redis_flower"}


# What each account of Redis may do: our keys, our channels, the commands that Celery and we really use. Found by
# running every role against a server that logs refusals (`ACL LOG`); the tests run them again.
_CONNECTION = "+auth +hello +ping +select"
_QUEUES = " ".join(f"~{queue_name(resource)}*" for resource in RESOURCES)
# Kombu's own keys: which queue is bound to which exchange, and what was delivered but not acknowledged yet.
_KOMBU = "~_kombu.binding* ~unacked ~unacked_index ~unacked_mutex"
_EVENTS = "&/0.celeryev/* &/0.celery.pidbox"
# Answers to inspections, which every node and every inspector has a list of its own for.
_REPLIES = "~*.reply.celery.pidbox* ~*.celery.pidbox* ~celeryev.*"

# Kombu's way of taking messages and of giving back what was not acknowledged.
_CONSUMER = (
    "+multi +exec +llen +lpush +rpush +brpop +sadd +srem +smembers +scard +zadd +zrem +zrange +zrangebyscore"
    " +zrevrangebyscore +hset +hdel +hget +set +get +del +time +eval +evalsha +script|load +script|exists"
    " +publish +subscribe +unsubscribe +psubscribe +punsubscribe"
)

_RULES = {
    "coordinator": f"{_QUEUES} {_KOMBU} &{NOTIFICATION_CHANNEL}"
    " +multi +exec +llen +hlen +lpush +lpop +rpush +del +sadd +smembers +scard +publish +subscribe +unsubscribe",
    "worker": f"{_QUEUES} {_KOMBU} {_REPLIES} &{NOTIFICATION_CHANNEL} {_EVENTS} {_CONSUMER}",
    # It looks at the queues' lengths. Redis 6 cannot give a key for reading only; a message that it took would be
    # missed and sent again.
    "flower": f"{_QUEUES} {_KOMBU} {_REPLIES} {_EVENTS} {_CONSUMER}",
}


def prepare(folder: Path) -> list[str]:
    """Makes what is missing and returns a line for each. Raises InvalidInput for another folder.

    Secrets that exist stay; `.env` gets the user where it lacks it.
    """
    if not (folder / "compose.yaml").is_file():
        hint = "It is the folder deploy/ of HighNoon, or a copy of it."
        raise InvalidInput.of("command line", "DIR", "has no compose.yaml", value=str(folder), hint=hint)
    place = folder / "secrets"
    made: list[str] = []
    if not place.is_dir():
        place.mkdir(mode=0o700)
        _give_away(place)
    for name in PASSWORDS:
        # No newline: the Prometheus operator copies a Secret into a header as it is.
        if _write(place / name, secrets.token_urlsafe(32)):
            made.append(f"made {place / name}")
    made += _prepare_acl(place)
    made += _prepare_environment(folder / ".env", place.stat())
    return [*made, f"{place}: complete"]


def _prepare_acl(place: Path) -> list[str]:
    """Hashes only, so that Redis itself holds no password of a client."""
    passwords = {account: (place / file).read_text().strip() for account, file in REDIS_ACCOUNTS.items()}
    path, text = place / REDIS_ACL, acl_file(passwords)
    if _write(path, text):
        return [f"made {path}"]
    if path.read_text() != text:
        hint = "Remove it and run init-deploy again, then restart redis."
        raise InvalidInput.of("secrets", str(path), "does not fit the passwords beside it", hint=hint)
    return []


def _prepare_environment(path: Path, owner: os.stat_result) -> list[str]:
    """Makes the file, or appends what Compose requires of it.

    The owner of the secrets is the user as whom every container runs: Compose mounts files as they are. A file that is
    there gets no name of the project: with another one Compose would not find its volumes.
    """
    required = {"HIGHNOON_UID": owner.st_uid, "HIGHNOON_GID": owner.st_gid}
    comment = "# Made by init-deploy; yours to edit. docs/compose.md lists what else may stand here."
    if _write(path, f"{comment}\nCOMPOSE_PROJECT_NAME=highnoon\n{_assignments(required)}", mode=0o644):
        return [f"made {path}"]
    text = path.read_text(encoding="utf-8", errors="replace")
    missing = {
        name: value
        for name, value in required.items()
        if not re.search(rf"^\s*(export\s+)?{name}[ \t]*[=:][ \t]*\S", text, re.MULTILINE)
    }
    if not missing:
        return []
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if text.endswith("\n") or not text else "\n") + _assignments(missing))
    return [f"added {', '.join(missing)} to {path}"]


def _assignments(variables: Mapping[str, int]) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def _write(path: Path, text: str, *, mode: int = 0o600) -> bool:
    """True when it was made now. Whole or not at all: a file that is there is taken for complete."""
    if path.exists():
        return False
    with whole_file(path, mode=mode) as file:
        file.write(text.encode())
        _give_away(file.fileno())
    return True


def _give_away(path: Path | int) -> None:
    if os.geteuid() == 0:
        os.chown(path, ACCOUNT_ID, ACCOUNT_ID)


def acl_file(passwords: Mapping[str, str]) -> str:
    """The `aclfile` of Redis 6 and later: one user per role, no default user, passwords as SHA-256."""
    users = [
        f"user {name} on sanitize-payload #{hashlib.sha256(passwords[name].encode()).hexdigest()}"
        f" resetkeys resetchannels {_RULES[name]} {_CONNECTION}"
        for name in _RULES
    ]
    # The default user is off. Its rights are those with which Redis itself reads its own file at a start.
    return "\n".join(["user default off resetpass ~* &* +@all", *users]) + "\n"
