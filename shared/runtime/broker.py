"""Redis and Celery in one place: the app and its delivery settings, publishing, queue depth, notifications.

Delivery is not guaranteed: early ack, nothing prefetched, no result backend, JSON only. Whatever is
lost here is found again in the ledger (lease, reaper, redispatch). Importing this module imports Celery.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError as KombuOperationalError
from kombu.messaging import Producer
from redis.backoff import NoBackoff
from redis.retry import Retry
from typing_extensions import Self

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.messages import NOTIFICATION_CHANNEL, RUN_TRIAL_TASK, RunTrial, queue_name
from highnoon.shared.runtime.urls import masked

# We send at the default priority only, but a person may not.
_PRIORITY_SUFFIXES = ("", "\x06\x163", "\x06\x166", "\x06\x169")

_ANSWER_S = 1.9
"""A Redis that answers at all does so within milliseconds; on a bad line, after TCP has sent a packet three times."""

_CONSUMER_ANSWER_S = 5.0
"""The same for the Celery parent of a node, which loses its consumer over it and makes a new one."""

_PAUSE_S = 5.0
"""After a call that got no answer, further calls fail at once for this long: a coordinator's tick waits once only."""


def make_app(
    redis_url: str,
    *,
    max_tasks_per_child: int | None = None,
    answer_s: float = _CONSUMER_ANSWER_S,
) -> Celery:
    """The Celery app that coordinator, workers and Flower share. Connects to nothing by itself.

    Each setting that differs from Celery's default is there because of a measured failure: `task_acks_late`
    stays off, since Redis would run a training twice after every broken connection. `ack_emulation` is off: it
    notes in Redis what a worker has taken and not yet begun, by two clients made for each message, which is two fifths
    of the work of a node's Celery parent. The coordinator sends a lost message again anyway.
    """
    app = Celery("highnoon", broker=redis_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=queue_name("cpu"),
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=60.0,
        worker_max_tasks_per_child=max_tasks_per_child,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_send_sent_event=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=answer_s,
        broker_transport_options={"ack_emulation": False, **_socket_options(answer_s)},
        task_publish_retry_policy={"max_retries": 0},
    )
    return app


def _socket_options(answer_s: float) -> dict[str, Any]:
    return {"socket_timeout": answer_s, "socket_connect_timeout": answer_s, "socket_keepalive": True}


class Broker:
    """One process's connections to Redis. Every call raises ServiceUnavailable when Redis is away.

    A Redis that is frozen delays one call by two seconds; the calls of the next five seconds fail at once.
    """

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._app = make_app(redis_url, answer_s=_ANSWER_S)
        self._redis: Any = redis.Redis.from_url(
            redis_url,
            # Once more for a connection that Redis has closed since its last use, never for one that is silent.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
            **_socket_options(_ANSWER_S),
        )
        self._silent_until = 0.0
        self._subscription: Any = None
        self._producer: Producer | None = None

    def publish(self, messages: Iterable[RunTrial], *, resource: str, first: bool = False) -> None:
        """Sends RunTrial messages; on failure some may have been sent, and duplicates are harmless.

        With `first` they go before what waits already, in the same order.
        """
        with self._call():
            try:
                # Kept, since kombu's greeting costs more than ten messages.
                if self._producer is None:
                    self._producer = self._app.connection_for_write().Producer()
                # Each of the urgent ones goes before those that were sent before it.
                for message in reversed(list(messages)) if first else messages:
                    self._app.send_task(
                        RUN_TRIAL_TASK,
                        kwargs=message.to_kwargs(),
                        kwargsrepr=message.shown(),
                        queue=queue_name(resource),
                        producer=self._producer,
                        retry=False,
                    )
                    if first:
                        self._move_to_head(queue_name(resource))
            except Exception:
                # Whatever it was: the next one gets a connection of its own.
                self._close_producer()
                raise

    def _move_to_head(self, queue: str) -> None:
        """The newest message, or whatever is there when a worker has taken that already. Kombu adds on the left."""
        # An account of an older deployment may not do this: then the message waits for its turn.
        with suppress(redis.ResponseError):
            message = self._redis.lpop(queue)
            if message is not None:
                self._redis.rpush(queue, message)

    def depth(self, resource: str) -> int:
        """Messages that wait in Redis for this resource."""
        with self._call():
            pipeline = self._redis.pipeline(transaction=False)
            for name in _lists(resource):
                pipeline.llen(name)
            return sum(int(count) for count in pipeline.execute())

    def ping(self) -> None:
        """Raises ServiceUnavailable unless Redis answers."""
        with self._call():
            self._redis.ping()

    def notify(self) -> None:
        """Notifies the coordinator that the ledger has changed. Best effort: a lost notification costs one tick."""
        with suppress(ServiceUnavailable), self._call():
            self._redis.publish(NOTIFICATION_CHANNEL, b"1")

    def wait_for_notification(self, timeout_s: float) -> bool:
        """Waits for a notification or the timeout, whichever comes first; without Redis it only waits."""
        deadline = time.monotonic() + timeout_s
        try:
            with self._call():
                return self._notified_before(deadline)
        except ServiceUnavailable:
            self._subscription = None
            time.sleep(max(0.0, deadline - time.monotonic()))
            return False

    def close(self) -> None:
        """Gives the connections back."""
        if self._subscription is not None:
            self._subscription.close()
        self._close_producer()
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Translates errors, and remembers that Redis was silent."""
        if time.monotonic() < self._silent_until:
            raise ServiceUnavailable(f"Redis {masked(self._url)}: gave no answer within {_ANSWER_S:g} s")
        began = time.monotonic()
        try:
            yield
        except (KombuOperationalError, redis.RedisError, OSError) as error:
            if time.monotonic() - began > 0.9 * _ANSWER_S:
                self._silent_until = time.monotonic() + _PAUSE_S
            raise ServiceUnavailable(f"Redis {masked(self._url)}: {error}") from error

    def _notified_before(self, deadline: float) -> bool:
        if self._subscription is None:
            self._subscription = self._redis.pubsub(ignore_subscribe_messages=True)
            self._subscription.subscribe(NOTIFICATION_CHANNEL)
        notified = False
        while not notified and (left := deadline - time.monotonic()) > 0:
            notified = self._subscription.get_message(timeout=left) is not None
        while self._subscription.get_message(timeout=0.0) is not None:
            pass
        return notified

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.connection.release()


def _lists(resource: str) -> list[str]:
    """The keys of a queue: kombu keeps one list per priority step."""
    return [queue_name(resource) + suffix for suffix in _PRIORITY_SUFFIXES]
