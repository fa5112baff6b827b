"""Notifications: written with their event, posted once to allowed hosts, signed, and tried again."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from highnoon.coordinator.notifier import Notifier
from highnoon.coordinator.service import Service
from highnoon.coordinator.webhook import post
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.lease import Disposition
from highnoon.shared.domain.notification import is_allowed
from highnoon.shared.domain.states import Ending, StudyState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.broker import Broker
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.notifications import Outbox
from highnoon.shared.store.schema import tickets
from highnoon.shared.store.study_records import StudyRecord
from tests.guide.blocks import run
from tests.ledger import FAILED, Ledger, add_closed_tickets
from tests.support import eventually

KEY = "a-key-of-these-tests-alone"
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


class Receiver:
    """An HTTP server that answers with `codes`, and with 200 afterwards."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.received: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.codes.pop(0) if receiver.codes else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def notifier(ledger: Ledger, receiver: Receiver) -> Iterator[Notifier]:
    notifier = Notifier(load_settings({}, notify_hosts=(receiver.host,), notify_key=KEY), ledger.database.url)
    yield notifier
    notifier.close()


def notified(ledger: Ledger, url: str, n_trials: int = 3, **spec: Any) -> StudyRecord:
    return ledger.study(n_trials, notify={"url": url, "on": ["finished", "failed", "best"]}, **spec)


def completed(value: float) -> Outcome:
    return Outcome(ending=Ending.COMPLETED, value=value)


def waiting(ledger: Ledger) -> dict[str, int]:
    with ledger.database.transaction() as connection:
        return dict(connection.exec_driver_sql("SELECT event, count FROM hn_notifications").all())  # type: ignore[arg-type]


def make_due(ledger: Ledger) -> None:
    with ledger.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE hn_notifications SET next_at = 0")


def test_events_are_written_with_what_they_are_about_and_posted_once(
    ledger: Ledger, receiver: Receiver, notifier: Notifier
) -> None:
    study = notified(ledger, f"http://{receiver.host}/hook", 6)
    one, two, three, four, five, six = ledger.tickets(study)
    ledger.run(one, completed(2.0))
    assert waiting(ledger) == {"best": 1}
    ledger.run(two, completed(3.0))  # no better one
    ledger.run(three, completed(1.0))
    ledger.finish(ledger.start(four), Outcome(ending=Ending.FAILED, message="boom"), Disposition.RETRY)  # not for good
    ledger.skip_delay(four)
    assert waiting(ledger) == {"best": 2}
    ledger.run(four, Outcome(ending=Ending.FAILED, message="boom"))
    ledger.run(five, Outcome(ending=Ending.PRUNED, value=9.0))
    assert waiting(ledger) == {"best": 2, "failed": 1}
    ledger.run(six, completed(1.0))  # as good as the best
    assert ledger.control.finish(study.id, before=StudyState.RUNNING, state=StudyState.FINISHED, reason="n_trials")

    notifier.wake()
    eventually(lambda: len(receiver.received) == 3 and not waiting(ledger), what="all are received")

    by_event = {body["event"]: body for body in receiver.bodies}
    assert by_event["best"]["trial"]["value"] == 1.0 and by_event["best"]["count"] == 2
    assert by_event["failed"]["trial"]["message"] == "boom" and by_event["failed"]["trial"]["ending"] == "failed"
    finished = by_event["finished"]
    assert (finished["state"], finished["stop_reason"], finished["best"]["value"]) == ("finished", "n_trials", 1.0)
    assert finished["trials"] == {"completed": 4, "failed": 1, "pruned": 1} and finished["trial"] is None
    code = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[-1]
    is_genuine = run(code)["is_genuine"]
    assert all(is_genuine(KEY, headers, body) for headers, body in receiver.received)
    assert not is_genuine(KEY, receiver.received[0][0], receiver.received[0][1] + b" ")


def test_a_coordinator_that_leads_sends_them(ledger: Ledger, receiver: Receiver, redis_url: str) -> None:
    study = notified(ledger, f"http://{receiver.host}/hook", 1)
    ledger.run(ledger.tickets(study)[0], completed(1.0))
    given = {"database_url": ledger.database.url, "redis_url": redis_url}
    settings = load_settings({}, notify_hosts=(receiver.host,), notify_key=KEY, **given)
    with Broker(redis_url) as broker:
        service = Service(settings, database=ledger.database, broker=broker)
        assert service.tick()  # it closes the study
        eventually(lambda: service.tick() and len(receiver.received) == 2, what="both are received")
        service.close()
    assert {body["event"] for body in receiver.bodies} == {"best", "finished"}


def test_what_is_not_received_is_tried_again(ledger: Ledger, receiver: Receiver, notifier: Notifier) -> None:
    study = notified(ledger, f"http://{receiver.host}/hook")
    one, two, _ = ledger.tickets(study)
    receiver.codes = [500, 302]
    outbox = Outbox(ledger.database)
    ledger.run(one, completed(2.0))
    for answers, code in enumerate((500, 302), 1):
        notifier.wake()
        eventually(lambda: outbox.trouble("digits") == [f"best: the receiver answered {code}"], what="postponed")  # noqa: B023
        assert len(receiver.received) == answers, "no redirect is followed"
        if answers == 1:
            make_due(ledger)
    ledger.run(two, completed(1.0))
    make_due(ledger)
    notifier.wake()
    eventually(lambda: not waiting(ledger), what="it is received")
    assert receiver.bodies[-1]["best"]["value"] == 1.0 and receiver.bodies[-1]["count"] == 2
    assert {headers["x-highnoon-event"] for headers, _ in receiver.received} == {"best"}


def test_new_event_is_not_given_up_together_with_old_ones(
    ledger: Ledger, receiver: Receiver, notifier: Notifier
) -> None:
    # Given events that could not be sent for weeks, and one of now among them
    study = notified(ledger, f"http://{receiver.host}/hook")
    ledger.run(ledger.tickets(study)[0], completed(2.0))
    outbox = Outbox(ledger.database)
    receiver.codes = [500, 501]

    def wake_after(change: str) -> None:
        with ledger.database.transaction() as connection:
            connection.exec_driver_sql(f"UPDATE hn_notifications SET next_at = 0, {change}")
        notifier.wake()

    wake_after("tries = 1500")
    eventually(lambda: outbox.trouble("digits") == ["best: the receiver answered 500"], what="postponed")
    # A day and a half later it is given up
    wake_after("at = at - 129700")
    eventually(lambda: not waiting(ledger), what="given up")
    assert len(receiver.received) == 2


class Dripping:
    """A receiver that sends its answer byte by byte, for ever."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.is_asked = threading.Event()
        self.is_over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.getsockname()[1]}"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            self.is_asked.set()
            while not self.is_over.wait(0.02):
                connection.sendall(b"x")


@pytest.fixture
def dripping() -> Iterator[Dripping]:
    receiver = Dripping()
    yield receiver
    receiver.is_over.set()
    receiver.server.close()


def test_receiver_that_never_ends_its_answer_delays_no_other_study(
    ledger: Ledger, receiver: Receiver, dripping: Dripping
) -> None:
    hosts = (receiver.host, dripping.host)
    slow = notified(ledger, f"http://{dripping.host}/hook", name="slow")
    other = notified(ledger, f"http://{receiver.host}/hook", name="other")
    notifier = Notifier(load_settings({}, notify_hosts=hosts, notify_key=KEY), ledger.database.url)
    ledger.run(ledger.tickets(slow)[0], completed(1.0))
    notifier.wake()
    assert dripping.is_asked.wait(30.0)

    ledger.run(ledger.tickets(other)[0], completed(1.0))
    notifier.wake()
    eventually(lambda: receiver.bodies, what="the other study's is received")
    assert Outbox(ledger.database).trouble("slow") == [], "while the first is under way"
    notifier.close()


def test_answer_that_does_not_end_is_given_up_at_the_deadline(dripping: Dripping) -> None:
    assert post(f"http://{dripping.host}/", b"{}", {}, deadline_s=0.5) == "the receiver did not answer within 0.5 s"


def test_deadline_that_passes_before_the_connection_is_made_ends_it_all_the_same(dripping: Dripping) -> None:
    """A host with several addresses, or a handshake by single bytes, takes long to connect to."""
    assert post(f"http://{dripping.host}/", b"{}", {}, deadline_s=0.0) == "the receiver did not answer within 0 s"


def test_one_notification_of_a_study_is_under_way_at_a_time(ledger: Ledger) -> None:
    study = notified(ledger, "https://hooks.example.com", name="one")
    first, second, _ = ledger.tickets(study)
    ledger.run(first, completed(1.0))
    ledger.run(second, FAILED)
    outbox = Outbox(ledger.database)
    claimed = outbox.claim(again_s=60.0)
    assert claimed is not None and claimed.study_id == study.id
    assert outbox.claim(again_s=60.0, but={study.id}) is None
    assert outbox.claim(again_s=60.0) is not None


def test_more_that_happens_while_one_is_sent_is_sent_too(ledger: Ledger) -> None:
    study = notified(ledger, "https://hooks.example.com")
    one, two, _ = ledger.tickets(study)
    outbox = Outbox(ledger.database)
    ledger.run(one, completed(2.0))
    first = outbox.claim(again_s=60.0)
    assert first is not None and outbox.claim(again_s=60.0) is None, "another sender does not get it"
    ledger.run(two, completed(1.0))
    outbox.sent(first)
    second = outbox.claim(again_s=60.0)
    assert second is not None and (second.body["trial"]["value"], second.body["count"]) == (1.0, 1)
    outbox.sent(second)
    assert waiting(ledger) == {}


def test_event_that_commits_while_one_is_confirmed_is_sent_at_once_and_counted_once(ledger: Ledger) -> None:
    study = notified(ledger, "https://hooks.example.com")
    one, two, _ = ledger.tickets(study)
    outbox = Outbox(ledger.database)
    ledger.run(one, completed(2.0))
    first = outbox.claim(again_s=60.0)
    assert first is not None
    waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool:
        with ledger.database.transaction() as connection:
            connection.execute(text("select hn_notify_1(:study, 'best', :ticket)"), {"study": study.id, "ticket": two})
            confirmed = pool.submit(outbox.sent, first)
            eventually(lambda: ledger.database.rows(text(waits)), what="the confirmation waits for the event")
        confirmed.result()

    second = outbox.claim(again_s=60.0)
    assert second is not None and second.body["count"] == 1


@pytest.mark.parametrize(("direction", "value"), [("maximize", 2.0), ("minimize", -1.0)])
@pytest.mark.parametrize("events", [["best"], ["finished"]])
def test_end_of_a_trial_does_not_read_the_other_tickets(
    ledger: Ledger, direction: str, value: float, events: list[str]
) -> None:
    # Given a study of 5,000 completed trials with values between 0 and 1
    study = ledger.study(1, direction=direction, notify={"url": "https://hooks.example.com", "on": events})
    (ticket,) = ledger.tickets(study)
    ledger.start(ticket)
    add_closed_tickets(ledger.database, study.id, 5000)
    read = text(
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables"
        " where relname = 'hn_tickets'"
    )
    closed = {"state": "closed", "ending": "completed", "value": value, "outcome": {}, "lease_expires_at": None}

    # When a better one ends
    with ledger.database.transaction() as connection:
        # As in a session in which several trials have ended: its plan does not know the direction of the study
        connection.execute(text("set local plan_cache_mode = force_generic_plan"))
        before = connection.scalar(read)  # of the transactions before this one
        connection.execute(update(tickets).where(tickets.c.id == ticket).values(**closed))
        rows = connection.scalar(read) - before

    # Then its own row and the best one before it are read
    assert rows < 10
    assert waiting(ledger) == ({"best": 1} if events == ["best"] else {})


def test_other_hosts_get_nothing(ledger: Ledger, receiver: Receiver, notifier: Notifier) -> None:
    study = notified(ledger, "https://elsewhere.example.com/hook")
    ledger.run(ledger.tickets(study)[0], completed(1.0))
    notifier.wake()
    what = "best: HIGHNOON_NOTIFY_HOSTS of the coordinator does not list elsewhere.example.com"
    eventually(lambda: Outbox(ledger.database).trouble("digits") == [what], what="it is refused")
    assert receiver.received == []
    assert is_allowed("https://a.b.example.com/x", ["*.example.com"]) and not is_allowed("https://x.com", ["*.com.x"])
    assert is_allowed("https://H.example.com/x", ["h.Example.com"]) and is_allowed("https://a.b/x", ["*.B"])
    assert is_allowed("https://h:8443/x", ["h:8443"]) and not is_allowed("https://h:8443/x", ["h"])
    assert not is_allowed("https://h:port/x", ["h"])


@pytest.mark.parametrize("url", ["https://h.x:443/x", "https://h.x/x", "http://h.x:80/x"])
def test_the_port_of_its_scheme_is_as_none(url: str) -> None:
    port = 80 if url.startswith("http:") else 443
    assert is_allowed(url, ["h.x"]) and is_allowed(url, [f"h.x:{port}"]) and is_allowed(url, [f"*.x:{port}"])
    assert not is_allowed(url, ["h.x:8443"]) and not is_allowed("http://h.x:443/x", ["h.x"])


def test_a_study_that_asks_for_nothing_writes_nothing(ledger: Ledger) -> None:
    study = ledger.study(2)
    ledger.run(ledger.tickets(study)[0], completed(1.0))
    other = ledger.study(1, name="only-finished", notify={"url": "https://h.example.com"})
    ledger.run(ledger.tickets(other)[0], completed(1.0))
    assert waiting(ledger) == {}


@pytest.mark.parametrize(
    ("written", "messages"),
    [
        ("https://h", ["notify: must be a table with a url"]),
        ({"url": "ftp://h/x", "on": ["best", "finish"], "to": 1}, ["must begin with https", "finished?", "notify.to"]),
        ({"url": "https://a:b@h/x"}, ["must not hold a password"]),
        ({"url": "https://h:port/x"}, ["notify.url: must have a port from 1 to 65535", "https://h:port/x"]),
        ({"url": "https://h:99999/x"}, ["notify.url: must have a port from 1 to 65535"]),
        ({"url": "https://h/x", "on": []}, ["must be a list of events"]),
    ],
)
def test_mistakes_are_reported_at_once(written: Any, messages: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        StudySpec.from_json({"name": "x", "objective": "a.py:f", "search_space": {"x": [0, 1]}, "notify": written})
    assert all(message in str(caught.value) for message in messages), str(caught.value)


def test_hosts_need_a_key() -> None:
    with pytest.raises(InvalidInput, match="HIGHNOON_NOTIFY_KEY: is needed where notifications are sent"):
        load_settings({"HIGHNOON_NOTIFY_HOSTS": "h.example.com"})
