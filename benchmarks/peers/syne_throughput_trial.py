"""One trial of `benchmarks.peers.throughput`, as Syne Tune's local backend starts it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from syne_tune import Reporter
from work import SPACE, WORK


def main() -> None:
    """Runs the trial."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work")
    for name in SPACE:
        parser.add_argument(f"--{name}", type=float)
    params, _ = parser.parse_known_args()
    reporter = Reporter()

    def report(value: float, step: int) -> bool:
        reporter(loss=value, step=step + 1)
        return True

    loss = WORK[params.work](vars(params), report)
    reporter(loss=loss, step=101)


if __name__ == "__main__":
    main()
