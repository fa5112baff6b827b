"""A cluster for tests: real coordinator and worker processes on given addresses, and what a test asks of the books."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Connection, select

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import TicketState, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Trial
from highnoon.shared.objective.study_file import build_spec
from highnoon.shared.runtime.processes import die_with_parent, identify
from highnoon.shared.runtime.settings import PREFIX, Settings
from highnoon.shared.store.access import opened
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.database import Database
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.schema import tickets
from highnoon.shared.store.studies import Studies
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import submit
from highnoon.workers.slot_state import SlotStates
from tests.command import answer_to
from tests.conftest import empty_database
from tests.support import WITH_DEFAULT_LEASE, eventually

HERE = Path(__file__).parent
_SHORT = {
    "HIGHNOON_LEASE_S": "3",
    "HIGHNOON_RENEW_S": "0.5",
    "HIGHNOON_PRESENCE_S": "0.5",
    "HIGHNOON_TICK_S": "0.2",
    "HIGHNOON_LEADER_TTL_S": "1",
    "HIGHNOON_KILL_GRACE_S": "0.5",
    "HIGHNOON_DRAIN_S": "5",
}
DEFAULT_PERIODS = {name: str(Settings.model_fields[name.removeprefix(PREFIX).lower()].default) for name in _SHORT}
"""Of a user who sets none."""

PERIODS = {
    **(DEFAULT_PERIODS if WITH_DEFAULT_LEASE else _SHORT),
    "HIGHNOON_PRELOAD": "",
    "HIGHNOON_OBJECTIVES": "*",
}


@dataclass
class Cluster:
    """One database, one Redis, and the processes that a test starts and kills."""

    database_url: str
    redis_url: str
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_coordinator(self) -> subprocess.Popen[bytes]:
        return self._start("coordinator", "start")

    def start_worker(self, *, slots: int = 2, **environ: str) -> subprocess.Popen[bytes]:
        return self._start("workers", "start", "--queues", "cpu", "--slots", str(slots), **environ)

    def start_gpu_worker(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        return self._start("workers", "start", "--gpus", *arguments, **environ)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `coordinator` command, to its end, in this process: it need not be started."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._environ().items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            answer = answer_to(*arguments)
        return subprocess.CompletedProcess(arguments, answer.code, answer.out, answer.err)

    def study(self, objective: str, n_trials: int, *, name: str, **keys: Any) -> dict[str, Any]:
        """A study as a person would write it; a bare objective is one of tests/objectives.py."""
        return {
            "name": name,
            "n_trials": n_trials,
            "objective": objective if ":" in objective else f"objectives.py:{objective}",
            "code_dir": str(HERE),
            "sampler": "random",
            "seed": 1,
            "search_space": {"x": ["uniform", -5.0, 5.0]},
            **keys,
        }

    def submit(self, objective: str, n_trials: int, *, name: str = "study", **keys: Any) -> str:
        """Writes a study file and submits it by the command line; returns the study's name."""
        done = self.cli("submit", str(self.write(objective, n_trials, name=name, **keys)))
        assert done.returncode == 0, done.stderr
        return name

    def write(self, objective: str, n_trials: int, *, name: str = "study", **keys: Any) -> Path:
        """A study file."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(self.study(objective, n_trials, name=name, **keys)))
        return path

    def submit_here(self, objective: str, n_trials: int, *, name: str, **keys: Any) -> str:
        """As `submit`, without a study file and a command."""
        spec = build_spec(self.study(objective, n_trials, name=name, **keys), source=name)
        with opened(self.database_url, create=True) as access:
            submit(spec, access)
        return name

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """`kill -9` of a process and of everything in its group; what it forked elsewhere must follow by itself."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def slots(self) -> list[dict[str, Any]]:
        """The states of all slots that run a trial now, as the agents would read them."""
        found = []
        homes = [self.folder / "home", *(self.folder / "home").glob("node-*")]
        for folder in (slots for home in homes for slots in home.glob("nodes/*/slots")):
            running = [state for state in SlotStates(folder.parent).states() if state.trial_group is not None]
            found += [asdict(state) for state in running if identify(state.pid) is not None]
        return found

    @contextmanager
    def books(self) -> Iterator[Books]:
        """Reading access to ledger and Optuna."""
        database = Database(self.database_url)
        store = OptunaStore(self.database_url)
        try:
            yield Books(database, store)
        finally:
            store.close()
            database.close()

    def latest(self, module: str) -> subprocess.Popen[bytes]:
        """The process of `coordinator` or `workers` that was started last."""
        return [process for process in self.processes if module in process.args][-1]  # type: ignore[operator]

    def stop(self) -> None:
        """Ends whatever still runs."""
        for process in self.processes:
            if process.poll() is None:
                self.kill(process)

    def logs(self) -> str:
        """What the processes said, for the message of a failed test."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-4000:]}" for path in self.folder.glob("*.log"))

    def _start(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{arguments[0]}-{len(self.processes)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env={**self._environ(), **environ},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=die_with_parent,  # also when the tests are killed
            )
        self.processes.append(process)
        return process

    def _environ(self) -> dict[str, str]:
        return {
            **os.environ,
            **PERIODS,
            "HIGHNOON_DATABASE_URL": self.database_url,
            "HIGHNOON_REDIS_URL": self.redis_url,
            "HIGHNOON_HOME": str(self.folder / "home"),
            **self.environ,
        }


@contextmanager
def running_cluster(
    stack: Stack, folder: Path, environ: Mapping[str, str] | None = None, *, slots: int = 2
) -> Iterator[Cluster]:
    """One for many tests, on a new database and an empty Redis: a coordinator, and a node unless `slots` is 0."""
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()
    with empty_database(stack) as url:
        cluster = Cluster(url, stack.redis_url, folder, environ or {})
        try:
            with opened(url, create=True):
                cluster.start_coordinator()
                if slots:
                    cluster.start_worker(slots=slots)
            yield cluster
        finally:
            cluster.stop()
            print(cluster.logs())


class Books:
    """Ledger and Optuna side by side."""

    def __init__(self, database: Database, store: OptunaStore) -> None:
        self._database = database
        self._store = store
        self.studies = Studies(database)
        self.nodes = Nodes(database)

    def transaction(self) -> AbstractContextManager[Connection]:
        """For what a test asks of the tables themselves."""
        return self._database.transaction()

    def wait_until_over(self, name: str, timeout_s: float = 90.0) -> StudyRecord:
        eventually(lambda: self.studies.get(name).is_over, timeout_s, what=f"study {name} is over")
        return self.studies.get(name)

    def attempts(self, name: str) -> list[AttemptRecord]:
        return self.studies.attempts(self.studies.get(name).id)

    def closed(self, name: str) -> int:
        return self.studies.counts(self.studies.get(name).id).closed

    def trials(self, name: str) -> list[Trial]:
        return self._store.open(StudySpec.from_json(self.studies.get(name).spec)).trials()

    def assert_balanced(self, name: str, n_trials: int) -> None:
        """Every ticket closed once, every counted trial of one ticket, no trial running: the end of each story."""
        record = self.studies.get(name)
        with self._database.transaction() as connection:
            rows = connection.execute(
                select(tickets.c.id, tickets.c.state, tickets.c.trial_number, tickets.c.value).where(
                    tickets.c.study_id == record.id
                )
            ).all()
        trials = {trial.number: trial for trial in self.trials(name)}
        assert [row.state for row in rows] == [TicketState.CLOSED] * n_trials
        numbers = [row.trial_number for row in rows]
        assert len(set(numbers)) == n_trials, "two tickets counted the same trial"
        states = Counter(trial.state for trial in trials.values())
        assert not states[TrialState.RUNNING] and not states[TrialState.WAITING], states
        for row in rows:
            assert trials[row.trial_number].value == row.value
            assert trials[row.trial_number].attrs["highnoon:ticket"] == row.id
        beside = set(trials) - set(numbers)
        assert all(trials[number].state is TrialState.FAIL for number in beside), "a lost attempt was counted"
