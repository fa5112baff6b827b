"""What a lost attempt had saved serves the next: trainings go on, and nothing of it is left once they are over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.access import opened
from shared.states import Ending, TrialState
from tests.cluster import Books, Cluster
from tests.support import eventually

SPACE = {"rate": ["log_uniform", 1e-3, 3e-3]}


@pytest.fixture
def cluster(postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(postgres_url, redis_url, tmp_path)
    with opened(postgres_url, create=True):
        cluster.start_coordinator()
        cluster.start_worker(slots=1, HIGHNOON_PRELOAD="tensorflow,keras")
    yield cluster
    cluster.stop()
    print(cluster.logs())


@pytest.fixture
def books(cluster: Cluster) -> Iterator[Books]:
    with cluster.books() as books:
        yield books


def test_a_killed_training_goes_on_in_the_next_attempt(cluster: Cluster, books: Books) -> None:
    # Given a training of three epochs whose process is killed in the third
    name = cluster.submit_here("training_objectives.py:is_killed_once", 1, name="birds", search_space=SPACE)
    books.wait_until_over(name, 120)

    # Then its retry trained the third only
    books.assert_balanced(name, 1)
    first, second = books.studies.attempts(books.studies.get(name).id)
    assert (first.ending, second.ending) == (Ending.KILLED, Ending.COMPLETED)
    assert [epochs_in(cluster, number) for number in (0, 1)] == [
        ["attempt 1 has trained epoch 0", "attempt 1 has trained epoch 1", "attempt 1 has trained epoch 2"],
        ["attempt 2 has trained epoch 2"],
    ]

    # And its trial has the whole curve, which begins as the lost one's
    lost, done = books.trials(name)
    assert (lost.state, done.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert [report.step for report in done.reports] == [0, 1, 2]
    assert lost.reports[:2] == done.reports[:2]
    assert done.value == done.reports[-1].value < done.reports[0].value

    # And nothing is left of the checkpoints
    eventually(lambda: not list((cluster.folder / "home" / "checkpoints").iterdir()), what="no checkpoint is left")


def epochs_in(cluster: Cluster, trial_number: int) -> list[str]:
    log = cluster.folder / "home" / "logs" / "birds" / f"trial-{trial_number:05d}.log"
    return [line for line in log.read_text().splitlines() if line.startswith("attempt")]
