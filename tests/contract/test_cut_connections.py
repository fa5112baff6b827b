"""A host that is cut off in the middle of a start or a finish delays no other host, and leaves both sides of the books
as before or as after the call, wherever the cut was."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from optuna.trial import TrialState
from sqlalchemy import make_url

from highnoon.shared.domain.errors import ServiceError
from highnoon.shared.domain.lease import Disposition
from highnoon.shared.domain.states import TicketState
from highnoon.shared.store.attempts import Attempts
from highnoon.shared.store.database import Database
from tests.frozen import Stopwatch
from tests.ledger import ANNA, BERT, DONE, Ledger, point

CUTS = [
    *[("request", count) for count in (0, 1, 60, 150, 300)],
    *[("answer", count) for count in (0, 1, 40)],
    ("nothing", 0),
]
"""After how many bytes of the request, or of the answer to a whole one, the line is cut."""


_A_LOCK_S = 5.0
"""Far from what a call takes, and from what one that waits for a lock of a host that is cut off would take."""


class Line:
    """A proxy in front of PostgreSQL that can stop to forward: nothing is closed, nothing arrives."""

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._target = (str(target.host), int(target.port or 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = target.set(port=port, query={"sslmode": "disable"}).render_as_string(hide_password=False)
        self._left: dict[str, int] = {}
        self.is_cut = threading.Event()
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, direction: str, count: int) -> None:
        self._left[direction] = count

    def close(self) -> None:
        for ours in self._sockets:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            ours.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for direction, source, target in (("request", client, server), ("answer", server, client)):
                    threading.Thread(target=self._forward, args=(direction, source, target), daemon=True).start()

    def _forward(self, direction: str, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                left = self._left.get(direction)
                if left is not None:
                    data, self._left[direction] = data[:left], max(0, left - len(data))
                    target.sendall(data)
                    if self._left[direction] == 0:
                        self.is_cut.set()
                        return
                else:
                    target.sendall(data)


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Ledger]:
    ledger = Ledger(postgres_url)
    yield ledger
    ledger.close()


@pytest.fixture
def line(postgres_url: str) -> Iterator[Line]:
    line = Line(postgres_url)
    yield line
    line.close()


def _called_and_cut(line: Line, cut: tuple[str, int], call: Callable[[Attempts], object]) -> threading.Thread:
    """The call of a host whose line is cut; its thread waits for the answer for as long as the line is silent."""
    database = Database(line.url)
    attempts = Attempts(database)
    attempts.look(1)
    line.cut_after(*cut)

    def run() -> None:
        with suppress(ServiceError):
            call(attempts)

    caller = threading.Thread(target=run, daemon=True)
    caller.start()
    if cut[0] == "nothing":
        caller.join(60)
    else:
        assert line.is_cut.wait(120)
    return caller


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut[0]}-{cut[1]}")
def test_start_that_is_cut_off_delays_no_other_start(ledger: Ledger, line: Line, cut: tuple[str, int]) -> None:
    # Given two tickets of one study, and a host that is cut off while it starts the first one
    first, second = ledger.tickets(ledger.study(2))
    candidate = ledger.look(first)
    caller = _called_and_cut(
        line, cut, lambda attempts: attempts.start(candidate, point(1.0), ANNA, ttl_s=30.0, log_path="log")
    )

    # When another host starts the second one, then it waits for nothing
    with Stopwatch() as watch:
        other = ledger.start(second, BERT)
        ledger.finish(other)
    assert watch.seconds < _A_LOCK_S

    # And the first one is either not started, or started with its trial
    running = [trial for trial in ledger.optuna().get_trials(deepcopy=False) if trial.state is TrialState.RUNNING]
    is_running = ledger.state(first) == TicketState.RUNNING
    assert len(running) == (1 if is_running else 0)
    assert is_running or cut[0] == "request"

    # And the host that is back makes the same call again, with the same end
    line.close()
    caller.join(60)
    lease = ledger.start_at(candidate, ANNA, point(1.0))
    assert not isinstance(lease, str) and lease.attempt == 1
    ledger.finish(lease)
    assert [trial.state for trial in ledger.optuna().get_trials(deepcopy=False)] == [TrialState.COMPLETE] * 2


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut[0]}-{cut[1]}")
def test_finish_that_is_cut_off_delays_no_other_host(ledger: Ledger, line: Line, cut: tuple[str, int]) -> None:
    first, second = ledger.tickets(ledger.study(2))
    lease = ledger.start(first, ANNA, point(1.0))
    caller = _called_and_cut(
        line,
        cut,
        lambda attempts: attempts.finish(lease, DONE, disposition=Disposition.CLOSE, token="token"),
    )
    with Stopwatch() as watch:
        ledger.run(second, holder=BERT)
    assert watch.seconds < _A_LOCK_S
    is_closed = ledger.state(first) == TicketState.CLOSED
    assert ledger.trial(lease).state is (TrialState.COMPLETE if is_closed else TrialState.RUNNING)
    assert is_closed or cut[0] == "request"

    line.close()
    caller.join(60)
    ledger.finish(lease, token="token")
    assert ledger.state(first) == TicketState.CLOSED and ledger.trial(lease).state is TrialState.COMPLETE
