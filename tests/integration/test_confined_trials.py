"""Confined trials: what their code cannot reach, by whatever means, and what goes on as usual."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.bundle import ClusterKey, digest_of
from highnoon.shared.store.access import opened
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.submission import submit
from highnoon.workers.trial.confinement import Confinement, missing
from tests.archives import archived, member
from tests.cluster import running_cluster
from tests.integration.test_trial_process import Diary, begin

KEY = "the-key-of-the-cluster-under-test"
BUNDLED = b"""
import os
from pathlib import Path

BIAS = float(Path(__file__).with_name("lib").joinpath("bias.txt").read_text())

def objective(params):
    try:
        os.listdir("%s")
    except PermissionError:
        return BIAS
"""

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"this kernel cannot confine {'; '.join(missing())}")


@pytest.fixture
def ports(stack: Stack) -> list[int]:
    """The ports of PostgreSQL and Redis."""
    return [make_url(url).port or 0 for url in (stack.database_url, stack.redis_url)]


@pytest.fixture(autouse=True)
def _world(ports: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the objectives of these tests look for."""
    secret = tmp_path / "secrets" / "password"
    data = tmp_path / "data"
    for folder in (secret.parent, data):
        folder.mkdir()
    secret.write_text("12345")
    monkeypatch.setenv("TEST_SECRET", str(secret))
    monkeypatch.setenv("TEST_DATA", str(data))
    monkeypatch.setenv("TEST_PORTS", ",".join(map(str, ports)))
    with socket.create_server(("127.0.0.1", 0)) as allowed:
        monkeypatch.setenv("TEST_OPEN_PORT", str(allowed.getsockname()[1]))
        yield


def outcome_of(folder: Path, objective: str, isolation: str = "fork", *, confined: bool = True) -> Outcome:
    confinement = Confinement(
        paths=(os.environ["TEST_DATA"],),
        ports=(int(os.environ["TEST_OPEN_PORT"]),),
        denied=(os.environ["TEST_SECRET"],),
    )
    attempt = begin(folder, objective, isolation=isolation, confinement=confinement if confined else None)
    return attempt.watch(Diary(), trial_timeout_s=60.0)


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_confined_trial_reaches_nothing_that_it_must_not(tmp_path: Path, isolation: str) -> None:
    outcome = outcome_of(tmp_path, "hostile_objectives.py:reaches_what_it_must_not", isolation)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 0.0), outcome.log_tail or outcome.message


def test_what_it_tries_is_within_reach_otherwise(tmp_path: Path) -> None:
    """The objective of the test above proves something: without confinement nearly all of it succeeds."""
    outcome = outcome_of(tmp_path, "hostile_objectives.py:reaches_what_it_must_not", confined=False)
    assert outcome.value is not None and outcome.value >= 12, outcome.log_tail
    Path(__file__).parents[1].joinpath("written.tmp").unlink(missing_ok=True)


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_confined_trial_works_as_usual_with_what_is_its_own(tmp_path: Path, isolation: str) -> None:
    outcome = outcome_of(tmp_path, "hostile_objectives.py:works_as_usual", isolation)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 1.0), f"{outcome.message}\n{outcome.traceback}"
    assert Path(os.environ["TEST_DATA"], "renamed").exists()
    assert not (tmp_path / "work").exists() or not (tmp_path / "work" / "tmp").exists()


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
@pytest.mark.parametrize(
    "objective", ["{code}/train_here.py:objective", "train_here:objective"], ids=["file", "module"]
)
def test_confined_trial_imports_what_is_beside_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, isolation: str
) -> None:
    code = tmp_path / "code"
    home = code / ".highnoon"
    home.mkdir(parents=True)
    (home / "secret").write_text("12345")
    (code / "beside.py").write_text("VALUE = 2.0\n")
    (code / "train_here.py").write_text(
        "import beside\nfrom pathlib import Path\n\n\ndef objective(params):\n    try:\n"
        "        return len(Path(__file__).with_name('.highnoon').joinpath('secret').read_text())\n"
        "    except PermissionError:\n        return beside.VALUE\n"
    )
    if objective.startswith("train"):  # as an editable installation
        monkeypatch.syspath_prepend(str(code))
        monkeypatch.setenv(
            "PYTHONPATH", f"{code}:{os.environ['PYTHONPATH']}" if "PYTHONPATH" in os.environ else str(code)
        )
    confined = Confinement(denied=(str(home),))
    attempt = begin(tmp_path, objective.format(code=code), isolation=isolation, confinement=confined)
    outcome = attempt.watch(Diary(), trial_timeout_s=60.0)
    assert (outcome.ending, outcome.value) == (Ending.COMPLETED, 2.0), f"{outcome.message}\n{outcome.traceback}"


def test_confined_trial_trains_with_keras(tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path, "training_objectives.py:trains", "spawn")
    assert outcome.ending is Ending.COMPLETED, f"{outcome.message}\n{outcome.traceback}"


def test_node_confines_all_trials_also_those_of_a_bundle_or_without_isolation(stack: Stack, tmp_path: Path) -> None:
    token = tmp_path / "secrets" / "token"
    token.write_text("0123456789abcdef")
    environ = {
        "HIGHNOON_CLUSTER_KEY": KEY,
        "HIGHNOON_CONFINE_TRIALS": "require",
        "HIGHNOON_METRICS_TOKEN_FILE": str(token),
        "TEST_SECRET": str(token),
        "TEST_SUPERVISOR": str(os.getpid()),
    }
    folder = tmp_path / "node"
    folder.mkdir()
    with running_cluster(stack, folder, environ, slots=1) as cluster, cluster.books() as books:
        for isolation in ("fork", "none"):
            objective = "hostile_objectives.py:reaches_what_it_must_not"
            name = cluster.submit_here(objective, 1, name=f"confined-{isolation}", isolation=isolation)
            books.wait_until_over(name)
            assert [trial.value for trial in books.trials(name)] == [0.0], books.attempts(name)
        # And a bundle, which lies in the home: its trial reads all of it, and no other one.
        others = cluster.folder / "home" / "bundles" / "other"
        others.mkdir(parents=True)
        (others / "secret").write_text("12345")
        archive = archived(member("train.py", BUNDLED % str(others).encode()), member("lib/bias.txt", b"100"))
        digest = digest_of(archive)
        with opened(cluster.database_url) as access:
            Bundles(access.database).put(digest, archive, ClusterKey(KEY).sign(digest))
            study = cluster.study("train.py:objective", 1, name="confined-bundle")
            submit(StudySpec.from_json({**study, "bundle": digest}), access)
        books.wait_until_over("confined-bundle")
        assert [trial.value for trial in books.trials("confined-bundle")] == [100.0], books.attempts("confined-bundle")
