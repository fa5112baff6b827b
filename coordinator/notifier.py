"""Sends the notifications of studies, in threads of its own: a receiver that is slow or away delays no tick.

The ledger has what is to be sent. A receiver gets each event once, or twice when the coordinator dies between its
answer and our note of it: `X-HighNoon-Delivery` is the same then. No redirect is followed, since it would lead past the
allow-list. One notification of a study is under way at a time, so that its receiver can keep one thread only.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import suppress
from queue import Full, Queue

from highnoon.coordinator.webhook import post
from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.domain.notification import host_of, is_allowed, signature, url_flaw
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.database import Database
from highnoon.shared.store.notifications import Notification, Outbox
from highnoon.shared.views.formats import dumps

_log = logging.getLogger("highnoon.coordinator.notifier")

_SENDERS = 4
_AGAIN_S = 60.0
"""Longer than one is under way."""
_FIRST_DELAY_S, _LONGEST_DELAY_S = 5.0, 3600.0
_LONGEST_AFTER = 10
"""After so many doublings the delay is the longest."""
_MOST_TRIES, _KEPT_S = 48, 36 * 3600.0
"""It is given up after both: so many tries, and so long after the newest event in it."""


class Notifier:
    """Its threads are made at the first `wake`."""

    def __init__(self, settings: Settings, database_url: str) -> None:
        self._hosts, self._key = settings.notify_hosts, settings.notify_key
        self._url = database_url
        self._due: Queue[None] = Queue(maxsize=1)
        """What wakes one thread."""
        self._is_over = False
        self._database: Database | None = None
        self._threads: list[threading.Thread] = []
        self._claiming = threading.Lock()
        self._busy: set[int] = set()
        """Studies of which one is under way."""

    def wake(self) -> None:
        """Looks for what is due; does not wait."""
        if self._database is None:
            self._database = Database(self._url, at_most=1)
            outbox = Outbox(self._database)
            for number in range(_SENDERS):
                thread = threading.Thread(target=self._run, args=(outbox,), name=f"notifier-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._wake_one()

    def close(self) -> None:
        """Waits a moment for what is under way; the rest is sent by the next coordinator."""
        self._is_over = True
        self._wake_one()
        give_up_at = time.monotonic() + 1.0
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        if self._database is not None:
            self._database.close()

    def _run(self, outbox: Outbox) -> None:
        while not self._is_over:
            self._due.get()
            try:
                while not self._is_over and self._sent_one(outbox):
                    pass
            except HighNoonError as error:
                event(_log, "outage", level=logging.WARNING, during="notify", error=error)
            except Exception:  # a fault of ours must not end the thread; it is due again later
                _log.exception("action=notify_failed")
        self._wake_one()  # so that the next one ends as well

    def _wake_one(self) -> None:
        with suppress(Full):
            self._due.put_nowait(None)

    def _sent_one(self, outbox: Outbox) -> bool:
        """Sends one that is due, and has another thread look for more meanwhile; False where none is."""
        with self._claiming:
            notification = outbox.claim(again_s=_AGAIN_S, but=self._busy)
            if notification is None:
                return False
            self._busy.add(notification.study_id)
        self._wake_one()
        try:
            self._send(notification, outbox)
        finally:
            with self._claiming:
                self._busy.discard(notification.study_id)
        return True

    def _send(self, notification: Notification, outbox: Outbox) -> None:
        trouble = self._trouble_with(notification)
        fields = {"study": notification.body["study"], "about": notification.body["event"]}
        if not trouble:
            outbox.sent(notification)
            event(_log, "notify", **fields, host=host_of(notification.url))
        elif notification.tries >= _MOST_TRIES and outbox.drop(notification, older_than_s=_KEPT_S):
            event(_log, "notify_dropped", level=logging.ERROR, **fields, tries=notification.tries, reason=trouble)
        else:
            doubled = min(notification.tries - 1, _LONGEST_AFTER)
            delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0**doubled)
            outbox.postpone(notification, trouble, delay_s=delay_s * random.uniform(0.8, 1.2))  # noqa: S311
            event(_log, "notify_again", level=logging.WARNING, **fields, tries=notification.tries, reason=trouble)

    def _trouble_with(self, notification: Notification) -> str:
        """Posts it; why it was not received, empty when it was."""
        if flaw := url_flaw(notification.url):
            return f"its address {flaw}"
        if not is_allowed(notification.url, self._hosts) or self._key is None:
            return f"HIGHNOON_NOTIFY_HOSTS of the coordinator does not list {host_of(notification.url)}"
        body, timestamp = dumps(notification.body).encode(), str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "highnoon-hpo",
            "X-HighNoon-Event": notification.body["event"],
            "X-HighNoon-Delivery": f"{notification.id}-{notification.seq}",
            "X-HighNoon-Timestamp": timestamp,
            "X-HighNoon-Signature": signature(self._key, timestamp, body),
        }
        return post(notification.url, body, headers)
