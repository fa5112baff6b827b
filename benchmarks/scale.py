"""A cluster of up to hundreds of slots on one machine: what each step of a trial costs, and what the roles take.

    python -m benchmarks.scale [--slots 1,20,200] [--latency-ms 2] [--trials 1000] [--trial-s 10] [--json FILE]
    python -m benchmarks.scale --long

Run it on an idle machine: whatever else runs there is measured as well, and each table has the load average.

The slots are simulated: each looks, samples, starts, renews, reports and finishes as a supervisor does, with a
connection of its own and a network that is `latency-ms` away, and waits where another one trains. PostgreSQL, Redis,
coordinator and dashboard are real. `--trials` is how many trials the study has before. `--long` takes 30 s for a trial,
measures for two minutes, and takes every combination of 1, 20 and 200 slots, 0.5 and 2 ms, 1,000 and 10,000 trials, and
20 slots at 100,000.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.scale_cluster import Cluster, measured_by, simulated_slots, start_measuring
from highnoon.coordinator.local.stack import Stack
from tests.made_up import make_study
from tests.support import eventually

_READ_EVERY_S = 1.0
_SPARE = 100_000
"""Tickets beyond the trials that are there."""

_STEPS = ("look", "join", "sample", "start", "renew", "finish")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The conditions of one measurement."""

    slots: int
    latency_ms: float
    trials: int


@dataclass(slots=True, kw_only=True)
class Result:
    """The figures of one scenario; times in milliseconds, CPU in percent of a core, memory in MB."""

    scenario: Scenario
    seconds: float
    trials_per_s: float = 0.0
    p50_p99_ms: dict[str, tuple[float, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, tuple[float, float]] = field(default_factory=dict)
    """First and last reading."""
    connections: int = 0
    tick_ms: float = 0.0
    """The mean."""
    study_page_p95_ms: float = 0.0
    load_average: float = 0.0


def measure(cluster: Cluster, scenario: Scenario, study: str, *, trial_s: float, measure_s: float) -> Result:
    """One scenario on a study that is there."""
    result = Result(scenario=scenario, seconds=measure_s)
    slots, latency_ms = scenario.slots, scenario.latency_ms
    with simulated_slots(
        cluster, slots=slots, latency_ms=latency_ms, trial_s=trial_s, measure_s=measure_s
    ) as processes:
        found = _measure_roles_and_slots(cluster, processes, study, result)
    _add_steps(found, result)
    _add_errors(found, result)
    result.trials_per_s = round(result.counts["start"] / measure_s, 2)
    result.cpu["simulated slots"] = round(100 * sum(part["cpu_s"] for part in found) / measure_s, 1)
    return result


def _add_steps(found: Sequence[dict[str, Any]], result: Result) -> None:
    for name in _STEPS:
        seconds = [one for part in found for one in part["seconds"].get(name, [])]
        result.counts[name] = len(seconds)
        if len(seconds) > 1:
            cuts = statistics.quantiles(seconds, n=100, method="inclusive")
            result.p50_p99_ms[name] = round(1e3 * cuts[49], 2), round(1e3 * cuts[98], 2)


def _add_errors(found: Sequence[dict[str, Any]], result: Result) -> None:
    for part in found:
        for words, count in part["errors"].items():
            result.errors[words] = result.errors.get(words, 0) + count


def _measure_roles_and_slots(
    cluster: Cluster, processes: Sequence[subprocess.Popen[str]], study: str, result: Result
) -> list[dict[str, Any]]:
    """Reads the roles into the result while the slots measure themselves; returns what these have found."""
    ticks_s, ticks = cluster.tick_sums()
    pages: list[float] = []
    for role in cluster.roles.values():
        role.memory_mb.clear()
    began, cpu = time.monotonic(), {name: role.cpu_s() for name, role in cluster.roles.items()}
    for process in processes:
        start_measuring(process)
    left = result.seconds
    while left > 0:
        for role in cluster.roles.values():
            role.read_memory()
        result.connections = max(result.connections, cluster.connections())
        pages.append(cluster.page_s(study))
        left = began + result.seconds - time.monotonic()
        time.sleep(max(0.0, min(left, _READ_EVERY_S)))
    took_s = time.monotonic() - began
    for name, role in cluster.roles.items():
        result.cpu[name] = round(100 * (role.cpu_s() - cpu[name]) / took_s, 1)
        result.memory_mb[name] = round(role.memory_mb[0], 1), round(role.memory_mb[-1], 1)
    last_s, last = cluster.tick_sums()
    result.tick_ms = round(1e3 * (last_s - ticks_s) / max(1.0, last - ticks), 2)
    result.study_page_p95_ms = round(1e3 * sorted(pages)[int(0.95 * len(pages))], 1)
    result.load_average = round(os.getloadavg()[0], 1)
    return [measured_by(process) for process in processes]


def show(result: Result) -> None:
    """Prints a result for people."""
    scenario = result.scenario
    print(
        f"\n{scenario.slots} slots, {scenario.latency_ms:g} ms, {scenario.trials:,} trials before: "
        f"{result.trials_per_s:g} trials/s, {result.connections} connections, load {result.load_average:g}"
    )
    print(f"{'':12} {'count':>8} {'p50 ms':>10} {'p99 ms':>10}")
    for name, (p50, p99) in result.p50_p99_ms.items():
        print(f"{name:12} {result.counts[name]:>8,} {p50:>10.2f} {p99:>10.2f}")
    print(f"{'':16} {'CPU %':>8} {'MB at first':>12} {'MB at last':>12}")
    for name, percent in result.cpu.items():
        memory = "".join(f" {megabytes:>12.1f}" for megabytes in result.memory_mb.get(name, ()))
        print(f"{name:16} {percent:>8.1f}{memory}")
    print(f"coordinator's tick: {result.tick_ms:g} ms, study page p95: {result.study_page_p95_ms:g} ms")
    for words, count in result.errors.items():
        print(f"ERROR {count} times: {words}")


def main() -> int:
    """Prints a table for each scenario. 1 where a step has failed."""
    arguments = _arguments()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="highnoon-scale-") as folder, ExitStack() as ends:
        stack = ends.enter_context(Stack(Path(folder, "home")))
        cluster = Cluster(stack, ends)
        for trials, some in itertools.groupby(_scenarios(arguments), key=lambda scenario: scenario.trials):
            study = f"of-{trials}"
            make_study(stack.database_url, study, n_trials=trials + _SPARE, done=trials, sampler=arguments.sampler)
            eventually(partial(cluster.has_page, study), 120, what="the dashboard answers")
            for scenario in some:
                print(f"preparing {scenario}", file=sys.stderr)
                results.append(
                    measure(cluster, scenario, study, trial_s=arguments.trial_s, measure_s=arguments.measure_s)
                )
                show(results[-1])
            cluster.access.studies.pause(cluster.access.studies.get(study).id)
    if arguments.json:
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "trial_s": arguments.trial_s}
        found = {"machine": machine, "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(result.errors for result in results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--slots", default="1,20,200")
    parser.add_argument("--latency-ms", default="2", help="added to each round trip to PostgreSQL")
    parser.add_argument("--trials", default="1000", help="trials that the study has before")
    parser.add_argument("--trial-s", type=float, default=10.0)
    parser.add_argument("--measure-s", type=float, default=30.0)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--long", action="store_true", help="every combination, trials of 30 s: some two hours")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.long:
        arguments.slots, arguments.latency_ms, arguments.trials = "1,20,200", "0.5,2", "1000,10000,100000"
        arguments.trial_s, arguments.measure_s = 30.0, 120.0
    return arguments


def _scenarios(arguments: argparse.Namespace) -> Iterator[Scenario]:
    slots = [int(number) for number in arguments.slots.split(",")]
    latencies = [float(number) for number in arguments.latency_ms.split(",")]
    for trials in map(int, arguments.trials.split(",")):
        for latency_ms, count in itertools.product(latencies, slots):
            if not (arguments.long and trials >= 100_000 and count != 20):
                yield Scenario(slots=count, latency_ms=latency_ms, trials=trials)


if __name__ == "__main__":
    sys.exit(main())
