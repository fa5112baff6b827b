"""How a study ends whose processes are killed: `python -m benchmarks.peers.reliability [WAY ...] [--json FILE]`.

40 trials of a second and a half, two at a time. From the third trial on, every few seconds a process gets SIGKILL: five
times the one that works on a trial, or in a second run twice the driver. What died is started again within a second, as
systemd would. The books are what the trainings themselves wrote down, so that all ways have the same.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import optuna
import psutil
from optuna.trial import TrialState

from benchmarks.peers.optuna_reliability import NAME
from benchmarks.peers.training_record import N_TRIALS, RECORD, Line, lines
from benchmarks.peers.ways import WAYS, Run, Way
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.store.access import opened

Victim = Literal["worker", "driver"]

KILLS: Mapping[Victim, tuple[int, float]] = {"worker": (5, 4.0), "driver": (2, 10.0)}
"""How often, and after how many seconds again."""

LONGEST_S = 900.0
_QUIET_S, _BEGINS_WITHIN_S = 90.0, 400.0
"""Without a line for so long, a study that has no end of its own is over; the first line may come later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When it was, and the point of the training that it ended; None where it ended none."""

    at: float
    x: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One way, what was killed, and what came of it."""

    way: str
    killed: Victim
    kills: int
    completed: int
    lost: int
    """Points that were begun and never completed."""
    twice: int
    """Trainings that ended although their point had been completed before."""
    still_running: int | None
    """Trials that stay RUNNING in Optuna's tables."""
    processes_left: int
    seconds_until_begun_again: list[float]
    """Until the point of a training that a kill has ended was begun again; of a driver, until any training began."""
    seconds: float
    load: float


@dataclass
class WatchedRun:
    """A run under way, with the kills so far."""

    way: Way
    run: Run
    victim: Victim
    processes: list[subprocess.Popen[bytes]]
    kills: list[Kill] = field(default_factory=list)
    kill_at: float = 0.0

    def is_over(self, record: Sequence[Line]) -> bool:
        """Whether nothing more is to be expected."""
        if self.way.ends_by_itself:
            return all(process.poll() == 0 for process in self.processes)
        return sum(line.event == "end" for line in record) >= N_TRIALS and not open_trainings(record)

    def kill_if_due(self, record: Sequence[Line]) -> None:
        """Kills a process when the next kill is due and a victim runs."""
        most, every_s = KILLS[self.victim]
        if len(self.kills) == most or sum(line.event == "end" for line in record) < 2:
            return
        if time.time() < self.kill_at:
            return
        done = self._kill_driver() if self.victim == "driver" else self._kill_worker(record)
        if done is not None:
            self.kills.append(done)
            self.kill_at = done.at + every_s

    def _kill_worker(self, record: Sequence[Line]) -> Kill | None:
        for line in open_trainings(record):
            with suppress(psutil.Error, ProcessLookupError, IndexError):
                os.kill(self.way.worker(line.pid), signal.SIGKILL)
                return Kill(at=time.time(), x=line.x)
        return None

    def _kill_driver(self) -> Kill | None:
        driver = self.processes[0]
        if driver.poll() is not None:
            return None
        driver.kill()
        return Kill(at=time.time(), x=None)


def open_trainings(record: Sequence[Line]) -> list[Line]:
    """Trainings without an end whose process still runs; the newest first."""
    ended = {(line.x, line.pid) for line in record if line.event == "end"}
    begun = [line for line in record if line.event == "begin" and (line.x, line.pid) not in ended]
    return [line for line in reversed(begun) if psutil.pid_exists(line.pid)]


def measure(way: Way, victim: Victim, run: Run, *, longest_s: float = LONGEST_S) -> Cell:
    """Runs a new study, kills its processes on the way, and counts what came of it. Cuts off what takes longer."""
    with opened(run.database_url, create=True):
        pass
    way.submit(run)
    began, loads = time.time(), [os.getloadavg()[0]]
    with kept_running(way.commands(run), run) as processes:
        watched = WatchedRun(way, run, victim, processes)
        changed_at, known = began, 0
        while time.time() - began < longest_s and time.time() - changed_at < (_QUIET_S if known else _BEGINS_WITHIN_S):
            record = lines(run.record)
            if len(record) != known:
                changed_at, known = time.time(), len(record)
            if watched.is_over(record):
                break
            watched.kill_if_due(record)
            restart_killed(processes, way.commands(run), run)
            loads.append(os.getloadavg()[0])
            time.sleep(0.1)
    still_running = running_in_optuna(run) if way.has_optunas_tables else None
    if not known:
        print((run.folder / "log").read_text(errors="replace")[-2000:], file=sys.stderr)
    return outcome_of(way, victim, run, watched.kills, still_running, changed_at - began, statistics.mean(loads))


def outcome_of(
    way: Way, victim: Victim, run: Run, kills: Sequence[Kill], still_running: int | None, seconds: float, load: float
) -> Cell:
    """Counts trials by the record, and the processes that are left, which end now."""
    record = lines(run.record)
    begun = [line for line in record if line.event == "begin"]
    ended = [line.x for line in record if line.event == "end"]
    delays = []
    for kill in kills:
        later = [line.at - kill.at for line in begun if line.at > kill.at and kill.x in (None, line.x)]
        delays += later[:1]
    return Cell(
        way=way.name,
        killed=victim,
        kills=len(kills),
        completed=len(set(ended)),
        lost=len({line.x for line in begun} - set(ended)),
        twice=len(ended) - len(set(ended)),
        still_running=still_running,
        processes_left=end_what_is_left(run),
        seconds_until_begun_again=[round(delay, 1) for delay in delays],
        seconds=round(seconds, 1),
        load=round(load, 1),
    )


def running_in_optuna(run: Run) -> int:
    """Trials that Optuna's tables have as RUNNING."""
    trials = optuna.load_study(study_name=NAME, storage=run.database_url).get_trials(deepcopy=False)
    return sum(trial.state is TrialState.RUNNING for trial in trials)


def restart_killed(processes: list[subprocess.Popen[bytes]], commands: list[list[str]], run: Run) -> None:
    """Starts killed processes again."""
    for place, process in enumerate(processes):
        if (process.poll() or 0) < 0:
            processes[place] = started(commands[place], run)


def started(command: list[str], run: Run) -> subprocess.Popen[bytes]:
    """A process of the run, in its folder."""
    with (run.folder / "log").open("ab") as log:
        return subprocess.Popen(command, env=run.environ, stdout=log, stderr=log)


@contextmanager
def kept_running(commands: list[list[str]], run: Run) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes of a way, which are ended in order afterwards."""
    processes = [started(command, run) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def end_what_is_left(run: Run) -> int:
    """Kills processes of the run that still run some seconds after the end; returns how many."""
    mark = f"{RECORD}={run.record}".encode()
    deadline = time.time() + 5.0
    while (left := marked(mark)) and time.time() < deadline:
        time.sleep(0.2)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    return len(left)


def marked(mark: bytes) -> list[psutil.Process]:
    """All processes with this text in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, psutil.Error, ValueError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(psutil.Process(int(folder.name)))
    return found


def table(cells: Sequence[Cell]) -> str:
    """The cells as the table of docs/reliability.md."""
    heads = ("Way", "killed", f"completed of {N_TRIALS}", "points lost", "run twice", "stay RUNNING")
    rows: list[tuple[str, ...]] = [(*heads, "processes left", "begun again", "after (median, longest)", "took", "load")]
    for cell in cells:
        delays = cell.seconds_until_begun_again
        again = f"{statistics.median(delays):.1f} s, {max(delays):.1f} s" if delays else "-"
        running = "-" if cell.still_running is None else cell.still_running
        row = (cell.way, f"{cell.killed} x {cell.kills}", cell.completed, cell.lost, cell.twice, running)
        last = (f"{len(delays)} of {cell.kills}", again, f"{cell.seconds:.0f} s", f"{cell.load:.0f}")
        rows.append((*map(str, row), str(cell.processes_left), *last))
    written = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([written[0], "|" + "---|" * len(rows[0]), *written[1:]])


def main() -> int:
    """Runs the cells one after the other and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", choices=[*WAYS, []], default=list(WAYS))
    parser.add_argument("--kill", choices=list(KILLS), default=None, help="default: both, one after the other")
    parser.add_argument("--longest", type=float, default=LONGEST_S, help="seconds after which a run is cut off")
    parser.add_argument("--json", type=Path, help="a file for the figures, one line for each cell")
    chosen = parser.parse_args()
    cells: list[Cell] = []
    for name in chosen.ways:
        victims: list[Victim] = [chosen.kill] if chosen.kill else list(KILLS)
        for victim in victims:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Stack(Path(folder) / "s") as stack:
                run = Run(stack.database_url, stack.redis_url, Path(folder))
                cells.append(measure(WAYS[name], victim, run, longest_s=chosen.longest))
            print(cells[-1], flush=True)
            if chosen.json is not None:
                with chosen.json.open("a") as file:
                    file.write(json.dumps(asdict(cells[-1])) + "\n")
    print(table(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
