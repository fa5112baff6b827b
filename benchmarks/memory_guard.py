"""What the memory guard costs a training step: `python -m benchmarks.memory_guard`.

Steps of several lengths with the guard on this machine's real memory, TensorFlow loaded, because the cost of an exact
reading grows with the mappings of a process. In CPU time, so that other load on the machine does not count. Exits
with 1 when the average step costs 50 us or more and also 0.05 % of its length or more.
"""

from __future__ import annotations

import argparse
import sys
import time
import timeit
from collections.abc import Callable

from highnoon.memory import EnterpriseMemoryManager
from highnoon.shared.memory.poller import MemoryPoller

ALLOWED_US = 50.0
ALLOWED_SHARE = 0.0005


def cost_per_step_us(step_s: float, total_s: float) -> tuple[float, int]:
    """(mean CPU microseconds of the guard per step, steps); the manager's construction is not a step."""
    manager = EnterpriseMemoryManager()
    spent_s, steps = 0.0, 0
    deadline = time.perf_counter() + total_s
    while time.perf_counter() < deadline:
        began = time.thread_time()
        manager.step()
        spent_s += time.thread_time() - began
        steps += 1
        time.sleep(step_s)
    return spent_s / steps * 1e6, steps


def mean_us(act: Callable[[], object], times: int) -> float:
    """The mean CPU time of `times` calls after one that warms up."""
    act()
    return timeit.timeit(act, timer=time.thread_time, number=times) / times * 1e6


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each length of step")
    arguments = parser.parse_args()
    import tensorflow

    tensorflow.ones((512, 512)) @ tensorflow.ones((512, 512))
    poller = MemoryPoller()
    manager = EnterpriseMemoryManager()
    print(f"exact reading (us)                 {mean_us(poller.exact, 20):10.1f}")
    print(f"cheap reading (us)                 {mean_us(poller.read, 500):10.1f}")
    print(f"check: cheap reading, verdict (us) {mean_us(manager.check, 500):10.1f}")
    is_cheap = True
    for step_s in (0.001, 0.01, 0.1, 1.0):
        cost_us, steps = cost_per_step_us(step_s, arguments.seconds)
        is_cheap &= cost_us < max(ALLOWED_US, ALLOWED_SHARE * step_s * 1e6)
        print(f"steps of {step_s * 1000:5.0f} ms: per step (us)      {cost_us:10.1f}   ({steps} steps)")
    sys.exit(not is_cheap)


if __name__ == "__main__":
    main()
