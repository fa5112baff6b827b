"""The I/O thread runs steps in order, repeats persistent ones during an outage, and never stops for an error."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from highnoon.shared.domain.errors import LeaseLost, ServiceUnavailable
from highnoon.workers import io_thread
from highnoon.workers.io_thread import IoThread
from tests.support import eventually


@pytest.fixture
def io(monkeypatch: pytest.MonkeyPatch) -> Iterator[IoThread]:
    monkeypatch.setattr(io_thread, "_FIRST_PAUSE_S", 0.001)
    thread = IoThread()
    yield thread
    thread.stop(60.0)


def _is_readable(io: IoThread, timeout_s: float = 0.0) -> bool:
    return bool(select.select([io.wakeup_fd], [], [], timeout_s)[0])


def test_steps_run_in_order_in_one_other_thread(io: IoThread) -> None:
    seen: list[tuple[int, int]] = []
    futures = [io.submit(lambda n=n: seen.append((n, threading.get_ident()))) for n in range(5)]  # type: ignore[misc]
    futures[-1].result(60.0)
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4]
    assert {ident for _, ident in seen} != {threading.get_ident()} and len({ident for _, ident in seen}) == 1


def test_result_makes_the_wakeup_descriptor_readable_until_it_is_cleared(io: IoThread) -> None:
    assert not _is_readable(io)
    future = io.submit(lambda: 7)
    assert _is_readable(io, 60.0) and future.result(60.0) == 7
    io.clear_wakeup()
    assert not _is_readable(io)
    io.clear_wakeup()


def test_error_goes_to_the_future_and_the_thread_goes_on(io: IoThread) -> None:
    def lost() -> None:
        raise LeaseLost("ticket=1")

    failed, later = io.submit(lost, persistent=True), io.submit(lambda: "on")
    with pytest.raises(LeaseLost):
        failed.result(60.0)
    assert later.result(60.0) == "on"


def test_only_a_persistent_step_is_repeated_during_an_outage(io: IoThread) -> None:
    tries: list[str] = []

    def step(name: str) -> int:
        tries.append(name)
        if len(tries) < 4:
            raise ServiceUnavailable("away")
        return len(tries)

    once = io.submit(lambda: step("once"))
    repeated = io.submit(lambda: step("repeated"), persistent=True)
    with pytest.raises(ServiceUnavailable):
        once.result(60.0)
    assert repeated.result(60.0) == 4 and tries == ["once", "repeated", "repeated", "repeated"]


def test_cancelled_step_is_not_tried_again(io: IoThread) -> None:
    tried = threading.Event()

    def step() -> None:
        tried.set()
        raise ServiceUnavailable("away")

    future = io.submit(step, persistent=True)
    assert tried.wait(60.0) and future.cancel()
    assert io.submit(lambda: "next").result(60.0) == "next"


def test_stop_carries_out_what_is_queued_and_gives_up_on_an_outage() -> None:
    io = IoThread()

    def away() -> None:
        raise ServiceUnavailable("away")

    refused, queued = io.submit(away, persistent=True), io.submit(lambda: 1)
    assert io.stop(60.0) and queued.result(0.0) == 1
    with pytest.raises(ServiceUnavailable):
        refused.result(0.0)


def test_stop_does_not_wait_for_a_step_that_hangs() -> None:
    io, release = IoThread(), threading.Event()
    io.submit(release.wait)
    assert not io.stop(0.05)
    release.set()


def test_step_that_does_not_return_is_noticed(io: IoThread) -> None:
    go, began = threading.Event(), threading.Event()

    def hangs() -> None:
        began.set()
        go.wait(10.0)

    assert io.stuck_s() == 0.0
    step = io.submit(hangs)
    assert began.wait(60.0)
    eventually(lambda: io.stuck_s() > 0.0, what="the step takes time")
    go.set()
    step.result(60.0)
    assert io.stuck_s() == 0.0
