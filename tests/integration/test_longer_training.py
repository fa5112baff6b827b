"""A trial that has ended trains longer: as a new one, from its checkpoint, on whatever node takes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from highnoon.cluster import Cluster as Reached
from highnoon.coordinator.local.stack import Stack
from highnoon.handle import StudyHandle
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.domain.trial import Report
from highnoon.shared.runtime.settings import load_settings
from tests.cluster import Books, Cluster, running_cluster
from tests.support import eventually
from tests.web import Visitor, dashboard

SPACE = {"x": ["categorical", [64.0]]}


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("longer")
    with running_cluster(stack, folder, {"HIGHNOON_ARTIFACTS_URL": str(folder / "store")}, slots=1) as cluster:
        yield cluster


def handle_of(cluster: Cluster, name: str) -> StudyHandle:
    settings = load_settings({}).model_copy(update={"database_url": cluster.database_url})
    return StudyHandle(name, Reached(settings=settings))


def log_of(cluster: Cluster, name: str, number: int) -> str:
    return next(cluster.folder.glob(f"home*/logs/{name}/trial-{number:05d}.log")).read_text()


def test_a_trial_trains_longer_on_another_node(cluster: Cluster, books: Books) -> None:
    # Given a training of three epochs on a node that is gone with its disk
    name = cluster.submit_here("halves", 1, name="longer", search_space=SPACE)
    books.wait_until_over(name)
    assert books.trials(name)[0].value == 8.0
    cluster.kill(cluster.latest("workers"))
    cluster.start_worker(slots=1, HIGHNOON_HOME=str(cluster.folder / "home-2"))

    # When a person trains it for five, by the command line
    done = cluster.cli("extend-trial", name, "0", "--set", "epochs=5")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "study longer: one more trial, which goes on from trial 0, with epochs=5\n"
    books.wait_until_over(name)

    # Then a new trial has trained the two that were missing
    first, longer = books.trials(name)
    assert (longer.state, longer.value, longer.params) == (TrialState.COMPLETE, 2.0, first.params)
    assert longer.reports == (Report(step=4, value=4.0), Report(step=5, value=2.0))
    assert longer.attrs["highnoon:extends"] == 0
    assert "begins with epoch 3" in log_of(cluster, name, 1)
    books.assert_balanced(name, 2)

    # And that one trains longer from Python
    handle = handle_of(cluster, name)
    handle.extend_trial(1, epochs=6)
    handle.wait(progress=False)
    assert handle.trials[2].value == handle.best_value == 1.0
    handle.access.close()
    assert "begins with epoch 5" in log_of(cluster, name, 2)


def test_a_pruned_trial_trains_longer(cluster: Cluster, books: Books) -> None:
    name = cluster.submit_here("halves", 1, name="pruned", search_space={"x": ["categorical", [128.0]]})
    books.wait_until_over(name)
    assert books.trials(name)[0].state is TrialState.PRUNED
    assert cluster.cli("extend-trial", name, "0").returncode == 0
    books.wait_until_over(name)
    assert "begins with epoch 1" in log_of(cluster, name, 1)


def test_a_trial_without_a_checkpoint_is_refused(cluster: Cluster, books: Books) -> None:
    name = cluster.submit_here("good", 1, name="saves-none")
    books.wait_until_over(name)
    done = cluster.cli("extend-trial", name, "0", "--set", "epochs=5")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "trial 0 of study saves-none has no stored checkpoint to go on from" in " ".join(done.stderr.split())


def test_a_checkpoint_that_is_gone_fails_the_longer_training_and_begins_no_other(
    cluster: Cluster, books: Books
) -> None:
    name = cluster.submit_here("halves", 1, name="gone", search_space=SPACE, max_attempts=1)
    books.wait_until_over(name)
    for path in (cluster.folder / "store").iterdir():
        path.unlink()
    assert cluster.cli("extend-trial", name, "0").returncode == 0
    books.wait_until_over(name)
    attempt = books.attempts(name)[-1]
    assert (attempt.ending, attempt.cause) == (Ending.LOST, "checkpoint")
    assert attempt.message is not None and "the checkpoint of trial 0 is not to be had" in attempt.message


def test_the_page_of_a_trial_and_the_api_train_it_longer(cluster: Cluster, books: Books, tmp_path: Path) -> None:
    # Given a training, and the dashboard
    name = cluster.submit_here("halves", 1, name="by-page", search_space=SPACE)
    books.wait_until_over(name)
    with dashboard(cluster.database_url, tmp_path) as address, Visitor(address) as visitor:
        visitor.get("/hpo/cluster")
        assert "Train longer" in visitor.get(f"/hpo/studies/{name}/trials/0").text

        # When one trains it longer by the API, and that one by its page
        done = visitor.api("POST", f"/studies/{name}/trials/0/extend", json={"settings": {"epochs": 4}})
        assert done.status_code == 202, done.text
        books.wait_until_over(name)
        eventually(lambda: "Goes on from" in visitor.get(f"/hpo/studies/{name}/trials/1").text, what="it is shown")
        assert visitor.api("GET", f"/studies/{name}/trials/1").json()["extends"] == 0
        assert visitor.post(f"/hpo/studies/{name}/trials/1/extend", settings="epochs").status_code == 422
        assert visitor.post(f"/hpo/studies/{name}/trials/1/extend", settings="epochs=5").status_code == 303
        books.wait_until_over(name)

    # Then each has trained what was missing
    assert [trial.value for trial in books.trials(name)] == [8.0, 4.0, 2.0]
