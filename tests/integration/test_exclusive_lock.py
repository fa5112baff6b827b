"""The lock of a node between real processes: shared, exclusive, and free again however its holder ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.study_file import build_spec
from highnoon.shared.runtime.settings import Settings
from highnoon.workers.monitor.resources import ExclusiveLock, ResourceAllocator
from highnoon.workers.node import Node
from tests.support import eventually


@contextmanager
def another_supervisor(path: Path, *, alone: bool) -> Iterator[int]:
    """A process that has the lock, or waits for it, until it is killed; writes a file when it has it."""
    pid = os.fork()
    if pid == 0:
        with ExclusiveLock(path).acquired(alone=alone, may_wait=lambda: True):
            path.with_name(f"inside-{os.getpid()}").touch()
            signal.pause()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def inside(path: Path, pid: int) -> Callable[[], bool]:
    return path.with_name(f"inside-{pid}").exists


def can_enter(path: Path, *, alone: bool) -> bool:
    with ExclusiveLock(path).acquired(alone=alone, may_wait=lambda: False) as is_inside:
        return is_inside


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node" / "lock"


def test_trials_share_the_lock_and_none_has_it_exclusively_meanwhile(path: Path) -> None:
    assert can_enter(path, alone=True) and can_enter(path, alone=False)
    with another_supervisor(path, alone=False) as pid:
        eventually(inside(path, pid), what="it runs")
        assert can_enter(path, alone=False)
        assert not can_enter(path, alone=True)
    assert can_enter(path, alone=True), "killed, and its locks are gone"


def test_no_trial_starts_beside_one_that_is_alone(path: Path) -> None:
    with another_supervisor(path, alone=True) as pid:
        eventually(inside(path, pid), what="it is alone")
        assert not can_enter(path, alone=False)
        assert not can_enter(path, alone=True)


def test_a_trial_that_waits_to_be_alone_gets_the_lock_although_others_keep_coming(path: Path) -> None:
    with another_supervisor(path, alone=False) as running:
        eventually(inside(path, running), what="it runs")
        with another_supervisor(path, alone=True) as waiting:
            # Newcomers are kept out while it waits, so that the lock becomes free.
            eventually(lambda: not can_enter(path, alone=False), what="the gate is taken")
            assert not inside(path, waiting)()
            os.kill(running, signal.SIGKILL)
            eventually(inside(path, waiting), what="it is alone")
            assert not can_enter(path, alone=False)


def test_a_trial_that_was_forked_inside_holds_nothing(path: Path) -> None:
    lock = ExclusiveLock(path)
    with lock.acquired(alone=True, may_wait=lambda: False) as is_inside:
        assert is_inside
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with another_supervisor(path, alone=True) as pid:
            eventually(inside(path, pid), what="its parent has left, and no other process holds the lock")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_an_attempt_waits_until_its_study_or_its_node_ends_it(settings: Settings) -> None:
    node = Node(slots=2, resources=("cpu",), settings=settings)
    study = {"name": "digits", "objective": "objectives.py:good", "search_space": {"x": ["uniform", 0.0, 1.0]}}
    spec = build_spec({**study, "code_dir": str(Path(__file__).parents[1])}, source="study.toml")
    cancelled = Outcome(ending=Ending.CANCELLED, cause="cancelled", message="cancelled by a person")
    answers = iter([None, cancelled])
    services: Any = SimpleNamespace(interruption=lambda: next(answers))
    path = node.folder / "exclusive.lock"
    with another_supervisor(path, alone=False) as pid:
        eventually(inside(path, pid), what="it runs")
        with ResourceAllocator(node).take(spec, services, alone=True) as resources:
            assert resources.refusal == cancelled
    with ResourceAllocator(node).take(spec, services, alone=True) as resources:
        assert resources.refusal is None
