"""Slots on GPUs: each has its own, whichever process dies. Only NVML is replaced, where a machine has none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending
from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.access import opened
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes
from highnoon.workers import gpus
from highnoon.workers.gpu_check import flaw_of_forks
from highnoon.workers.gpus import NoFreeGpu, pin
from highnoon.workers.node import Node
from tests.cluster import Cluster
from tests.conftest import empty_database
from tests.frozen import Stopwatch
from tests.support import eventually

NVML = '''
"""Two cards, as the module `pynvml` would show them."""
from types import SimpleNamespace

def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return range(2)[index]
def nvmlDeviceGetHandleByUUID(uuid): return int(uuid[-1])
def nvmlDeviceGetUUID(handle): return f"GPU-test-{handle}"
def nvmlDeviceGetName(handle): return "Card of tests"
def nvmlDeviceGetMemoryInfo(handle): return SimpleNamespace(total=1 << 30, used=handle << 20, free=0)
'''


# --- claims -----------------------------------------------------------------------------------------------------------


@contextmanager
def process(act: Callable[[], None]) -> Iterator[int]:
    """A forked child that acts and then waits to be killed."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            time.sleep(600)
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def node_of(tmp_path: Path, *uuids: str) -> Node:
    settings = load_settings({}, home=tmp_path / "home")
    return Node(slots=len(uuids), resources=("gpu",), settings=settings, gpus=uuids)


def claims(node: Node, note: Path) -> Callable[[], None]:
    """As a supervisor does; writes down all that it reads."""

    def act() -> None:
        claim = pin(node)
        assert claim is not None
        draft = note.with_suffix(".new")
        seen = f"{os.environ['CUDA_VISIBLE_DEVICES']} {os.environ.get('TF_FORCE_GPU_ALLOW_GROWTH')}"
        draft.write_text(seen)
        draft.rename(note)
        # What it forks must not keep the claim when it is dead.
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        time.sleep(600)

    return act


def noted(path: Path) -> str:
    eventually(path.exists, what=f"{path.name} is written")
    return path.read_text()


def test_each_supervisor_has_its_own_gpu_and_a_dead_one_leaves_it_to_the_next(tmp_path: Path) -> None:
    node = node_of(tmp_path, "GPU-a", "GPU-b")
    with process(claims(node, tmp_path / "first")) as first, process(claims(node, tmp_path / "second")):
        one, two = noted(tmp_path / "first"), noted(tmp_path / "second")
        assert {one, two} == {"GPU-a None", "GPU-b None"}
        kill(first)
        with process(claims(node, tmp_path / "third")):
            assert noted(tmp_path / "third") == one


def test_slots_that_share_a_gpu_do_not_take_it_whole(tmp_path: Path) -> None:
    node = node_of(tmp_path, "GPU-a", "GPU-a")
    with process(claims(node, tmp_path / "first")), process(claims(node, tmp_path / "second")):
        assert [noted(tmp_path / "first"), noted(tmp_path / "second")] == ["GPU-a true"] * 2


def test_more_supervisors_than_slots_raise_no_free_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_WAIT_S", 0.05)
    node = node_of(tmp_path, "GPU-a")
    with process(claims(node, tmp_path / "first")):
        noted(tmp_path / "first")
        with pytest.raises(NoFreeGpu, match="all 1 GPU slots"):
            pin(node)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_slots_without_gpus_see_what_the_machine_shows(tmp_path: Path) -> None:
    assert pin(node_of(tmp_path)) is None
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


# --- the self-test ----------------------------------------------------------------------------------------------------


def raises() -> None:
    raise RuntimeError("CUDA_ERROR_NOT_INITIALIZED")


@pytest.mark.parametrize(
    ("operation", "flaw"),
    [
        (lambda: None, ""),
        (raises, "RuntimeError: CUDA_ERROR_NOT_INITIALIZED"),
        (lambda: os.abort(), "the child ended with SIGABRT"),
        (lambda: os._exit(3), "the child ended with status 3"),
        (lambda: time.sleep(600), "it did not come back within 0.3 s"),
    ],
    ids=["works", "raises", "aborts", "exits", "hangs"],
)
def test_the_self_test_says_how_a_fork_fails(operation: Callable[[], None], flaw: str) -> None:
    assert flaw_of_forks(operation, limit_s=0.3 if "within" in flaw else 30.0) == flaw


def test_a_fork_that_sigkill_does_not_end_holds_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs in the driver (state D)."""
    children: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda pid, _: children.append(pid))
        with Stopwatch() as watch:
            assert flaw_of_forks(lambda: time.sleep(20), limit_s=0.1) == "it did not come back within 0.1 s"
    (child,) = children
    kill(child)
    assert watch.seconds < 10.0


@pytest.mark.skipif(not Gpus().devices(), reason="no NVIDIA GPU on this machine")
def test_a_real_gpu_survives_the_fork_of_a_warm_pool() -> None:
    uuid = Gpus().devices()[0].uuid
    script = (
        "import tensorflow; from highnoon.workers.gpu_check import flaw_of_forks, uses_gpu; "
        f"print('flaw:', flaw_of_forks(lambda: uses_gpu({uuid!r})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.splitlines()[-1].strip() == "flaw:", done.stdout


# --- a node -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preload", ["", "tensorflow"])
def test_a_node_pins_its_slots_and_spawns_where_a_fork_loses_the_gpu(
    stack: Stack, tmp_path: Path, preload: str
) -> None:
    # Given a node with two cards that TensorFlow cannot use after a fork, with and without TensorFlow in its pool
    (tmp_path / "nvml").mkdir()
    (tmp_path / "nvml" / "pynvml.py").write_text(NVML)
    path = os.pathsep.join(filter(None, (str(tmp_path / "nvml"), os.environ.get("PYTHONPATH"))))
    environ = {"PYTHONPATH": path, "HIGHNOON_PRELOAD": preload, "HIGHNOON_MAX_TASKS_PER_CHILD": "1"}
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    with empty_database(stack) as database_url:
        cluster = Cluster(database_url, stack.redis_url, tmp_path, environ=environ)
        with opened(database_url, create=True):
            cluster.start_coordinator()
            cluster.start_gpu_worker("all")
        try:
            # When it runs a study
            cluster.submit_here("shows_its_gpu", 4, name="on-gpus", resources="gpu")
            with cluster.books() as books:
                books.wait_until_over("on-gpus")
                books.assert_balanced("on-gpus", 4)
                attempts = books.studies.attempts(books.studies.get("on-gpus").id)
            database = Database(database_url)
            (worker,) = Nodes(database).workers(silent_for_s=60.0)
            database.close()
        finally:
            cluster.stop()
            print(cluster.logs())

    # Then each trial has seen one card, both were used, also by supervisors that replaced others
    assert {attempt.ending for attempt in attempts} == {Ending.COMPLETED}
    shown = {str(attempt.log_tail).partition("gpu ")[2].strip() for attempt in attempts}
    assert shown == {"GPU-test-0 growth None", "GPU-test-1 growth None"}
    assert len({attempt.pid for attempt in attempts}) == 4, "every supervisor was replaced"

    # And the node has said what it lost and what it has
    log = (tmp_path / "workers-1.log").read_text()
    lost = "action=gpu_lost_in_fork" in log and "TensorFlow finds no GPU" in log and "instead=spawn" in log
    assert lost == bool(preload), "a pool without TensorFlow has nothing to lose"
    assert (worker.slots, worker.queues) == (2, ("gpu",))
    assert [(gpu["uuid"], gpu["memory_used_bytes"]) for gpu in worker.facts["gpus"]] == [
        ("GPU-test-0", 0),
        ("GPU-test-1", 1 << 20),
    ]
