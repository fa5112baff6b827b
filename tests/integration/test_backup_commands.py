"""The commands backup, restore and audit: to a file, into an empty database and into a new home.

What makes something is a process, as a person starts it; what only reads or is refused runs in this one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.terminal import Exit
from highnoon.shared.store.access import opened
from tests.command import Answer, answer_to
from tests.conftest import empty_database
from tests.made_up import make_study


def test_a_study_goes_to_a_file_and_into_an_empty_database_and_a_new_home(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIGHNOON_HOME", str(tmp_path / "home"))

    def here(*arguments: str, database: str | None = None) -> Answer:
        with monkeypatch.context() as patch:
            if database:
                patch.setenv("HIGHNOON_DATABASE_URL", database)
            return answer_to(*arguments)

    def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("HIGHNOON_")}
        command = [sys.executable, "-m", "coordinator", *arguments]
        variables = {**ours, "HIGHNOON_HOME": str(tmp_path / "home"), **environ}
        return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=240, check=False)

    file = str(tmp_path / "digits.jsonl")
    with empty_database(stack) as url, empty_database(stack) as empty:
        make_study(url, "digits", n_trials=60, done=50, running=3)

        written = call("backup", "digits", "-o", file, HIGHNOON_DATABASE_URL=url)
        assert written.returncode == Exit.OK, written.stderr
        assert re.match(rf"wrote {re.escape(file)}: study digits, 53 trials and 53 attempts, \d+ kB", written.stdout)
        assert here("backup", "dgits", database=url).code == Exit.USER_INPUT

        read = call("restore", file, HIGHNOON_DATABASE_URL=empty)
        assert (read.returncode, read.stdout[:28]) == (Exit.OK, "study digits is running again"[:28]), read.stderr
        with opened(empty) as access:
            counts = access.studies.counts(access.studies.get("digits").id)
            assert (counts.closed, counts.running, counts.total) == (50, 0, 60)

        again = here("restore", file, database=empty)
        assert again.code == Exit.USER_INPUT and "a study named 'digits' exists" in again.err

        entries = json.loads(here("audit", "digits", "--json", database=url).out)
        assert [entry["action"] for entry in entries] == ["create", "backup"]
        assert (entries[1]["via"], entries[1]["details"]) == ("command line", {"trials": 53})
        shown = here("audit", database=empty).out.splitlines()
        assert len(shown) == 2 and "restore  digits  of=digits" in shown[1] and "@" in shown[1]

    # A file that is cut off makes no database; a whole one makes it
    (tmp_path / "cut.jsonl").write_bytes(Path(file).read_bytes()[:-100])
    cut = here("restore", str(tmp_path / "cut.jsonl"))
    assert cut.code == Exit.USER_INPUT
    assert "Nothing was changed" in cut.err and not (tmp_path / "home").exists()
    assert here("restore", str(tmp_path / "gone.jsonl")).code == Exit.USER_INPUT
    new = call("restore", file, "--as", "again")
    assert new.returncode == Exit.OK, new.stderr
    assert "again" in here("list").out
