"""Files of trials on a cluster: stored by workers, found from everywhere; checkpoints travel to another node."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

import highnoon as hn
from highnoon.cluster import Cluster as Reached
from highnoon.coordinator.local.stack import Stack
from highnoon.handle import StudyHandle
from highnoon.shared.domain.states import Ending
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.schema import files, tickets
from tests import objectives
from tests.cluster import Books, Cluster, running_cluster
from tests.support import eventually

INTERVAL_S = 0.8
KILLS = 2


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("artifacts")
    environ = {"HIGHNOON_ARTIFACTS_URL": str(folder / "store"), "HIGHNOON_CHECKPOINT_S": str(INTERVAL_S)}
    with running_cluster(stack, folder, environ, slots=2) as cluster:
        yield cluster


def test_what_trials_save_is_found_from_everywhere(cluster: Cluster, books: Books, tmp_path: Path) -> None:
    # Given a study whose trials save files, and that keeps the files of the two best
    name = cluster.submit(
        "saves_files", 6, name="saves", sampler="grid", search_space={"x": ["int", 0, 5]}, keep_best=2
    )
    books.wait_until_over(name)

    # Then the coordinator leaves the files of the two best, and the rest of the store is empty
    store = cluster.folder / "store"
    eventually(lambda: len(list(store.iterdir())) == 4, 30.0, what="two trials keep two files each")
    best = {trial.number for trial in books.trials(name) if trial.value in (0.0, 1.0)}

    # And Python finds them
    settings = load_settings({}).model_copy(update={"database_url": cluster.database_url, "artifacts_url": str(store)})
    handle = StudyHandle(name, Reached(settings=settings))
    listed = handle.artifacts()
    assert {number for number, _ in listed} == best
    assert sorted(artifact.name for _, artifact in listed) == ["model.txt", "model.txt", "plot.txt", "plot.txt"]
    number = handle.best_trial.number
    assert handle.artifact(number, "model.txt", to=tmp_path).read_text() == "x = 0"
    handle.access.close()

    # And the command line
    done = cluster.cli("artifacts", name, str(number), "--download", str(tmp_path / "all"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all" / str(number) / "plot.txt").read_text() == "plot of 0"
    assert "model.txt" in cluster.cli("artifacts", name).stdout

    # And no copy is left where the trials ran
    assert not list((cluster.folder / "home" / "runs").glob("saves/*/tmp"))


def test_a_trial_goes_on_from_its_checkpoint_on_other_nodes(cluster: Cluster, books: Books) -> None:
    # Given a training on a node, and what it would give without any interruption
    cluster.kill(cluster.latest("workers"))
    alone = hn.HPOTrialManager("alone", n_trials=1)
    alone.optimize(lambda given: objectives.descends({**given, "pause": 0.0}), {"x": ("categorical", [2.0])})
    node = _node(cluster, 0)
    space = {"x": ["categorical", [2.0]]}
    name = cluster.submit_here("descends", 1, name="travels", search_space=space, max_attempts=9)
    eventually(lambda: books.attempts(name), 60.0, what="it runs on the one node that there is")

    # When its node is killed several times, and each time the next one has another home
    for kill in range(KILLS):
        following = _node(cluster, kill + 1)
        _await_checkpoint(books, kill + 1)
        cluster.kill(node)
        node = following
        with books.transaction() as connection:  # as if a lease had passed
            connection.execute(update(tickets).where(tickets.c.state == "running").values(lease_expires_at=0.0))
        eventually(lambda: books.attempts(name)[-1].ending is not None, 30.0, what="the attempt is lost")
        with books.transaction() as connection:  # as if the delay between two attempts were over
            connection.execute(update(tickets).values(not_before=0.0))

    # And the last one is drained
    following = _node(cluster, KILLS + 1)
    eventually(lambda: len(_steps(cluster, KILLS)) > 1, 30.0, what="the last attempt goes on")
    node.send_signal(signal.SIGTERM)
    books.wait_until_over(name)

    # Then the result equals an uninterrupted training's
    attempts = books.attempts(name)
    assert [attempt.ending for attempt in attempts] == [Ending.LOST] * KILLS + [Ending.RELEASED, Ending.COMPLETED]
    assert books.trials(name)[-1].value == pytest.approx(alone.best_value, rel=1e-12)

    # And about one interval was repeated each time, not all that was done before
    steps = [_steps(cluster, number) for number in range(KILLS + 2)]
    assert steps[0][0] == 1 and steps[-1][-1] == objectives.STEPS
    for before, after in pairwise(steps):
        assert 1 < after[0] <= before[-1] + 1, "it goes on, and leaves nothing out"
        assert (before[-1] - after[0] + 1) * objectives.PAUSE_S < 2 * INTERVAL_S, (before, after)

    assert steps[-1][0] == steps[-2][-1] + 1, "a drain repeats nothing"

    # And no attempt has had more than two files in the store at a time
    with books.transaction() as connection:
        assert len(list(connection.scalars(select(files.c.id).where(files.c.attempt == 2)))) <= 2


def _node(cluster: Cluster, number: int) -> Any:
    return cluster.start_worker(slots=1, HIGHNOON_DRAIN_S="0", HIGHNOON_HOME=str(cluster.folder / f"home-{number}"))


def _checkpoint_of(books: Books) -> int | None:
    """The attempt that has saved the newest checkpoint."""
    with books.transaction() as connection:
        found = connection.scalar(select(tickets.c.checkpoint).where(tickets.c.state == "running"))
    return None if found is None else int(found["attempt"])


def _await_checkpoint(books: Books, attempt: int) -> None:
    eventually(lambda: _checkpoint_of(books) == attempt, 60.0, what=f"attempt {attempt} has a checkpoint")


def _steps(cluster: Cluster, number: int) -> list[int]:
    logs = list(cluster.folder.glob(f"home-*/logs/travels/trial-{number:05d}.log"))
    if not logs:
        return []
    return [int(step) for step in re.findall(r"^step (\d+)$", logs[0].read_text(), re.MULTILINE)]
