"""Messages that no program of ours writes, as anybody with access to Redis could push them on a queue."""

from __future__ import annotations

import json
import uuid
from base64 import b64encode
from typing import Any


def envelope(kwargs: Any, **headers: Any) -> dict[str, Any]:
    """A message as Celery 5 and kombu write it."""
    task_id = str(uuid.uuid4())
    body = [[], kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    return {
        "body": b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "highnoon.run_trial", "id": task_id, "retries": 0, **headers},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "highnoon.cpu"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def _with_body(body: bytes) -> bytes:
    return json.dumps(envelope({}) | {"body": b64encode(body).decode()}).encode()


def _without(*names: str) -> bytes:
    message = envelope({"study": "digits", "ticket": 1, "version": 1})
    return json.dumps({name: value for name, value in message.items() if name not in names}).encode()


RUBBISH: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"hello",
    "binary": bytes(range(256)),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtin\x94.",
    "number": b"42",
    "null": b"null",
    "list": b"[1, 2, 3]",
    "JSON without an envelope": b'{"study": "digits", "ticket": 1}',
    "no headers": _without("headers"),
    "no body": _without("body"),
    "body that is no list": _with_body(b"17"),
    "body with two parts": _with_body(b"[[], {}]"),
    "body that is not JSON": _with_body(b"\xff\xfe"),
    "body that is not base64": json.dumps(envelope({}) | {"body": "%%%"}).encode(),
    "arguments that are no object": _with_body(b'[[], "x", {}]'),
    "no ticket": json.dumps(envelope({"study": "digits", "version": 1})).encode(),
    "ticket that is no number": json.dumps(envelope({"study": "digits", "ticket": "1", "version": 1})).encode(),
    "ticket beyond all integers": json.dumps(envelope({"study": "d", "ticket": 10**40, "version": 1})).encode(),
    "another task": json.dumps(envelope({"study": "d", "ticket": 1, "version": 1}, task="os.system")).encode(),
    "task that is no text": json.dumps(envelope({"study": "d", "ticket": 1, "version": 1}, task=[1])).encode(),
    "id that is no text": json.dumps(envelope({"study": "d", "ticket": 1, "version": 1}, id={"a": 1})).encode(),
    "deeply nested": b"[" * 10_000,
    "huge": b"x" * 5_000_000,
}
