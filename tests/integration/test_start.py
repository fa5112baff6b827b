"""`coordinator start` on one machine: to the end, again, extended, interrupted and killed.

All stories share one home, as a person's would; each has a study of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from highnoon.coordinator.local.local_processes import USER
from highnoon.coordinator.local.stack import Stack, serving_database
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.runtime.data_dir import Home
from highnoon.shared.runtime.terminal import Exit
from highnoon.shared.store.database import Database
from highnoon.shared.store.optuna_store import OptunaStore
from tests.cluster import HERE, PERIODS, Books
from tests.command import caller
from tests.support import eventually

_DATATABLE = (
    "/tasks/datatable?draw=1&start=0&length=9&search[value]=&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"
)


@dataclass(frozen=True)
class Place:
    """A folder with a home, in which a person works."""

    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / ".highnoon"

    @property
    def go(self) -> Path:
        """The file that lets `patient` trials end."""
        return self.folder / "go"

    def study(self, name: str, objective: str, n_trials: int) -> str:
        """Writes a study file; returns its name in this folder."""
        spec = {
            "name": name,
            "n_trials": n_trials,
            "objective": f"objectives.py:{objective}",
            "code_dir": str(HERE),
            "sampler": "random",
            "search_space": {"x": ["uniform", -5.0, 5.0]},
        }
        (self.folder / f"{name}.json").write_text(json.dumps(spec))
        return f"{name}.json"

    def begin(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """A command under way; its output goes to a file, which `said` reads."""
        with (self.folder / "said").open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "coordinator", *arguments],
                env={**os.environ, **PERIODS, "HIGHNOON_DRAIN_S": "1", "TEST_GO_FILE": str(self.go), **environ},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.processes.append(process)
        return process

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def run(self, *arguments: str, expect: Exit = Exit.OK, **environ: str) -> str:
        """A command to its end, which is the expected one; returns what it said."""
        code = self.begin(*arguments, **environ).wait(timeout=200)
        assert code == expect, self.said()
        return self.said()

    @contextmanager
    def books(self) -> Iterator[Books]:
        with serving_database(self.home) as url:
            database, store = Database(url), OptunaStore(url)
            try:
                yield Books(database, store)
            finally:
                store.close()
                database.close()

    def assert_balanced(self, name: str, n_trials: int) -> None:
        with self.books() as books:
            books.assert_balanced(name, n_trials)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="highnoon-start-"))
    folder.chmod(0o711)  # for the account of root's database
    yield Place(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _home_is_free_afterwards(place: Place) -> Iterator[None]:
    """Also after a test that failed."""
    yield
    for process in place.processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def finished(place: Place) -> str:
    """What `start` said of a study of four trials that went well."""
    return place.run("start", place.study("tiny", "good", 4), "--workers", "2")


def test_a_study_runs_to_its_end_and_says_where_everything_is(place: Place, finished: str) -> None:
    login = re.search(r"^flower +http://127\.0\.0\.1:\d+\n +user highnoon, password (\S{40,})$", finished, re.MULTILINE)
    assert login and (place.home / "flower-password").read_text() == f"{login[1]}\n"
    assert (place.home / "flower-password").stat().st_mode & 0o777 == 0o600
    assert "\nworkers    2 slots, log .highnoon/logs/worker.log\n" in finished
    assert "\nstudy      tiny, 4 trials\n" in finished
    assert "\ntiny  4/4  best " in finished
    best = re.search(r"^Best trial (\d+) of 4: value (\S+)\nx  (\S+)\nIts last line: x = ", finished, re.MULTILINE)
    assert best and float(best[2]) == pytest.approx((float(best[3]) - 2.0) ** 2, rel=1e-3, abs=1e-8)
    logs = re.search(r"^logs +(\S+)$", finished, re.MULTILINE)
    assert logs and len(list(place.folder.glob(logs[1]))) == 4
    place.assert_balanced("tiny", 4)


def test_a_finished_study_is_not_run_again_and_more_trials_extend_it(place: Place, finished: str) -> None:
    # By a coordinator alone: a finished study needs no node.
    with Stack(place.home) as stack:
        addresses = {"HIGHNOON_DATABASE_URL": stack.database_url, "HIGHNOON_REDIS_URL": stack.redis_url}
        again = place.run("start", "tiny.json", **addresses)
    assert "study      tiny, 4 trials (goes on: 4 done, 0 added)" in again
    assert re.findall(r"^Best trial.*$", again, re.MULTILINE) == re.findall(r"^Best trial.*$", finished, re.MULTILINE)
    place.assert_balanced("tiny", 4)

    more = place.run("start", "tiny.json", "--workers", "2", "--n-trials", "6")
    assert "study      tiny, 6 trials (goes on: 4 done, 2 added)" in more
    assert "of 6: value" in more
    place.assert_balanced("tiny", 6)

    with place.books() as books:
        assert len(books.trials("tiny")) == 6


def test_every_reading_command_finds_a_study_whose_start_has_ended(
    place: Place, finished: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place.folder)
    call = caller(monkeypatch, capsys)

    (study,) = json.loads(call("list", "--json").out)
    assert (study["name"], study["state"], study["reason"]) == ("tiny", "finished", "n_trials")
    assert json.loads(call("status", "tiny", "--json").out) == study | {"note": ""}
    best = json.loads(call("best", "tiny", "--json").out)
    trials = json.loads(call("trials", "tiny", "--json").out)
    assert best["value"] == min(trial["value"] for trial in trials) == study["best_value"]
    assert trials[best["number"]]["params"] == best["params"]
    lines = call("trials", "tiny").out.splitlines()
    assert len(lines) == 1 + len(trials) and all(line == line.rstrip() for line in lines)
    assert f"  | x = {best['params']['x']}" in call("logs", "tiny", str(best["number"])).out


def test_optunas_own_command_line_reads_the_study(place: Place, finished: str) -> None:
    shown = place.run("exec", "optuna", "trials", "--study-name", "tiny", "--format", "json", PYTHONWARNINGS="ignore")
    trials = json.loads(shown)
    assert len(trials) >= 4 and {trial["state"] for trial in trials} == {"COMPLETE"}


@pytest.mark.timeout(480)  # three starts
def test_ctrl_c_and_kill_9_in_the_middle_and_the_same_command_again(place: Place) -> None:
    # Given a study of six trials whose first two run until the test lets them end
    study = place.study("interrupted", "patient", 6)
    start = place.begin("start", study, "--workers", "2")
    eventually(lambda: "2 running" in place.said(), 60, what="two trials run")
    flower = re.search(r"^flower +(\S+)$", place.said(), re.MULTILINE)
    assert flower
    login = (place.home / "flower-password").read_text().strip()
    assert login not in place.said() and "password in .highnoon/flower-password\n" in place.said(), "shown once"

    dashboard = re.search(r"^dashboard +(\S+)$", place.said(), re.MULTILINE)
    assert dashboard

    # Then the dashboard shows the study, and leads to Flower
    assert "interrupted" in eventually(lambda: fetched(dashboard[1]), 30, what="the dashboard serves")
    assert f'href="{flower[1]}"' in str(fetched(dashboard[1].replace("/hpo", "/hpo/cluster")))

    # And Flower asks for its password, shows our tasks by study and ticket, and permits no changes
    page = eventually(lambda: fetched(flower[1] + "/", login), 30, what="flower serves")
    assert "Flower" in page
    for wrong in ("", "wrong"):
        for path in ("/", "/workers", "/tasks", _DATATABLE, "/broker", "/api/workers", "/api/tasks"):
            assert refusal(flower[1] + path, wrong, method="GET") == 401, path
    tasks = eventually(
        lambda: json.loads(fetched(flower[1] + _DATATABLE, login) or "{}").get("data"), 30, what="tasks are seen"
    )
    assert {task["name"] for task in tasks} == {"highnoon.run_trial"}
    assert all(re.fullmatch(r"interrupted, ticket \d+", task["kwargs"]) for task in tasks)
    assert refusal(f"{flower[1]}/api/worker/shutdown/{tasks[0]['worker']}", login, method="POST") == 403
    seen = [fetched(f"{flower[1]}/{page}", login) for page in ("workers", "broker", f"worker/{tasks[0]['worker']}")]
    assert all(seen)
    password = Home(place.home).load().services["redis"].password
    assert not any(password in str(page) for page in seen)

    # When it is interrupted
    start.send_signal(signal.SIGINT)
    assert start.wait(timeout=120) == Exit.INTERRUPTED, place.said()
    assert "interrupted: the same command goes on" in place.said()

    # Then the running trials were handed back, and nothing was charged for it
    with place.books() as books:
        record = books.studies.get("interrupted")
        assert [attempt.ending for attempt in books.studies.attempts(record.id)] == [Ending.RELEASED] * 2
        assert books.closed("interrupted") == 0
        assert {trial.state for trial in books.trials("interrupted")} == {TrialState.FAIL}
    assert (place.home / "logs" / "flower.log").read_text() == ""
    assert (place.home / "logs" / "dashboard.log").read_text() == f"dashboard  {dashboard[1]}\n"

    # And the same command goes on
    start = place.begin("start", study, "--workers", "2")
    eventually(lambda: "2 running" in place.said(), 60, what="two trials run again")
    assert "study      interrupted, 6 trials (goes on: 0 done, 0 added)" in place.said()
    family = psutil.Process(start.pid).children(recursive=True)
    assert len(family) > 7, "postgres, redis, dashboard, flower, agent, pool, two supervisors, two trials"

    # When that one is killed, and the same command is given once more at once
    start.kill()
    start.wait()
    place.go.touch()
    place.run("start", study, "--workers", "2")

    # Then exactly six are complete, and no process of the killed one is left
    place.assert_balanced("interrupted", 6)
    eventually(lambda: not any(map(is_alive, family)), 20, what="the killed start's processes are gone")


def test_a_worker_that_cannot_live_ends_the_start_with_its_reason(place: Place) -> None:
    study = place.study("unserved", "good", 3)
    said = place.run("start", study, "--workers", "1", expect=Exit.SERVICE, HIGHNOON_PRELOAD="tensorflou")
    assert "error: no trial can run here: the worker ended (4). Its last lines:" in said
    assert "cannot import 'tensorflou'" in said and "HIGHNOON_PRELOAD" in said
    assert "Traceback" not in said


def fetched(url: str, password: str = "") -> str | None:
    """A page that is served with 200; None while it is not."""
    try:
        with urllib.request.urlopen(_request(url, password), timeout=60) as answer:
            assert answer.status == 200
            return str(answer.read().decode())
    except OSError:
        return None


def refusal(url: str, password: str, *, method: str) -> int:
    """The status with which a request is refused."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(_request(url, password, method), timeout=60)
    return int(refused.value.code)


def _request(url: str, password: str, method: str = "GET") -> urllib.request.Request:
    headers = {"Authorization": f"Basic {b64encode(f'{USER}:{password}'.encode()).decode()}"} if password else {}
    return urllib.request.Request(url, method=method, headers=headers)


def is_alive(process: Any) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
