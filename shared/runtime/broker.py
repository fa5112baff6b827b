"""Redis and Celery, spelled in one place: the app and its delivery settings, publishing, queue depth, notifications.

Delivery is a doorbell, not a promise: early ack, nothing prefetched, no result backend, JSON only. Whatever is
lost here is found again in the ledger (lease, reaper, redispatch). Importing this module imports Celery.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError as KombuOperationalError
from kombu.messaging import Producer
from typing_extensions import Self

from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.domain.messages import NOTIFICATION_CHANNEL, RUN_TRIAL_TASK, RunTrial, queue_name
from highnoon.shared.runtime.urls import masked

# kombu keeps one list per priority step; we send at the default priority only, but a person may not.
_PRIORITY_SUFFIXES = ("", "\x06\x163", "\x06\x166", "\x06\x169")
_UNACKED = "unacked"

_SOCKET_OPTIONS: dict[str, Any] = {
    "socket_timeout": 30.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
}


def make_app(redis_url: str, *, max_tasks_per_child: int | None = None) -> Celery:
    """The Celery app that coordinator, workers and Flower share. Connects to nothing by itself.

    Each setting that differs from Celery's default is there because of a measured failure: `task_acks_late`
    stays off, since Redis would run a training twice after every broken connection.
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
        broker_transport_options={"visibility_timeout": 600, **_SOCKET_OPTIONS},
        task_publish_retry_policy={"max_retries": 0},
    )
    return app


class Broker:
    """One process's way to Redis. Every call raises ServiceUnavailable when Redis is away."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._app = make_app(redis_url)
        self._redis: Any = redis.Redis.from_url(redis_url, **_SOCKET_OPTIONS)
        self._subscription: Any = None
        self._producer: Producer | None = None

    def publish(self, messages: Iterable[RunTrial], *, resource: str) -> None:
        """Sends RunTrial messages; on failure some may have been sent, and duplicates are harmless."""
        try:
            # Kept, since kombu's greeting costs more than ten messages.
            if self._producer is None:
                self._producer = self._app.connection_for_write().Producer()
            for message in messages:
                self._app.send_task(
                    RUN_TRIAL_TASK,
                    kwargs=message.to_kwargs(),
                    kwargsrepr=message.shown(),
                    queue=queue_name(resource),
                    producer=self._producer,
                    retry=False,
                )
        except Exception as error:
            # Whatever it was: the next one gets a connection of its own.
            self._close_producer()
            if isinstance(error, KombuOperationalError | redis.RedisError | OSError):
                raise self._unavailable(error) from error
            raise

    def depth(self, resource: str) -> int:
        """Messages that wait in Redis for this resource, or were taken by a worker and not yet begun."""
        name = queue_name(resource)
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for suffix in _PRIORITY_SUFFIXES:
                pipeline.llen(name + suffix)
            pipeline.hlen(_UNACKED)
            return sum(int(count) for count in pipeline.execute())
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def purge(self, resource: str) -> None:
        """Drops all waiting messages of a resource; the ledger sends again what is still wanted."""
        try:
            self._redis.delete(*[queue_name(resource) + suffix for suffix in _PRIORITY_SUFFIXES])
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def notify(self) -> None:
        """Notifies the coordinator that the ledger has changed. Best effort: a lost notification costs one tick."""
        try:
            self._redis.publish(NOTIFICATION_CHANNEL, b"1")
        except (redis.RedisError, OSError):
            return

    def wait_for_notification(self, timeout_s: float) -> bool:
        """Waits for a notification or the timeout, whichever comes first; without Redis it only waits."""
        deadline = time.monotonic() + timeout_s
        try:
            if self._subscription is None:
                self._subscription = self._redis.pubsub(ignore_subscribe_messages=True)
                self._subscription.subscribe(NOTIFICATION_CHANNEL)
            notified = False
            while not notified and (left := deadline - time.monotonic()) > 0:
                notified = self._subscription.get_message(timeout=left) is not None
            while self._subscription.get_message(timeout=0.0) is not None:
                pass
            return notified
        except (redis.RedisError, OSError):
            self._subscription = None
            time.sleep(max(0.0, deadline - time.monotonic()))
            return False

    def ping(self) -> None:
        """Raises ServiceUnavailable unless Redis answers."""
        try:
            self._redis.ping()
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Gives the connections back."""
        if self._subscription is not None:
            self._subscription.close()
        self._close_producer()
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.connection.release()

    def _unavailable(self, error: BaseException) -> ServiceUnavailable:
        return ServiceUnavailable(f"Redis {masked(self._url)}: {error}")
