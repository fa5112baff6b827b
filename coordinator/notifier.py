"""Sends the notifications of studies, in a thread of its own: a receiver that is slow or away delays no tick.

The ledger has what is to be sent. A receiver gets each event once, or twice when the coordinator dies between its
answer and our note of it: `X-HighNoon-Delivery` is the same then. No redirect is followed, since it would lead past the
allow-list.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from highnoon.shared.domain.errors import HighNoonError
from highnoon.shared.domain.notification import host_of, is_allowed, signature, url_flaw
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.database import Database
from highnoon.shared.store.notifications import Notification, Outbox
from highnoon.shared.views.formats import dumps

_log = logging.getLogger("highnoon.coordinator.notifier")

_TIMEOUT_S = 10.0
_AGAIN_S = 60.0
"""Longer than one is under way."""
_FIRST_DELAY_S, _LONGEST_DELAY_S = 5.0, 3600.0
_MOST_TRIES = 48
"""A day and a half."""


class Notifier:
    """One thread, made at the first `wake`."""

    def __init__(self, settings: Settings, database_url: str) -> None:
        self._hosts, self._key = settings.notify_hosts, settings.notify_key
        self._url = database_url
        self._is_due = threading.Event()
        self._is_over = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Looks for what is due; does not wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
            self._thread.start()
        self._is_due.set()

    def close(self) -> None:
        """Waits a moment for what is under way; the rest is sent by the next coordinator."""
        self._is_over = True
        self._is_due.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        database = Database(self._url)
        outbox = Outbox(database)
        while self._is_due.wait() and not self._is_over:
            self._is_due.clear()
            try:
                while not self._is_over and (notification := outbox.claim(again_s=_AGAIN_S)) is not None:
                    self._send(notification, outbox)
            except HighNoonError as error:
                event(_log, "outage", level=logging.WARNING, during="notify", error=error)
            except Exception:  # a fault of ours must not end the thread; it is due again later
                _log.exception("action=notify_failed")
        database.close()

    def _send(self, notification: Notification, outbox: Outbox) -> None:
        trouble = self._trouble_with(notification)
        fields = {"study": notification.body["study"], "about": notification.body["event"]}
        if not trouble:
            outbox.sent(notification)
            event(_log, "notify", **fields, host=host_of(notification.url))
        elif notification.tries >= _MOST_TRIES:
            outbox.drop(notification)
            event(_log, "notify_dropped", level=logging.ERROR, **fields, tries=notification.tries, reason=trouble)
        else:
            delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** (notification.tries - 1))
            outbox.postpone(notification, trouble, delay_s=delay_s * random.uniform(0.8, 1.2))  # noqa: S311
            event(_log, "notify_again", level=logging.WARNING, **fields, tries=notification.tries, reason=trouble)

    def _trouble_with(self, notification: Notification) -> str:
        """Posts it; why it was not received, empty when it was."""
        if not is_allowed(notification.url, self._hosts) or self._key is None:
            return f"HIGHNOON_NOTIFY_HOSTS of the coordinator does not list {host_of(notification.url) or 'its host'}"
        if flaw := url_flaw(notification.url):
            return f"its address {flaw}"
        body, timestamp = dumps(notification.body).encode(), str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "highnoon-hpo",
            "X-HighNoon-Event": notification.body["event"],
            "X-HighNoon-Delivery": f"{notification.id}-{notification.seq}",
            "X-HighNoon-Timestamp": timestamp,
            "X-HighNoon-Signature": signature(self._key, timestamp, body),
        }
        request = urllib.request.Request(notification.url, data=body, headers=headers, method="POST")  # noqa: S310
        try:
            with _opener.open(request, timeout=_TIMEOUT_S) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            return f"the receiver answered {error.code}"
        except (OSError, ValueError) as error:
            return f"the receiver is not reached ({error})"
        except Exception as error:  # http.client has errors of its own
            return f"the receiver gave no answer ({type(error).__name__})"
        return ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)
