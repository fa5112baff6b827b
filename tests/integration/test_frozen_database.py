"""PostgreSQL is stopped (SIGSTOP on all its processes): memory limits, time limits and drains act in time all the same.

The long form, with the lease of the settings' defaults, is not part of `make test`: make test ARGS="-m slow".
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from highnoon.shared.domain.states import Ending
from highnoon.shared.runtime.processes import identify
from highnoon.shared.runtime.terminal import Exit
from tests.cluster import Cluster
from tests.conftest import new_stack
from tests.frozen import frozen
from tests.support import eventually

DRAIN_S, KILL_GRACE_S, TRIAL_TIMEOUT_S, WATCHED_EVERY_S = 1.0, 0.5, 6.0, 0.5
LATE_S = 8.0
"""By so much more than its normal time each may take: less than a statement may, and PostgreSQL stays frozen."""

DEFAULT_LEASE = {
    "HIGHNOON_LEASE_S": "30",
    "HIGHNOON_RENEW_S": "8",
    "HIGHNOON_LEADER_TTL_S": "10",
    "HIGHNOON_TICK_S": "1",
}


@pytest.mark.parametrize(
    ("frozen_s", "periods"),
    [
        pytest.param(20.0, {}, id="short_lease"),
        pytest.param(60.0, DEFAULT_LEASE, id="default_lease", marks=pytest.mark.slow),
    ],
)
def test_limits_and_drain_act_in_time_while_postgres_is_frozen(
    tmp_path: Path, frozen_s: float, periods: dict[str, str]
) -> None:
    environ = {"TEST_GO_FILE": str(tmp_path / "go"), "TEST_GO_FOLDER": str(tmp_path), **periods}
    with new_stack() as stack:
        cluster = Cluster(stack.database_url, stack.redis_url, tmp_path, environ)
        try:
            # Given a node to be drained with its trial, and one with a trial that will leak and one that hangs
            cluster.start_coordinator()
            drained = cluster.start_worker(
                slots=1, HIGHNOON_DRAIN_S=str(DRAIN_S), HIGHNOON_KILL_GRACE_S=str(KILL_GRACE_S)
            )
            eventually(lambda: _is_submitted(cluster, "patient"), 60, what="the first study is submitted")
            drained_trial = _trial_of(cluster, "patient")
            cluster.start_worker(slots=2, HIGHNOON_KILL_GRACE_S=str(KILL_GRACE_S))
            cluster.submit_here("leaks_when_told", 1, name="leaks_when_told", trial_memory_limit="256 MB")
            leaking = _trial_of(cluster, "leaks_when_told")
            cluster.submit_here("hangs", 1, name="hangs", trial_timeout=TRIAL_TIMEOUT_S)
            hanging = _trial_of(cluster, "hangs")
            hangs_since = time.monotonic()

            # When PostgreSQL freezes, the one leaks, the other hangs, and the third one's node gets SIGTERM
            with frozen(stack, "postgres"):
                frozen_since = time.monotonic()
                drained.send_signal(signal.SIGTERM)
                (tmp_path / "leak").touch()

                # Then each is ended in its time
                _wait_until(lambda: identify(drained_trial) is None, frozen_since + DRAIN_S + KILL_GRACE_S + LATE_S)
                full = tmp_path / "full"
                full_at = float(eventually(lambda: full.exists() and full.read_text(), 10))
                _wait_until(lambda: identify(leaking) is None, full_at + WATCHED_EVERY_S + LATE_S)
                _wait_until(lambda: identify(hanging) is None, hangs_since + TRIAL_TIMEOUT_S + KILL_GRACE_S + LATE_S)
                left_by = frozen_since + DRAIN_S + 4 * KILL_GRACE_S + 1.0 + LATE_S
                _wait_until(lambda: drained.poll() is not None, left_by)
                assert drained.returncode == Exit.OK
                time.sleep(max(0.0, frozen_since + frozen_s - time.monotonic()))

            # And when PostgreSQL is back, each outcome is written, and what was drained runs again
            (tmp_path / "go").touch()
            with cluster.books() as books:
                for name, ending in (("leaks_when_told", Ending.STOPPED), ("hangs", Ending.TIMED_OUT)):
                    books.wait_until_over(name)
                    books.assert_balanced(name, 1)
                    assert [attempt.ending for attempt in books.attempts(name)] == [ending]
                books.wait_until_over("patient")
                books.assert_balanced("patient", 1)
                assert [attempt.ending for attempt in books.attempts("patient")][-1] is Ending.COMPLETED
        finally:
            cluster.stop()
            print(cluster.logs())


def _is_submitted(cluster: Cluster, objective: str) -> bool:
    try:
        cluster.submit(objective, 1, name=objective)
    except AssertionError as refused:
        # The coordinator has not made the tables yet.
        assert "yet: start a coordinator" in str(refused)
        return False
    return True


def _trial_of(cluster: Cluster, study: str) -> int:
    """The process of the study's trial, once it runs."""
    note = eventually(
        lambda: next((note for note in cluster.slots() if note["study"] == study), None), 60, what=f"{study} runs"
    )
    return int(note["trial_group"])


def _wait_until(fact: Callable[[], bool], deadline: float) -> None:
    while not fact():
        assert time.monotonic() < deadline, f"{(time.monotonic() - deadline):.1f} s late"
        time.sleep(0.02)
