"""What a worker does not run: messages that are none of ours, code that is not allowed, bundles that are not signed.

One node serves the module. Each story ends with an ordinary trial on it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from celery import Celery
from sqlalchemy import update

from highnoon.coordinator.cli.submit_options import read_study
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.messages import RUN_TRIAL_TASK, queue_name
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.bundle import ClusterKey, pack
from highnoon.shared.objective.study_file import build_spec
from highnoon.shared.runtime.settings import load_settings
from highnoon.shared.store.access import opened
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.code_upload import upload_code
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.schema import bundles
from highnoon.shared.store.submission import submit
from highnoon.workers.message_filter import rejected_messages
from tests.archives import archived, member
from tests.cluster import HERE, Books, Cluster, running_cluster
from tests.frozen import Stopwatch
from tests.rubbish import RUBBISH
from tests.support import eventually

KEY = "the-key-of-the-cluster-under-test"
OBJECTIVE = b"def objective(params):\n    return params['x']\n"

BUNDLED = """
import os, lib
from pathlib import Path

def objective(params):
    for pid in (os.getpid(), os.getppid()):
        assert b"HIGHNOON_CLUSTER_KEY" not in Path(f"/proc/{pid}/environ").read_bytes()
    return lib.BIAS
"""


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A coordinator and one node that may run the objectives of the tests, and bundles of its cluster."""
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "allowed").mkdir()
    patterns = f"{HERE}/*.py,{folder}/allowed/*.py"
    environ = {"HIGHNOON_CLUSTER_KEY": KEY, "HIGHNOON_OBJECTIVES": patterns}
    with running_cluster(stack, folder, environ, slots=1) as cluster:
        yield cluster


def node_log(cluster: Cluster) -> str:
    return (cluster.folder / "workers-1.log").read_text()


def said(cluster: Cluster, words: str) -> None:
    eventually(lambda: words in node_log(cluster), 30, what=f"the node logs {words!r}")


def goes_on(cluster: Cluster, books: Books, name: str) -> None:
    """The end of each story."""
    cluster.submit_here("good", 1, name=f"{name}-then")
    books.wait_until_over(f"{name}-then")
    (attempt,) = books.attempts(f"{name}-then")
    assert attempt.ending is Ending.COMPLETED, attempt


def send(cluster: Cluster, task: str, *, serializer: str, kwargs: dict[str, Any]) -> None:
    """What a client with its address could put into Redis."""
    with Celery(broker=cluster.redis_url, set_as_current=False) as app:
        app.send_task(task, kwargs=kwargs, queue=queue_name("cpu"), serializer=serializer)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


# --- messages ---------------------------------------------------------------------------------------------------------


def rejected(cluster: Cluster) -> int:
    (health,) = eventually(lambda: [*cluster.folder.glob("home/nodes/*/health")], 30, what="the node has started")
    return rejected_messages(health.parent)


def test_pickled_message_is_not_unpickled(cluster: Cluster, books: Books, name: str, tmp_path: Path) -> None:
    bomb, before = tmp_path / "exploded", rejected(cluster)
    send(cluster, RUN_TRIAL_TASK, serializer="pickle", kwargs={"ticket": Bomb(bomb)})
    eventually(lambda: rejected(cluster) == before + 1, 30, what="the node has rejected it")
    goes_on(cluster, books, name)
    assert not bomb.exists()


def test_unknown_task_is_rejected(cluster: Cluster, books: Books, name: str) -> None:
    before = rejected(cluster)
    send(cluster, "os.system", serializer="json", kwargs={"command": "true"})
    eventually(lambda: rejected(cluster) == before + 1, 30, what="the node has rejected it")
    goes_on(cluster, books, name)


def test_rubbish_on_the_queue_neither_ends_nor_delays_a_node(cluster: Cluster, books: Books, name: str) -> None:
    # Given a pool that works, and every kind of rubbish before the message of a trial, and a thousand of one kind
    goes_on(cluster, books, f"{name}-first")
    pool, before = the_pool(cluster), rejected(cluster)
    logged = len(rejections(cluster))
    with redis.Redis.from_url(cluster.redis_url) as client:
        queue = queue_name("cpu")
        client.lpush(queue, *RUBBISH.values(), *[RUBBISH["JSON without an envelope"]] * 1000)

        # When a study comes after it
        with Stopwatch() as watch:
            goes_on(cluster, books, name)

        # Then all of it is gone and counted, with a line per second, and the same pool has run the trial
        assert rejected(cluster) == before + len(RUBBISH) + 1000
        assert client.llen(queue) == 0 and client.hlen("unacked") == 0
    assert the_pool(cluster) == pool
    assert watch.seconds < 45, "a thousand of them took 90 s once"
    new = rejections(cluster)[logged:]
    assert 1 <= len(new) <= new[-1] - new[0] + 2, "a line per second"


def test_message_of_a_newer_version_is_declined_and_logged_once(cluster: Cluster, books: Books, name: str) -> None:
    # Given messages of a newer coordinator
    for _ in range(3):
        send(cluster, RUN_TRIAL_TASK, serializer="json", kwargs={"study": "x", "ticket": 1, "version": 99, "more": 1})
    said(cluster, "action=message_refused")
    goes_on(cluster, books, name)
    assert node_log(cluster).count("action=message_refused") == 1


def rejections(cluster: Cluster) -> list[float]:
    """When the node logged that it rejected messages, in seconds."""
    lines = [line for line in node_log(cluster).splitlines() if "action=message_rejected" in line]
    return [datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp() for line in lines]


def the_pool(cluster: Cluster) -> list[int]:
    return [child.pid for child in psutil.Process(cluster.processes[-1].pid).children()]


# --- the allow-list ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["in_full", "by_dots", "by_a_link", "as_a_module"])
def test_an_objective_outside_the_list_is_not_imported(
    cluster: Cluster, books: Books, name: str, how: str, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(f"open({str(ran)!r}, 'w')\ndef objective(params): return 0.0\n")
    allowed = cluster.folder / "allowed"
    (allowed / "link.py").unlink(missing_ok=True)
    (allowed / "link.py").symlink_to(tmp_path / "mine.py")
    objective, code_dir = {
        "in_full": (f"{tmp_path}/mine.py:objective", allowed),
        "by_dots": (f"{os.path.relpath(tmp_path, allowed)}/mine.py:objective", allowed),
        "by_a_link": ("link.py:objective", allowed),
        "as_a_module": ("mine:objective", tmp_path),
    }[how]
    cluster.submit_here(objective, 2, name=name, code_dir=str(code_dir))
    record = books.wait_until_over(name)

    assert not ran.exists()
    books.assert_balanced(name, 2)
    for attempt in books.attempts(name):
        assert (attempt.ending, attempt.cause) == (Ending.FAILED, "objective_refused")
        assert f"{tmp_path}/mine.py:objective is none of the objectives" in str(attempt.message)
        assert f"{HERE}/*.py" in str(attempt.message) and "HIGHNOON_OBJECTIVES" in str(attempt.message)
    said(cluster, f"action=objective_refused study={record.name}")
    goes_on(cluster, books, name)


# --- bundles ----------------------------------------------------------------------------------------------------------


def submit_bundle(cluster: Cluster, name: str, archive: bytes, signature: str, objective: str = "train.py") -> None:
    """As `submit --bundle` does, with an archive and a signature of the test's own."""
    digest = hashlib.sha256(archive).hexdigest()
    with opened(cluster.database_url) as access:
        Bundles(access.database).put(digest, archive, signature)
        spec = StudySpec.from_json({**cluster.study("good", 1, name=name), "objective": f"{objective}:objective"})
        submit(spec.model_copy(update={"bundle": digest}), access)


def signed(archive: bytes) -> str:
    return ClusterKey(KEY).sign(hashlib.sha256(archive).hexdigest())


def assert_refused(cluster: Cluster, books: Books, name: str, why: str) -> None:
    books.wait_until_over(name)
    (attempt,) = books.attempts(name)
    assert (attempt.ending, attempt.cause) == (Ending.FAILED, "bundle_refused"), attempt
    assert why in str(attempt.message)
    said(cluster, f"action=bundle_refused study={name}")
    assert not (cluster.folder / "home" / "bundles" / "train.py").exists()
    goes_on(cluster, books, name)


def test_a_bundle_that_another_key_signed_is_refused(cluster: Cluster, books: Books, name: str) -> None:
    archive = archived(member("train.py", OBJECTIVE + b"# by a stranger"))
    digest = hashlib.sha256(archive).hexdigest()
    submit_bundle(cluster, name, archive, ClusterKey("the-key-of-a-stranger").sign(digest))
    assert_refused(cluster, books, name, "not signed with the key")


def test_a_bundle_that_was_changed_in_the_database_is_refused(cluster: Cluster, books: Books, name: str) -> None:
    archive = archived(member("train.py", OBJECTIVE + b"# as it was signed"))
    spec = cluster.study("good", 1, name=name)
    digest = hashlib.sha256(archive).hexdigest()
    with opened(cluster.database_url) as access:
        Bundles(access.database).put(digest, archive, signed(archive))
        with access.database.transaction() as connection:
            changed = archive.replace(b"as it was", b"as it isn")
            connection.execute(update(bundles).where(bundles.c.digest == digest).values(archive=changed))
        submit(StudySpec.from_json({**spec, "objective": "train.py:objective", "bundle": digest}), access)
    assert_refused(cluster, books, name, "was changed after it was signed")


@pytest.mark.parametrize("path", ["../train.py", "/train.py"])
def test_a_signed_bundle_that_leads_out_of_its_folder_is_refused(cluster: Cluster, books: Books, path: str) -> None:
    name = f"leads-out-by-{'dots' if '..' in path else 'root'}"
    archive = archived(member("good.py"), member(path, OBJECTIVE))
    submit_bundle(cluster, name, archive, signed(archive))
    assert_refused(cluster, books, name, "a path that leads out of it")


def test_a_signature_vouches_for_the_bundle_and_for_nothing_beside_it(
    cluster: Cluster, books: Books, name: str, tmp_path: Path
) -> None:
    archive = archived(member("train.py", OBJECTIVE))
    outside = tmp_path / "train.py"
    outside.write_bytes(OBJECTIVE)
    submit_bundle(cluster, name, archive, signed(archive), objective=str(outside))
    books.wait_until_over(name)
    assert [attempt.cause for attempt in books.attempts(name)] == ["objective_refused"]
    goes_on(cluster, books, name)


# --- and what is run --------------------------------------------------------------------------------------------------


def test_a_bundle_of_ours_is_run_and_named_in_each_attempt(
    cluster: Cluster, books: Books, name: str, tmp_path: Path
) -> None:
    # Given code that lies on no worker, with a helper and a small data file
    code = tmp_path / "code"
    (code / "lib").mkdir(parents=True)
    (code / "lib" / "__init__.py").write_text(
        "from pathlib import Path\nBIAS = float(Path(__file__).with_name('bias.txt').read_text())\n"
    )
    (code / "lib" / "bias.txt").write_text("100")
    (code / "train.py").write_text(BUNDLED)
    study = cluster.write("train.py:objective", 3, name=name, code_dir="unused")

    # When it is sent along, and is gone here before it runs
    bundled = pack(code, limit_bytes=10_000)
    done = cluster.cli("submit", str(study), "--bundle", str(code))
    assert done.returncode == 0, done.stderr
    (code / "train.py").unlink()
    books.wait_until_over(name)

    # Then every trial has run it, from one folder of the node, and names it
    books.assert_balanced(name, 3)
    assert [trial.value for trial in books.trials(name)] == [100.0] * 3
    spec = books.studies.get(name).spec
    assert (spec["bundle"], spec["objective"]) == (bundled.digest, "train.py:objective")
    assert {attempt.code for attempt in books.attempts(name)} == {spec["code"]} != {None}
    unpacked = cluster.folder / "home" / "bundles" / bundled.digest
    assert (unpacked / "lib" / "bias.txt").read_text() == "100"
    assert [path.name for path in unpacked.parent.glob(".*")] == [], "no draft is left"


def test_a_node_says_once_that_its_code_is_not_what_was_submitted(cluster: Cluster, books: Books, name: str) -> None:
    spec = build_spec(cluster.study("good", 3, name=name), source=name)
    with opened(cluster.database_url) as access:
        submission = submit(spec, access)
        changed = {**submission.spec.to_json(), "code": "0" * 64, "n_trials": 5}
        access.studies.extend(submission.record.id, changed, n_trials=5)
    books.wait_until_over(name)
    assert submission.spec.code in {attempt.code for attempt in books.attempts(name)}
    said(cluster, f"action=code_differs study={name}")
    assert node_log(cluster).count(f"action=code_differs study={name}") == 1


def test_a_bundle_without_a_key_is_a_clear_mistake_and_is_not_kept(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_bytes(OBJECTIVE)
    study = Cluster(cluster.database_url, cluster.redis_url, tmp_path).write("train.py:objective", 1)
    settings = load_settings({}, database_url=cluster.database_url, redis_url=cluster.redis_url, home=tmp_path / "home")
    spec, bundle = read_study(study, {}, tmp_path, settings)
    assert bundle is not None
    with opened(cluster.database_url) as access:
        with pytest.raises(InvalidInput, match=r"HIGHNOON_CLUSTER_KEY: is not set.*the same one here and there"):
            upload_code(spec, bundle, access, settings, is_embedded=False)
        assert Bundles(access.database).find(bundle.digest) is None


def test_a_node_says_what_it_has(cluster: Cluster) -> None:
    def facts() -> Any:
        (worker,) = nodes.workers(silent_for_s=60.0)
        return worker.facts

    database = Database(cluster.database_url)
    nodes = Nodes(database)
    seen = eventually(facts, 10, what="the node has said what it has")
    database.close()
    assert 0 < seen["memory_used_bytes"] < seen["memory_total_bytes"] and seen["cpus"] >= 1
