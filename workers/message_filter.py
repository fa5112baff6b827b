"""Rejects what is no RunTrial message before Celery gets it: text that is not JSON, another task, a hostile header.

A message that kombu or Celery cannot read would end the Celery parent, or go back to the queue and end the next one.
The filter sits where redis-py parses the answer to BRPOP, by which a worker takes a message: a rejected message has
left Redis and is never returned to it. What passes is made again from the task's id and the three values of RunTrial.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kombu.transport import redis

from highnoon.shared.domain.messages import RUN_TRIAL_TASK, RunTrial
from highnoon.shared.runtime.logs import event

_log = logging.getLogger("highnoon.workers.message_filter")

_MOST_BYTES = 16_384
"""Ours have about 1,200."""

_LONGEST_ID = 100
_LOG_EVERY_S = 1.0
_COUNT = "rejected-messages"


def install_message_filter(folder: Path) -> None:
    """Filters what this process takes from any queue; counts in this folder of the node. Call it in the Celery parent.

    kombu has no setting for a channel's class, and a transport of our own would put its name into every address that
    Celery logs.
    """
    accept = MessageFilter(folder).accept

    class Channel(redis.Channel):
        def _create_client(self, asynchronous: bool = False) -> Any:
            client = super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
            client.set_response_callback("BRPOP", accept)
            return client

    redis.Transport.Channel = Channel


def rejected_messages(folder: Path) -> int:
    """How many messages the node has rejected since its boot."""
    with suppress(OSError, ValueError):
        return int((folder / _COUNT).read_text())
    return 0


class MessageFilter:
    """Passes a well-formed message on, drops any other one, and logs it: one line per second at most."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = folder / _COUNT
        self._clock = clock
        self._rejected = rejected_messages(folder)
        self._log_at = 0.0

    def accept(self, answer: Any, **_options: Any) -> tuple[bytes, bytes] | None:
        """The answer to BRPOP, its message made again; None as if no message had come."""
        if not answer:
            return None
        key, raw = answer
        try:
            return key, _rebuilt(raw, key)
        except Exception as error:  # whatever can be written into a list of Redis
            self._reject(raw, error)
            return None

    def _reject(self, raw: bytes, error: Exception) -> None:
        self._rejected += 1
        # In a full disk's place the log has the number.
        with suppress(OSError):
            self._file.write_text(str(self._rejected))
        if self._clock() >= self._log_at:
            self._log_at = self._clock() + _LOG_EVERY_S
            event(
                _log,
                "message_rejected",
                level=logging.WARNING,
                rejected=self._rejected,
                bytes=len(raw),
                reason=f"{type(error).__name__}: {error}"[:200],
            )


def _rebuilt(raw: bytes, key: bytes) -> bytes:
    """The message as `shared/runtime/broker` makes it. Raises whatever a malformed one leads to."""
    if len(raw) > _MOST_BYTES:
        raise ValueError("too long")
    message = json.loads(raw)
    task_id, body = message["headers"]["id"], json.loads(b64decode(message["body"], validate=True))
    if message["headers"]["task"] != RUN_TRIAL_TASK:
        raise ValueError("another task")
    if not isinstance(task_id, str) or not 0 < len(task_id) <= _LONGEST_ID or not task_id.isprintable():
        raise ValueError("no task id")
    _, kwargs, _ = body
    return json.dumps(_envelope(task_id, RunTrial.from_kwargs(kwargs), key.decode())).encode()


def _envelope(task_id: str, trial: RunTrial, queue: str) -> dict[str, Any]:
    """Celery's second protocol, with nothing in it that changes how a task is run."""
    body = [[], trial.to_kwargs(), {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    return {
        "body": b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": RUN_TRIAL_TASK,
            "id": task_id,
            "root_id": task_id,
            "parent_id": None,
            "group": None,
            "argsrepr": "()",
            "kwargsrepr": trial.shown(),
            "retries": 0,
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "ignore_result": True,
        },
        "properties": {
            "correlation_id": task_id,
            # Its own: of two messages with one tag, kombu would lose count.
            "delivery_tag": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
        },
    }
