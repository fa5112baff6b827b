"""What each account of Redis may do: our keys, our channels, the commands that Celery and we really use.

An allow-list of commands, found by running every role against a server that logs refusals (`ACL LOG`); the tests run
them again. Owns the rules only: passwords come from `deployment`, names of queues from `shared.domain.messages`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from highnoon.shared.domain.messages import NOTIFICATION_CHANNEL, RESOURCES, queue_name

_CONNECTION = "+auth +hello +ping +select"
_QUEUES = " ".join(f"~{queue_name(resource)}*" for resource in RESOURCES)
# Kombu's books: which queue hears which exchange, and what was delivered but not yet acknowledged.
_KOMBU = "~_kombu.binding* ~unacked ~unacked_index ~unacked_mutex"
_EVENTS = "&/0.celeryev/* &/0.celery.pidbox"
# Answers to inspections, which every node and every inspector has a list of its own for.
_REPLIES = "~*.reply.celery.pidbox* ~*.celery.pidbox* ~celeryev.*"

# Kombu's way of taking messages and of giving back what nobody acknowledged.
_CONSUMER = (
    "+multi +exec +llen +lpush +rpush +brpop +sadd +srem +smembers +scard +zadd +zrem +zrange +zrangebyscore"
    " +zrevrangebyscore +hset +hdel +hget +set +get +del +time +eval +evalsha +script|load +script|exists"
    " +publish +subscribe +unsubscribe +psubscribe +punsubscribe"
)

_RULES = {
    "coordinator": f"{_QUEUES} {_KOMBU} &{NOTIFICATION_CHANNEL}"
    " +multi +exec +llen +hlen +lpush +del +sadd +smembers +scard +publish +subscribe +unsubscribe",
    "worker": f"{_QUEUES} {_KOMBU} {_REPLIES} &{NOTIFICATION_CHANNEL} {_EVENTS} {_CONSUMER}",
    # It looks at the queues' lengths. Redis 6 cannot give a key for reading only; a message that it took would be
    # missed and sent again.
    "flower": f"{_QUEUES} {_KOMBU} {_REPLIES} {_EVENTS} {_CONSUMER}",
}


def acl_file(passwords: Mapping[str, str]) -> str:
    """The `aclfile` of Redis 6 and later: one user per role, no default user, passwords as SHA-256."""
    users = [
        f"user {name} on sanitize-payload #{hashlib.sha256(passwords[name].encode()).hexdigest()}"
        f" resetkeys resetchannels {_RULES[name]} {_CONNECTION}"
        for name in _RULES
    ]
    # Nobody can be the default user. Its rights are those under which Redis itself reads its own file at a start.
    return "\n".join(["user default off resetpass ~* &* +@all", *users]) + "\n"
