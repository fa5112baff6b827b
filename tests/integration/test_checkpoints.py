"""What a lost attempt had saved serves the next: trainings go on, and nothing of it is left once they are over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending, TrialState
from tests.cluster import Books, Cluster, running_cluster
from tests.support import eventually

SPACE = {"rate": ["log_uniform", 1e-3, 3e-3]}


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    preload = {"HIGHNOON_PRELOAD": "tensorflow,keras"}
    with running_cluster(stack, tmp_path_factory.mktemp("checkpoints"), preload, slots=1) as cluster:
        yield cluster


def test_a_killed_training_goes_on_in_the_next_attempt(cluster: Cluster, books: Books) -> None:
    # Given a training of three epochs whose process is killed in the third
    name = cluster.submit_here("training_objectives.py:is_killed_once", 1, name="birds", search_space=SPACE)
    books.wait_until_over(name, 120)

    # Then its retry trained the third only
    books.assert_balanced(name, 1)
    first, second = books.attempts(name)
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
