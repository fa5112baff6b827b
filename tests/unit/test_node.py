"""The folder of a node is locked while its agent runs, and removed by another agent afterwards."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from highnoon.shared.memory.cores import usable_cores
from highnoon.shared.memory.kernel_files import KernelFiles
from highnoon.shared.runtime.settings import SECRETS, Settings
from highnoon.workers import cli, node, pool_keeper
from highnoon.workers.disk import disk_trouble
from highnoon.workers.node import DrainOrder, Node, dead_nodes, node_lock, threads_per_slot, without_secrets
from highnoon.workers.pool_keeper import PoolKeeper
from highnoon.workers.trial.confinement import Confinement
from tests.unit.kernel_tree import MOUNT, KernelTree


def test_only_the_folder_of_a_dead_agent_counts_as_deserted(tmp_path: Path) -> None:
    # Given the folder of an agent that was killed, and one of an agent that runs
    dies = (
        "import os; from pathlib import Path; from highnoon.workers.node import node_lock\n"
        f"with node_lock(Path({str(tmp_path / 'dead')!r})):\n"
        "    Path('note').write_text('17'); os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", dies], check=False, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)})
    assert (tmp_path / "dead").is_dir()
    with node_lock(tmp_path / "running"):
        # When a third agent looks
        assert dead_nodes(tmp_path) == [tmp_path / "dead"]
    assert {folder.name for folder in dead_nodes(tmp_path)} == {"dead", "running"}


def test_node_that_cannot_begin_on_a_full_disk_leaves_no_folder(tmp_path: Path) -> None:
    begins = (
        "import resource, signal; from pathlib import Path; from highnoon.workers.node import node_lock\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        f"with node_lock(Path({str(tmp_path / 'full')!r})): pass\n"
    )
    environ = {"PYTHONPATH": ":".join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", begins], check=False, cwd=tmp_path, env=environ, capture_output=True)
    assert b"OSError" in done.stderr and not [*tmp_path.iterdir()]


def test_node_of_another_machine_counts_only_after_a_week_since_its_lock_may_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the folder of an agent of another machine, whose lock looks free here as on a disk with local locks
    monkeypatch.setattr(node, "_machine", lambda: {"node-7", "another-boot"})
    with node_lock(tmp_path / "elsewhere"):
        (tmp_path / "elsewhere" / "health").touch()
    monkeypatch.undo()
    assert dead_nodes(tmp_path) == []
    for path in (*(tmp_path / "elsewhere").iterdir(), tmp_path / "elsewhere"):
        os.utime(path, (0, 0))
    assert dead_nodes(tmp_path) == [tmp_path / "elsewhere"]

    # And one of this machine, before it was started again
    monkeypatch.setattr(node, "_machine", lambda: {socket.gethostname(), "another-boot"})
    with node_lock(tmp_path / "before"):
        pass
    monkeypatch.undo()
    assert tmp_path / "before" in dead_nodes(tmp_path)


def test_no_variable_that_holds_a_secret_reaches_a_trial() -> None:
    secrets = {*SECRETS, "webui_tokens", "webui_viewer_token", "token", "flower_password", "webui_tokens_file"}
    environ = {f"HIGHNOON_{name.upper()}": "secret" for name in secrets} | {"PGPASSWORD": "secret", "PATH": "/bin"}
    assert without_secrets(environ) == {"PATH": "/bin"}


def test_pool_is_given_the_whole_node_by_its_pipe(tmp_path: Path) -> None:
    secret = "s3cret-of-16-characters"
    settings = Settings(home=tmp_path, redis_url=f"redis://:{secret}@h", cluster_key=secret, objectives=("*",))
    confinement = Confinement(paths=("/data",), ports=(80,), denied=(str(tmp_path),))
    sent = Node(slots=2, resources=("gpu",), settings=settings, gpus=("GPU-0", "GPU-1"), confinement=confinement)
    assert Node.from_json(sent.to_json()) == sent
    for damaged in (sent.to_json()[:-1], sent.to_json().replace("redis://", "")):
        with pytest.raises(ValueError) as refused:
            Node.from_json(damaged)
        assert secret not in str(refused.value)


def test_order_to_drain_holds_while_its_file_cannot_be_read_or_written(tmp_path: Path) -> None:
    # Given an order on a network disk that gives errors: here a folder is in the place of its file
    order = DrainOrder(tmp_path / "drain")
    order.give(allowed_s=0.0)
    assert order.is_due()
    order.path.unlink()
    order.path.mkdir()
    assert order.is_given() and order.is_due()
    another = DrainOrder(order.path)
    assert not another.is_given(), "none was read before"
    with pytest.raises(IsADirectoryError):
        another.give(allowed_s=60.0)
    assert another.is_given() and not another.is_due()


def test_home_that_cannot_be_read_is_trouble_of_the_disk(settings: Settings, tmp_path: Path) -> None:
    home = tmp_path / ("too long a name" * 20)
    node = Node(slots=1, resources=("cpu",), settings=settings.model_copy(update={"home": home}))
    assert "cannot be written" in (disk_trouble(*node.written_folders) or "")


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert dead_nodes(tmp_path) == dead_nodes(tmp_path / "nowhere") == []


@pytest.mark.parametrize("version", [1, 2])
def test_usable_cores_are_those_of_the_least_quota_of_a_group_or_one_above(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int
) -> None:
    machine = KernelTree(tmp_path).with_cgroup(os.getpid(), version, "/pod/box", limit=None, usage=1)
    machine.with_group(version, "/pod", limit=None, usage=1)
    folder = f"{MOUNT}/cpu" if version == 1 else MOUNT

    def quota(group: str, quota: int | None, period: int = 100_000) -> None:
        if version == 1:
            machine.write(f"{folder}{group}/cpu.cfs_quota_us", f"{-1 if quota is None else quota}\n")
            machine.write(f"{folder}{group}/cpu.cfs_period_us", f"{period}\n")
        else:
            machine.write(f"{folder}{group}/cpu.max", f"{'max' if quota is None else quota} {period}\n")

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    found = [usable_cores(KernelFiles(tmp_path))]
    for own, above in ((None, None), (800_000, None), (400_000, None), (400_000, 250_000), (5_000, 250_000)):
        quota("/pod/box", own)
        quota("/pod", above)
        found.append(usable_cores(KernelFiles(tmp_path)))
    assert found == [6, 6, 6, 4, 3, 1]


def test_slots_and_their_threads_go_by_the_cores_that_the_node_may_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given a batch job or a container with six cores of a machine of 64
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for module in (cli, node):
        monkeypatch.setattr(module, "usable_cores", lambda: 6)
    made: list[int] = []

    class Started:
        def __init__(self, node: Node, *, until_idle: bool) -> None:
            made.append(node.slots)

        def run(self) -> int:
            return 0

    monkeypatch.setattr(cli, "Agent", Started)
    environ = {"DATABASE_URL": "postgresql://u:p@h/d", "REDIS_URL": "redis://h", "OBJECTIVES": "*", "HOME": tmp_path}
    for name, value in environ.items():
        monkeypatch.setenv(f"HIGHNOON_{name}", str(value))
    assert CliRunner().invoke(cli.app, ["start"]).exit_code == 0
    assert made == [3]
    assert threads_per_slot(3) == 2


def test_pool_that_cannot_be_killed_does_not_block_its_agent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that SIGKILL does not end, as one in state D
    keeper = PoolKeeper(Node(slots=1, resources=("cpu",), settings=settings))
    monkeypatch.setattr(pool_keeper, "_KILLED_WITHIN_S", 0.05)
    monkeypatch.setattr(pool_keeper.kernel, "kill_group", lambda *_: True)
    with subprocess.Popen(["sleep", "60"], text=True, stdin=subprocess.PIPE) as process:
        keeper._process = process
        # Then the agent goes on
        assert not keeper.kill()
        process.kill()
        process.wait()
        assert keeper.kill()


def test_pool_that_the_machine_has_no_process_for_is_started_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_keeper, "module_command", lambda *_: ["sleep", "60"])
    keeper = PoolKeeper(Node(slots=1, resources=("cpu",), settings=settings))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Given a start that fails, here for want of a descriptor
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert keeper.keep() == os.EX_OSERR
        assert keeper.keep() is None, "not again at once"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert keeper.is_gone and not keeper.is_hopeless(os.EX_OSERR)
    keeper._start_at = 0.0  # some seconds later
    assert keeper.keep() is None and not keeper.is_gone
    assert keeper.kill()


def test_pool_that_ends_before_it_has_read_its_node_is_one_that_died(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_keeper, "module_command", lambda *_: ["false"])
    keeper = PoolKeeper(Node(slots=1, resources=("cpu",), settings=settings))

    def when_it_has_ended(_: Node) -> str:
        os.waitid(os.P_PID, keeper.pid or 0, os.WEXITED | os.WNOWAIT)
        return "{}"

    monkeypatch.setattr(Node, "to_json", when_it_has_ended)
    assert [keeper.keep(), keeper.keep()] == [None, 1]
