"""Whether processes grow with the trials of a study: `python -m benchmarks.flat_memory [--trials 50000]`.

One study of no-op trials with random parameters, without isolation (the way to most trials in an hour), on a real node
of two slots. At each tenth of the trials it reads the study's page and prints what each role holds of its own, in MB:
anonymous pages, shared ones by their parts. A supervisor is the largest of its node, with its fork server; each is
replaced after 200 trials. Nothing is timed.
"""

from __future__ import annotations

import argparse
import re
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
        roles = {name: cluster.roles[name].process for name in ("coordinator", "dashboard")}
        print("".join(f"{name:>14}" for name in ("trials", *roles, "agent", "Celery parent", "a supervisor")))
        for tenth in range(1, 11):
            while (done := _closed(cluster)) < trials * tenth / 10:
                time.sleep(_LOOK_S)
            cluster.page_s(_NAME)
            held = [*map(_held, roles.values()), *_of_node(node.pid)]
            print(f"{done:14,}" + "".join(f"{mb:14.0f}" for mb in held), flush=True)


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


def _of_node(agent: int) -> list[float]:
    """The agent, the Celery parent with its template, and the largest supervisor with the largest fork server."""
    parent = psutil.Process(agent).children()[0]
    template, *supervisors = sorted(parent.children(), key=psutil.Process.create_time)
    slot = sum(max(map(_held, processes), default=0.0) for processes in (supervisors, template.children()))
    return [_held(psutil.Process(agent)), _held(parent, template), slot]


def _held(*processes: psutil.Process) -> float:
    """File pages are left out: other programs on this machine may map the same libraries."""
    total = 0
    for process in processes:
        with suppress(OSError):  # it has ended
            found = re.search(r"^Pss_Anon: +(\d+) kB", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.M)
            total += int(found[1]) if found else 0
    return total / 1e3


if __name__ == "__main__":
    main()
