"""A node whose disk is full: out of the rotation until there is room, nothing lost or charged, and a drain in order.

Needs a small file system of its own, which only root may mount.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending, WorkerState
from highnoon.shared.store.nodes import Worker
from tests.cluster import Cluster, running_cluster
from tests.support import eventually


@pytest.fixture
def cluster(stack: Stack, tmp_path: Path) -> Iterator[Cluster]:
    home = tmp_path / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        with running_cluster(
            stack, tmp_path, {"TEST_GO_FILE": str(tmp_path / "go"), "HIGHNOON_DRAIN_S": "5"}
        ) as cluster:
            yield cluster
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 9, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def test_node_with_a_full_disk_leaves_the_rotation_and_drains_in_order(cluster: Cluster) -> None:
    home = cluster.folder / "home"
    with cluster.books() as books:

        def nodes(state: WorkerState) -> list[Worker]:
            return [node for node in books.nodes.workers(silent_for_s=5.0) if node.state is state]

        # Given two trials that run while the disk fills
        cluster.submit_here("patient", 6, name="study")
        eventually(lambda: len(cluster.slots()) == 2, 60, what="two trials run")
        filler = fill(home)

        # Then the node is out of the rotation with its reason, and its trials go on
        (node,) = eventually(lambda: nodes(WorkerState.QUARANTINED), 20, what="the node is out of the rotation")
        assert node.state_reason is not None and "No space left on device" in node.state_reason
        assert len(cluster.slots()) == 2

        # And it is back with the first room
        filler.unlink()
        eventually(lambda: nodes(WorkerState.ACTIVE), 20, what="the node is back")

        # And when it gets SIGTERM on a full disk, it releases its trials
        fill(home)
        worker = cluster.latest("workers")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(120) == 0
        filler.unlink()
        endings = [(attempt.ending, attempt.cause) for attempt in books.attempts("study")]
        assert endings == [(Ending.RELEASED, "drain")] * 2
        assert "Traceback" not in cluster.logs()

        # Then another node finishes the study
        (cluster.folder / "go").touch()
        cluster.start_worker()
        books.wait_until_over("study")
        books.assert_balanced("study", 6)
