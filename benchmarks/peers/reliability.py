"""What is left of a study whose workers are killed: `python -m benchmarks.peers.reliability [--json FILE]`.

40 trials of a second and a half, two at a time, on one PostgreSQL and one Redis. Every four seconds the process that
works on a trial gets SIGKILL, five times. Then, from Optuna's tables alone: trials that completed, trials that stay
RUNNING, and how long the point of a killed trial waited until it was begun again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.peers.peer import NAME
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.store.access import Access, opened

HERE = Path(__file__).parent
N_TRIALS, KILLS, EVERY_S, SLOTS = 40, 5, 4.0, 2
_LONGEST_S = 180.0
_QUIET_S = 15.0
"""Without a change for so long, a study that has no end of its own is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One way to run it, and what came of it."""

    way: str
    completed: int
    still_running: int
    killed: int
    begun_again: int
    seconds_until_begun_again: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Way:
    """How a study is run: processes, each started again a second after it died, and who works on a trial."""

    name: str
    commands: list[list[str]]
    holder: Callable[[Access, FrozenTrial], int | None]


def by_attribute(_access: Access, trial: FrozenTrial) -> int | None:
    """As the trial wrote it down itself."""
    return trial.user_attrs.get("pid")


def by_attempt(access: Access, trial: FrozenTrial) -> int | None:
    """The supervisor, as the ledger has it."""
    found = access.studies.attempts(access.study(NAME).id, trial_number=trial.number)
    return found[-1].pid if found and found[-1].ended_at is None else None


PYTHON = sys.executable
WAYS = {
    "optimize": Way(
        "Optuna optimize, heartbeat 2 s", [[PYTHON, "-m", "benchmarks.peers.peer", str(N_TRIALS)]] * SLOTS, by_attribute
    ),
    "celery": Way(
        "Optuna ask/tell in Celery",
        [[PYTHON, "-m", "celery", "-A", "benchmarks.peers.peer", "worker", "--concurrency", str(SLOTS), "-l", "ERROR"]],
        by_attribute,
    ),
    "highnoon": Way(
        "HighNoon",
        [[PYTHON, "-m", "coordinator", "start"], [PYTHON, "-m", "workers", "start", "--slots", str(SLOTS)]],
        by_attempt,
    ),
}


def run(way: Way, stack: Stack, folder: Path) -> Cell:
    """One cell: a new study, the kills, the books."""
    url = stack.database_url
    environ = {
        **os.environ,
        "PEERS_DATABASE_URL": url,
        "PEERS_REDIS_URL": stack.redis_url,
        "HIGHNOON_DATABASE_URL": url,
        "HIGHNOON_REDIS_URL": stack.redis_url,
        "HIGHNOON_HOME": str(folder),
        "HIGHNOON_OBJECTIVES": f"{HERE}/*.py",
        "HIGHNOON_PRELOAD": "",
    }
    with opened(url, create=True) as access:
        submit(way, environ, url, folder)
        began = time.time()
        killed: dict[int, float] = {}
        with kept_running(way.commands, environ, folder) as keep:
            kill_at, changed_at, before = 0.0, time.time(), ""
            while time.time() - began < _LONGEST_S and time.time() - changed_at < _QUIET_S:
                trials = optuna.load_study(study_name=NAME, storage=url).get_trials(deepcopy=False)
                states = " ".join(str(trial.state.value) for trial in trials)
                if states != before or not trials:
                    changed_at, before = time.time(), states
                done = sum(trial.state is TrialState.COMPLETE for trial in trials)
                running = [trial for trial in trials if trial.state is TrialState.RUNNING]
                if done >= N_TRIALS and not running:
                    break
                kill_at = kill_at or (time.time() if done >= 2 else 0.0)
                if kill_at and len(killed) < KILLS and time.time() >= kill_at:
                    number = kill_one(way, access, [trial for trial in running if trial.number not in killed])
                    if number is not None:
                        killed[number], kill_at = time.time(), time.time() + EVERY_S
                keep()
                time.sleep(0.2)
    return books(way, optuna.load_study(study_name=NAME, storage=url).get_trials(), killed, changed_at - began)


def submit(way: Way, environ: dict[str, str], url: str, folder: Path) -> None:
    """The study, and what starts its trials."""
    if way is WAYS["highnoon"]:
        spec = {
            "name": NAME,
            "objective": f"{HERE}/objective.py:train",
            "n_trials": N_TRIALS,
            "search_space": {"x": ["uniform", 0.0, 1.0]},
        }
        (folder / "study.json").write_text(json.dumps(spec))
        command = [PYTHON, "-m", "coordinator", "submit", str(folder / "study.json")]
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
        return
    optuna.create_study(study_name=NAME, storage=url)
    if way is WAYS["celery"]:
        code = f"from benchmarks.peers.peer import ask_and_tell\nfor _ in range({N_TRIALS}): ask_and_tell.delay()"
        subprocess.run([PYTHON, "-c", code], env=environ, check=True)


def kill_one(way: Way, access: Access, running: list[FrozenTrial]) -> int | None:
    """Ends a process that works on a trial; returns the trial's number."""
    for trial in running:
        pid = way.holder(access, trial)
        if pid is not None and "x" in trial.params:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return trial.number
    return None


@contextmanager
def kept_running(commands: list[list[str]], environ: dict[str, str], folder: Path) -> Iterator[Callable[[], None]]:
    """Processes that are started again when they were killed, as systemd would, until the end."""
    log = (folder / "log").open("wb")

    def started(command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    processes = [started(command) for command in commands]

    def keep() -> None:
        for place, process in enumerate(processes):
            if process.poll() is not None and process.returncode < 0:
                processes[place] = started(commands[place])

    try:
        yield keep
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
        log.close()


def books(way: Way, trials: list[FrozenTrial], killed: dict[int, float], seconds: float) -> Cell:
    """From Optuna's tables alone. A trial is begun again by a later one at the same point."""
    delays = []
    for number, when in killed.items():
        later = [
            trial.datetime_start.timestamp() - when
            for trial in trials[number + 1 :]
            if trial.params == trials[number].params and trial.datetime_start is not None
        ]
        delays += later[:1]
    return Cell(
        way=way.name,
        completed=sum(trial.state is TrialState.COMPLETE for trial in trials),
        still_running=sum(trial.state is TrialState.RUNNING for trial in trials),
        killed=len(killed),
        begun_again=len(delays),
        seconds_until_begun_again=round(statistics.median(delays), 1) if delays else None,
        seconds=round(seconds, 1),
    )


def main() -> None:
    """Runs the cells one after the other and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", choices=[*WAYS, []], default=list(WAYS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cells = []
    for name in arguments.ways:
        with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "stack") as stack:
            cells.append(run(WAYS[name], stack, Path(folder)))
            print(cells[-1], flush=True)
    print("| Way | completed of 40 | still RUNNING | killed | begun again | after (median) | took |")
    print("|---|---|---|---|---|---|---|")
    for cell in cells:
        after = "-" if cell.seconds_until_begun_again is None else f"{cell.seconds_until_begun_again} s"
        row = (cell.way, cell.completed, cell.still_running, cell.killed, cell.begun_again, after, f"{cell.seconds} s")
        print(f"| {' | '.join(map(str, row))} |")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=2))


if __name__ == "__main__":
    main()
