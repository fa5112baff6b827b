"""One trial of `benchmarks.peers.reliability`, as Syne Tune's local backend starts it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from syne_tune import Reporter
from training_record import train


def main() -> None:
    """Runs the trial."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--x", type=float, required=True)
    x = parser.parse_known_args()[0].x
    reporter = Reporter()
    train(x, lambda value, step: reporter(loss=value, step=step + 1))


if __name__ == "__main__":
    main()
