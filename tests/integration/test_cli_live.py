"""Commands that watch what runs now: a study in a terminal and in a pipe, a log as it grows, a node that is drained.

One coordinator and one node serve all of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from highnoon.coordinator.cli.failures import notes
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.terminal import Exit
from tests.cluster import PERIODS, Cluster, running_cluster
from tests.command import Terminal, caller, plain
from tests.conftest import new_stack
from tests.ledger import ANNA, Ledger
from tests.support import eventually


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("live")
    with running_cluster(stack, folder, {"TEST_GO_FOLDER": str(folder)}) as cluster:
        yield cluster


def environ(cluster: Cluster) -> dict[str, str]:
    addresses = {"HIGHNOON_DATABASE_URL": cluster.database_url, "HIGHNOON_REDIS_URL": cluster.redis_url}
    return {**PERIODS, **addresses, "HIGHNOON_HOME": str(cluster.folder / "home")}


def wait_until_running(cluster: Cluster, name: str, count: int) -> None:
    with cluster.books() as books:
        study = books.studies.get(name)
        eventually(lambda: books.studies.counts(study.id).running == count, 60, what=f"{count} trials run")


def following(cluster: Cluster, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator", *arguments],
        env={**os.environ, **environ(cluster)},
        cwd=cluster.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reads_a_log(process: subprocess.Popen[str]) -> bool:
    return any(file.resolve().suffix == ".log" for file in Path(f"/proc/{process.pid}/fd").iterdir())


def test_a_study_and_a_log_are_watched_to_their_end(cluster: Cluster) -> None:
    # Given a study whose two trials run until the test lets them end
    name = cluster.submit_here("patient_by_study", 2, name="watched")
    wait_until_running(cluster, name, 2)

    # When one person watches it, another one follows a log, and a program waits for its end
    board = Terminal("watch", folder=cluster.folder, **environ(cluster))
    log = following(cluster, "logs", name, "0", "-f")
    program = following(cluster, "logs", name, "0", "-f", "--json")
    board.read_until("2 of 2 slots busy")
    assert log.stdout is not None
    first = log.stdout.readline()
    eventually(lambda: reads_a_log(program), 60, what="the program reads the log")
    (cluster.folder / name).touch()

    # Then all see it happen, and end with it
    assert board.read_to_the_end() == Exit.OK
    out, err = log.communicate(timeout=200)
    assert log.returncode == Exit.OK, err
    shown = plain(board.shown)
    assert re.search(r"slot +trial +attempt +step +memory +runs for", shown)
    assert "Best trial" in shown and "Traceback" not in shown
    assert first == "waiting\n" and out == ""
    assert re.match(r"trial 0, attempt 1 on host \S+: completed\n", err)
    out, err = program.communicate(timeout=200)
    result = json.loads(out)
    assert (result["ending"], result["lines"], err) == ("completed", ["waiting"], "")


def test_a_pipe_gets_lines_and_programs_get_objects(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys)
    name = cluster.submit_here("good", 3, name="piped")
    answer = call("watch", name, **environ(cluster))
    assert answer.code == Exit.OK, answer.err
    assert "piped  3/3  best" in answer.out and "Best trial" in answer.out and "\x1b" not in answer.out

    result = [json.loads(line) for line in call("watch", name, "--json").out.splitlines()]
    assert result[-1]["state"] == "finished" and result[-1]["closed"] == 3

    nothing = call("watch")
    assert nothing.code == Exit.USER_INPUT and "no study runs now. Name one that is over: " in nothing.err


def test_a_start_whose_every_trial_fails_says_why(cluster: Cluster) -> None:
    start = following(cluster, "start", str(cluster.write("raises", 3, name="hopeless")))
    said = "".join(start.communicate(timeout=200))
    assert start.returncode == Exit.NO_RESULT, said
    assert re.search(r"^hopeless  3/3  best -  0 running  0 pruned  3 failed", said, re.MULTILINE)
    assert "3 attempts failed, by cause:\n  3 x exception: ZeroDivisionError: division by zero (trial " in said
    assert "study hopeless is finished without a completed trial" in said
    assert re.search(rf"^trial \d, attempt 1 on host {re.escape(os.uname().nodename)}: failed$", said, re.MULTILINE)
    assert "    return 1 / 0\n" in said
    log = re.search(r"^log (\S+), its last lines:\n  \| about to divide$", said, re.MULTILINE)
    assert log and (cluster.folder / log[1]).read_text() == "about to divide\n"
    with cluster.books() as books:
        books.assert_balanced("hopeless", 3)
        shown = list(notes(books.attempts("hopeless")).values())
    assert shown == ["exception: ZeroDivisionError: division by zero"] * 3
    start = following(cluster, "start", str(cluster.write("raises", 4, name="hopeless")))
    assert "\n1 attempt failed, by cause:\n  1 x exception" in "".join(start.communicate(timeout=200))


def test_ctrl_c_leaves_and_the_study_goes_on(cluster: Cluster) -> None:
    name = cluster.submit_here("patient_by_study", 1, name="left")
    wait_until_running(cluster, name, 1)
    board = Terminal("watch", name, folder=cluster.folder, **environ(cluster))
    board.read_until("1 of 2 slots busy")
    board.process.send_signal(signal.SIGINT)
    assert board.read_to_the_end() == Exit.INTERRUPTED
    assert plain(board.shown).rstrip().endswith("left; study left goes on")
    (cluster.folder / name).touch()
    with cluster.books() as books:
        assert books.wait_until_over(name).stop_reason == "n_trials"


def test_a_drained_node_ends(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys)
    (node,) = json.loads(call("workers", "--json", **environ(cluster)).out)
    assert "drains: 0 trials run there" in call("drain", node["id"][:6]).out
    worker = cluster.processes[-1]
    assert worker.wait(timeout=120) == Exit.OK
    assert call("workers").out == "no worker is there; python -m workers start --slots 2 starts one\n"


def test_watch_is_refused_while_no_coordinator_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(monkeypatch, capsys)
    answer = call("watch", "digits", HIGHNOON_HOME=str(tmp_path / "home"))
    assert answer.code == Exit.USER_INPUT and "nothing was started there yet" in answer.err


def test_commands_that_wait_end_with_the_coordinator_of_their_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with new_stack() as stack:
        # Given a trial that runs, and a person who waits for a study
        with closing(Ledger(stack.database_url)) as ledger:
            (tmp_path / "log").write_text("epoch 1\n")
            ledger.start(ledger.tickets(ledger.study())[0], replace(ANNA, host=socket.gethostname()))
        here = Cluster("", "", tmp_path)
        (tmp_path / "home").symlink_to(stack.home.root)
        waiting = following(here, "submit", str(here.write("good", 1, name="waits")), "--wait")
        assert waiting.stdout is not None
        assert [waiting.stdout.readline() for _ in range(2)][1].startswith("waits  0/1  nothing runs yet")

        # When the coordinator ends, so that nothing gives the trial an ending
        stack.stop()

        # Then the wait ends, and a command that would follow the trial shows what there is and ends as well
        err = waiting.communicate(timeout=200)[1]
        assert waiting.returncode == Exit.SERVICE and "error: no coordinator runs in " in err
        monkeypatch.chdir(tmp_path)
        answer = caller(monkeypatch, capsys)("logs", "digits", "0", "-f", **environ(here))
        assert answer.code == Exit.SERVICE and "error: no coordinator runs in " in answer.err
        assert answer.out == "epoch 1\n"
