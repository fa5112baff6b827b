"""Whether processes grow with the trials of a study: `python -m benchmarks.flat_memory [--trials 50000]`.

One study of no-op trials with random parameters, without isolation (the way to most trials in an hour), on a real node
of two slots. At each tenth of the trials it reads the study's page and prints what each role holds (PSS, MB); a
supervisor is the largest of its node, since each is replaced after 200 trials. Nothing is timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from benchmarks.scale_cluster import Cluster
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.store.submission import submit

_NAME = "many"
_SLOTS = 2
_LOOK_S = 1.0


def main() -> None:
    """Prints a line for each tenth of the trials."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=50_000)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory(prefix="highnoon-bench-") as folder, ExitStack() as ends:
        cluster = Cluster(ends.enter_context(Stack(Path(folder, "home"))), ends)
        node = cluster.begin(sys.executable, "-m", "workers", "start", "--queues", "cpu", "--slots", str(_SLOTS))
        submit(_study(trials), cluster.access)
        measured = {"coordinator", "dashboard", "PostgreSQL"}
        roles = {name: role for name, role in cluster.roles.items() if name in measured}
        print("".join(f"{name:>14}" for name in ("trials", *roles, "agent", "Celery parent", "a supervisor")))
        for tenth in range(1, 11):
            while (done := _closed(cluster)) < trials * tenth / 10:
                time.sleep(_LOOK_S)
            cluster.page_s(_NAME)
            for role in roles.values():
                role.read_memory()
            held = [f"{role.memory_mb[-1]:.0f}" for role in roles.values()]
            print("".join(f"{one:>14}" for one in (f"{done:,}", *held, *_of_node(node.pid))), flush=True)


def _study(trials: int) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": _NAME,
            "objective": "objectives.py:noop",
            "code_dir": str(Path(__file__).parent),
            "n_trials": trials,
            "sampler": "random",
            "pruner": "none",
            "isolation": "none",
            "search_space": {f"x{i}": ["uniform", 0.0, 1.0] for i in range(5)},
        }
    )


def _closed(cluster: Cluster) -> int:
    studies = cluster.access.studies
    return studies.counts(studies.get(_NAME).id).closed


def _of_node(agent: int) -> list[str]:
    """The agent, the Celery parent, and the largest supervisor with its fork server."""
    parent = psutil.Process(agent).children()[0]
    supervisors = [_held(one, *one.children(recursive=True)) for one in parent.children()]
    return [f"{mb:.0f}" for mb in (_held(psutil.Process(agent)), _held(parent), max(supervisors, default=0.0))]


def _held(*processes: psutil.Process) -> float:
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 1e6


if __name__ == "__main__":
    main()
