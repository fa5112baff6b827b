"""A node that is too small for most proposals: `python -m benchmarks.memory`; exits with 1 on any fault.

Studies of 60 trials on two slots, in a cgroup of 2 GB that this benchmark makes for the worker, over a space that asks
for 0.2 to 6 GB. Worker and supervisors must survive, each oversized trial must have a cause and a peak, every ticket
must be closed once, and TPE must propose oversized trials less than half as often in the end as at first. Twice: with a
loss that does not depend on size, and with one that is better for larger models.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.objectives import needed_bytes
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending, TicketState
from highnoon.shared.domain.trial import Params
from highnoon.shared.objective.study_file import build_spec
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.submission import submit
from highnoon.workers.monitor.trial_cgroups import TrialGroups

HERE = Path(__file__).parent
NODE_BYTES = 2 << 30
SLOTS = 2
WINDOW = 20
MOST_SHARE = 0.5
LONGEST_S = 900.0

SPACE = {
    "width": ["int", 64, 512, 64],
    "layers": ["int", 1, 12],
    "batch_size": ["categorical", [8, 16, 32]],
    "learning_rate": ["log_uniform", 1e-5, 1e-1],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One study: its proposals, in order, and its attempts."""

    proposals: list[Params]
    attempts: list[AttemptRecord]
    closed: int
    limit_bytes: int

    def oversized(self, params: Params) -> bool:
        """Whether a proposal is larger than a trial of this node may be."""
        return needed_bytes(params) > self.limit_bytes

    @property
    def first_and_last(self) -> tuple[int, int]:
        """How many of the first and of the last 20 proposals were oversized."""
        is_over = [self.oversized(params) for params in self.proposals]
        return sum(is_over[:WINDOW]), sum(is_over[-WINDOW:])

    def faults(self, n_trials: int) -> Iterator[str]:
        """What did not happen as required."""
        if self.closed != n_trials or len(self.proposals) != n_trials:
            yield f"{self.closed} tickets closed and {len(self.proposals)} trials counted, not {n_trials}"
        if len({attempt.pid for attempt in self.attempts}) > SLOTS:
            yield "a supervisor died"
        # An earlier attempt may have been pushed out before it had grown out of its share.
        for attempt in {attempt.ordinal: attempt for attempt in self.attempts}.values():
            params = self.proposals[attempt.ordinal]
            is_recorded = attempt.ending is Ending.STOPPED and attempt.cause and attempt.memory
            if self.oversized(params) and not is_recorded:
                yield f"ticket {attempt.ordinal} was oversized and ended as {attempt.ending}, {attempt.message}"


def run_study(access: Access, worker: subprocess.Popen[bytes], written: dict[str, Any]) -> Run:
    """Submits the study and waits for its end. Raises TimeoutError, and RuntimeError when the worker dies meanwhile."""
    name = written["name"]
    submit(build_spec(written, source=name), access)
    deadline = time.monotonic() + LONGEST_S
    while not (record := access.studies.get(name)).is_over:
        if worker.poll() is not None:
            raise RuntimeError(f"the worker died with {worker.returncode} during study {name}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"study {name} is not over after {LONGEST_S:.0f} s: {access.studies.counts(record.id)}")
        time.sleep(0.5)
    attempts = access.studies.attempts(record.id)
    trials = {trial.number: trial.params for trial in access.optuna(record).trials()}
    last = {attempt.ordinal: attempt for attempt in attempts if attempt.trial_number is not None}
    limits = [attempt.memory.limit_bytes for attempt in attempts if attempt.memory and attempt.memory.limit_bytes]
    return Run(
        proposals=[trials[last[ordinal].trial_number or 0] for ordinal in sorted(last)],
        attempts=attempts,
        closed=access.studies.counts(record.id).by_state.get(TicketState.CLOSED, 0),
        limit_bytes=limits[0],
    )


def study(name: str, objective: str, n_trials: int, seed: int, admission: str) -> dict[str, Any]:
    """The study file."""
    return {
        "name": name,
        "objective": f"objectives.py:{objective}",
        "code_dir": str(HERE),
        "n_trials": n_trials,
        "seed": seed,
        "pruner": "none",
        "admission": admission,
        "search_space": SPACE,
    }


@contextmanager
def node(folder: Path) -> Iterator[tuple[Access, subprocess.Popen[bytes]]]:
    """Services and coordinator outside, a worker inside the cgroup. Exits with a message where none can be made."""
    groups = TrialGroups.prepare()
    group = groups.make(NODE_BYTES) if groups else None
    if group is None:
        sys.exit("skipped: this machine does not let us make a memory cgroup (root, and a writable cgroup file system)")
    with ExitStack() as ends:
        ends.callback(group.remove)
        stack = ends.enter_context(Stack(folder / "services"))
        environ = {
            **os.environ,
            "HIGHNOON_DATABASE_URL": stack.database_url,
            "HIGHNOON_REDIS_URL": stack.redis_url,
            "HIGHNOON_HOME": str(folder / "home"),
            "HIGHNOON_OBJECTIVES": str(HERE / "*.py"),
        }
        access = ends.enter_context(opened(stack.database_url, create=True))
        log = ends.enter_context((folder / "processes.log").open("wb"))

        def begin(*command: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            ends.callback(process.wait)
            ends.callback(process.terminate)
            return process

        begin(sys.executable, "-m", "coordinator", "start")
        joined = f'echo $$ > "{group.procs}" && exec "{sys.executable}" -m workers start --queues cpu --slots {SLOTS}'
        yield access, begin("/bin/sh", "-c", joined)


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=60, help="per study, at least 40")
    parser.add_argument("--seeds", type=int, default=3, help="studies for each loss")
    parser.add_argument("--admission", choices=["slots", "measured"], default="slots")
    arguments = parser.parse_args()
    is_sound = True
    with tempfile.TemporaryDirectory(prefix="highnoon-oversized-") as scratch, node(Path(scratch)) as (access, worker):
        for objective in ("indifferent_to_size", "lured_by_size"):
            firsts = lasts = 0
            for seed in range(1, arguments.seeds + 1):
                began = time.monotonic()
                name = f"{objective}-{seed}"
                spec = study(name, objective, arguments.trials, seed, arguments.admission)
                run = run_study(access, worker, spec)
                faults = list(run.faults(arguments.trials))
                first, last = run.first_and_last
                firsts, lasts = firsts + first, lasts + last
                stopped = [attempt for attempt in run.attempts if attempt.ending is Ending.STOPPED]
                causes = sorted({str(attempt.cause) for attempt in stopped})
                print(
                    f"{name:24} limit {run.limit_bytes / 1e6:.0f} MB, closed {run.closed}/{arguments.trials}, "
                    f"stopped {len(stopped)} ({', '.join(causes)}), oversized {first} of the first {WINDOW}, "
                    f"{last} of the last, {time.monotonic() - began:.0f} s",
                    flush=True,
                )
                for fault in faults:
                    print(f"  FAULT: {fault}", flush=True)
                is_sound &= not faults
            share = lasts / max(firsts, 1)
            print(f"{objective:24} oversized in the end: {share:.0%} of at first, allowed {MOST_SHARE:.0%}", flush=True)
            is_sound &= share < MOST_SHARE
    return int(not is_sound)


if __name__ == "__main__":
    sys.exit(main())
