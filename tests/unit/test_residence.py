"""The folder of a node belongs to its agent while that lives, and to nobody afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from highnoon.workers.node_lock import resident, sweep_deserted


def test_the_folder_of_a_living_agent_stays_and_that_of_a_dead_one_goes(tmp_path: Path) -> None:
    # Given the folder of an agent that was killed, and that of another which lives
    dies = (
        "import os; from pathlib import Path; from highnoon.workers.node_lock import resident\n"
        f"with resident(Path({str(tmp_path / 'dead')!r})):\n"
        "    Path('note').write_text('17'); os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", dies], check=False, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)})
    assert (tmp_path / "dead").is_dir()
    with resident(tmp_path / "living"):
        # When a third one sweeps
        assert sweep_deserted(tmp_path) == 1
        # Then only the living one has its folder
        assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"living"}
    assert sweep_deserted(tmp_path) == 1


def test_what_is_no_folder_of_an_agent_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert sweep_deserted(tmp_path) == 0 and (tmp_path / "notes").is_dir()
    assert sweep_deserted(tmp_path / "nowhere") == 0
