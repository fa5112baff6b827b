"""The folder of a node is locked while its agent runs, and removed by another agent afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from highnoon.shared.runtime.settings import SECRETS, Settings
from highnoon.workers import pool_keeper
from highnoon.workers.node import Node, dead_nodes, node_lock, without_secrets
from highnoon.workers.pool_keeper import PoolKeeper


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


def test_no_variable_that_holds_a_secret_reaches_a_trial() -> None:
    secrets = {*SECRETS, "webui_tokens", "webui_viewer_token", "token", "flower_password", "webui_tokens_file"}
    environ = {f"HIGHNOON_{name.upper()}": "secret" for name in secrets} | {"PGPASSWORD": "secret", "PATH": "/bin"}
    assert without_secrets(environ) == {"PATH": "/bin"}


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert dead_nodes(tmp_path) == dead_nodes(tmp_path / "nowhere") == []


def test_pool_that_cannot_be_killed_does_not_block_its_agent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that SIGKILL does not end, as one in state D
    keeper = PoolKeeper(Node.boot(slots=1, resources=("cpu",), settings=settings))
    monkeypatch.setattr(pool_keeper, "_KILLED_WITHIN_S", 0.05)
    monkeypatch.setattr(pool_keeper.kernel, "kill_group", lambda *_: True)
    with subprocess.Popen(["sleep", "60"], text=True, stdin=subprocess.PIPE) as process:
        keeper._process = process
        # Then the agent goes on
        assert not keeper.kill()
        process.kill()
        process.wait()
        assert keeper.kill()
