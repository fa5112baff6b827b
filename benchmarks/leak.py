"""Does a trial's leak outlive it? `python -m benchmarks.leak`; ends with 1 when the node's memory grows by over 3 %.

A hundred trials of one slot, each of which takes 50 MB and never frees it. Every trial reports what all processes of
the node held when it began: coordinator, services, agent, pool, supervisor and itself.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.overhead import run_study

EARLY = 5
AROUND = 2
"""Medians of this many trials to each side: connections and caches come and go."""

MOST_GROWTH = 0.03


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=100, help="how many trials leak, at least 10")
    n_trials = parser.parse_args().trials
    os.environ["LEAK_BENCHMARK_PID"] = str(os.getpid())
    with tempfile.TemporaryDirectory(prefix="highnoon-leak-") as folder:
        run = run_study(Path(folder, "home"), "leak", objective="leaks_50_mb", n_trials=n_trials, slots=1)
    found = [re.search(r"used_bytes=(\d+)", tail) for tail in run.log_tails]
    used = [int(match[1]) for match in found if match]
    if len(used) != n_trials:
        sys.exit(f"{n_trials} trials, but {len(used)} reported the memory in use")
    early = statistics.median(used[EARLY - 1 - AROUND : EARLY + AROUND])
    late = statistics.median(used[-1 - 2 * AROUND :])
    growth = late / early - 1
    print(f"in use at trial {EARLY:4}  {early / 1e6:8,.0f} MB")
    print(f"in use at trial {n_trials:4}  {late / 1e6:8,.0f} MB  {growth:+.1%}, at most {MOST_GROWTH:+.0%}")
    return int(growth > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
