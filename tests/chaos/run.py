"""One chaos run: a seed gives the faults and their times; the report describes what became of the books.

python -m tests.chaos.run --seeds 1..20 --trials 200 --faults 40 --lease default
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import psutil
import psycopg2

import tests.chaos.service_faults  # noqa: F401 - registers its kinds
from highnoon.shared.objective.study_file import build_spec
from highnoon.shared.store.access import opened
from highnoon.shared.store.submission import submit
from tests.chaos.books import Attempt, Books, leftovers
from tests.chaos.faults import FAULTS, STUDY, Hit
from tests.chaos.world import World, world

BYSTANDER, POISONED = "bystander", "poisoned"
_OUTAGE = (psycopg2.Error, OSError)

_STARTS_WITHIN_S = 15.0
"""A process that was started less than this ago may not handle signals yet: Python still imports."""


@dataclass
class Done:
    """A fault that was done, at this time of the wall clock."""

    kind: str
    at: float
    hit: Hit


@dataclass
class Report:
    """The result of one run."""

    seed: int
    wrong: list[str] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    planned: int = 0
    recovery: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 0
    restarts: int = 0

    def text(self) -> str:
        kinds = {kind: sum(done.kind == kind for done in self.done) for kind in FAULTS}
        times = sorted(seconds for found in self.recovery.values() for seconds in found)
        lines = [
            f"seed {self.seed}: {'clean' if not self.wrong else 'FAILED'}, {len(self.done)} of {self.planned} faults, "
            f"{self.attempts} attempts, {self.restarts} restarts, {self.seconds:.0f} s, "
            f"lost {sum(self.lost.values()) / max(1, len(self.done)):.1f} s a fault, {_percentiles(times)}",
            "  " + ", ".join(f"{kind} {count}" for kind, count in kinds.items() if count),
            *(f"  not done: {done.kind}, {done.hit.note}" for done in self.done if done.hit.note),
            *(f"  ! {text}" for text in self.wrong),
        ]
        return "\n".join(lines)


def run(
    seed: int,
    folder: Path,
    *,
    trials: int,
    faults: int,
    short_lease: bool = True,
    kinds: Sequence[str] = (),
    limit_s: float = 600.0,
    every_s: tuple[float, float] = (0.5, 3.0),
) -> Report:
    """A study of so many trials under so many faults, with a bystander and a poisoned study beside it."""
    chance = random.Random(seed)
    report = Report(seed, planned=faults)
    began = time.monotonic()
    bystanders = max(5, trials // 5)
    step_s = _step_s(faults * statistics.mean(every_s), trials + bystanders)
    with world(folder, nodes=2, short_lease=short_lease, step_s=step_s) as cluster:
        books = Books(cluster.cluster.database_url)
        _submit(cluster, STUDY, trials)
        _submit(cluster, BYSTANDER, bystanders)
        _submit(cluster, POISONED, 10)
        _poison(books, chance)
        finished = _under_faults(cluster, books, chance, report, faults, kinds, limit_s, every_s)
        report.restarts = cluster.restarts
        if not finished:
            report.wrong.append(f"not over after {limit_s:g} s: {_open_tickets(books)}")
        else:
            report.wrong += _end(cluster)
            report.wrong += books.faults_of(STUDY, trials) + books.faults_of(BYSTANDER, bystanders)
            report.wrong += leftovers(cluster, books.supervisors()) + books.changed()
        attempts = books.attempts(STUDY) + books.attempts(BYSTANDER)
        report.attempts = len(attempts)
        report.recovery = _recovery(report.done, attempts)
        report.lost = _lost(report.done, attempts)
        report.wrong += _tracebacks(folder)
        _keep(folder, books, report)
    report.seconds = time.monotonic() - began
    return report


def _under_faults(
    cluster: World,
    books: Books,
    chance: random.Random,
    report: Report,
    faults: int,
    kinds: Sequence[str],
    limit_s: float,
    every_s: tuple[float, float],
) -> bool:
    names = [*kinds] or [*FAULTS]
    plan = _order(names, faults, chance)
    give_up_at = time.monotonic() + limit_s
    due_at, look_at = 0.0, 0.0
    has_begun = False
    while time.monotonic() < give_up_at:
        cluster.turn()
        now = time.monotonic()
        if has_begun and plan and now >= due_at:
            at = time.time()
            try:
                hit = FAULTS[plan[0]](cluster, chance)
            except (*_OUTAGE, Exception) as error:
                hit = Hit(note=f"{type(error).__name__}: {error}") if not isinstance(error, _OUTAGE) else None
            kind = plan.pop(0)
            if hit is None:
                # Nothing to hit now, or a service that another fault took away: the kind comes again, later.
                plan.insert(min(len(plan), chance.randrange(1, 4)), kind)
                due_at = now + 0.1
            else:
                report.done.append(Done(kind, at, hit))
                due_at = now + chance.uniform(*every_s)
        if now >= look_at and not cluster.frozen:
            look_at = now + 0.3
            with suppress(*_OUTAGE):
                books.note_closed()
                has_begun = has_begun or books.closed(STUDY) > 0
                if not cluster.has_timers and books.is_over(STUDY) and books.is_over(BYSTANDER):
                    return True
        time.sleep(0.02)
    return False


def _step_s(faults_s: float, trials: int) -> float:
    """So that the trials of both studies last as long as the faults need, on four slots."""
    return max(0.03, faults_s * 4 / trials / 4 - 0.05)


def _order(names: Sequence[str], count: int, chance: random.Random) -> list[str]:
    """Every kind about equally often, in a random order."""
    plan: list[str] = []
    while len(plan) < count:
        more = [*names]
        chance.shuffle(more)
        plan += more
    return plan[:count]


def _end(cluster: World) -> list[str]:
    """Ends nodes and coordinator in order; what is wrong with how they end."""
    cluster.keeps = False
    wrong = []
    young = {role for role, process in cluster.running.items() if _age_s(process.pid) < _STARTS_WITHIN_S}
    for process in cluster.running.values():
        process.terminate()
    for role, process in cluster.running.items():
        try:
            status = process.wait(40)
        except Exception:
            wrong.append(f"{role} does not end on SIGTERM")
        else:
            if status != 0 and not (status == -signal.SIGTERM and role in young):
                wrong.append(f"{role} ended with {status}")
    deadline = time.monotonic() + 3.0
    while cluster.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    return wrong


def _age_s(pid: int) -> float:
    with suppress(psutil.Error):
        return time.time() - psutil.Process(pid).create_time()
    return 0.0


def _submit(cluster: World, name: str, trials: int) -> None:
    keys = {
        "name": name,
        "n_trials": trials,
        "objective": "objective.py:trial",
        "code_dir": str(Path(__file__).parent),
        "sampler": "tpe",
        "seed": 1,
        "max_attempts": 50,
        "search_space": {"x": ["uniform", -5.0, 5.0]},
    }
    with opened(cluster.cluster.database_url, create=True) as access:
        submit(build_spec(keys, source=name), access)


def _poison(books: Books, chance: random.Random) -> None:
    """A study whose data cannot be used; that must be its own affair."""
    way = chance.choice(("type", "list", "ending", "direction"))
    of_study = "(select id from hn_studies where name = 'poisoned')"
    if way == "type":
        spec = "jsonb_set(jsonb_set(spec::jsonb, '{timeout}', '\"soon\"'), '{max_attempts}', '\"three\"')::json"
        books.execute(f"update hn_studies set spec = {spec} where name = 'poisoned'")
    elif way == "list":
        books.execute("update hn_studies set spec = '[1, 2]' where name = 'poisoned'")
    elif way == "ending":
        books.execute(
            "update hn_tickets set state = 'closed', ending = 'vanished', closed_at = 1e12, "
            f'outcome = \'{{"ending": "vanished"}}\' where study_id = {of_study} and ordinal = 9'
        )
    else:
        books.execute(
            "update study_directions set direction = 'MAXIMIZE' where study_id = "
            "(select study_id from studies where study_name = 'poisoned')"
        )


def _recovery(done: Sequence[Done], attempts: Sequence[Attempt]) -> dict[str, list[float]]:
    """Seconds from a fault until what it interrupted runs again; without victims, until any attempt starts."""
    starts = {(attempt.ticket, attempt.attempt): attempt for attempt in attempts}
    found: dict[str, list[float]] = {}
    for fault in done:
        times = []
        for slot in fault.hit.victims:
            if slot.attempt is None:
                continue
            ended = starts.get((slot.ticket, slot.attempt))
            following = starts.get((slot.ticket, slot.attempt + 1))
            if ended is not None and ended.ending != "completed" and following is not None:
                times.append(following.started_at - fault.at)
        if not fault.hit.victims:
            times = [a.started_at - fault.at - fault.hit.lasts_s for a in attempts if a.started_at > fault.at][:1]
        found.setdefault(fault.kind, []).extend(max(0.0, seconds) for seconds in times)
    return found


def _lost(done: Sequence[Done], attempts: Sequence[Attempt]) -> dict[str, float]:
    """Seconds from the start of an attempt that did not count to the start of the next one, by the fault behind it.

    That is the one whose victim it was, else the last one before its end.
    """
    starts = {(attempt.ticket, attempt.attempt): attempt.started_at for attempt in attempts}
    lost: dict[str, float] = {}
    for attempt in attempts:
        following = starts.get((attempt.ticket, attempt.attempt + 1))
        if following is None or attempt.ended_at is None:
            continue
        before = [fault for fault in done if attempt.started_at <= fault.at <= attempt.ended_at]
        own = [
            f
            for f in before
            for slot in f.hit.victims
            if (slot.ticket, slot.attempt) == (attempt.ticket, attempt.attempt)
        ]
        before = before or [fault for fault in done if fault.at <= attempt.ended_at]
        for fault in (own or before)[-1:]:
            lost[fault.kind] = lost.get(fault.kind, 0.0) + following - attempt.started_at
    return lost


def _percentiles(times: Sequence[float]) -> str:
    if not times:
        return "no recovery"
    p95 = times[min(len(times) - 1, int(0.95 * len(times)))]
    return f"recovery p50 {statistics.median(times):.2f} s, p95 {p95:.2f} s"


def _tracebacks(folder: Path) -> list[str]:
    """Exceptions that were not expected."""
    wrong = []
    for path in folder.glob("*.log"):
        lines = path.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines):
            # A fork server that dies while it is asked for a process is a fault that the run makes.
            no_process = any("OSError" in text or "fork_server.py" in text for text in lines[number : number + 25])
            if any(text in line for text in ("_failed ", "invariant")) or (
                "attempt_abandoned" in line and not no_process
            ):
                wrong.append(f"{path.name}: {line[:200]}")
    return wrong[:10]


def _open_tickets(books: Books) -> str:
    with suppress(*_OUTAGE):
        rows = books.rows(
            "select t.id, t.state, t.attempt, t.worker_id, t.lease_expires_at - hn_now_1() as lease, "
            "t.not_before - hn_now_1() as due, hn_now_1() - t.queued_at as queued from hn_tickets t "
            "join hn_studies s on s.id = t.study_id where s.name <> 'poisoned' and t.state <> 'closed' limit 8"
        )
        return "; ".join(map(str, rows))
    return "the database does not answer"


def _keep(folder: Path, books: Books, report: Report) -> None:
    """For who looks into a failed run: the attempts and the faults, beside the logs."""
    with suppress(*_OUTAGE):
        rows = books.rows("select * from hn_attempts order by started_at")
        text = [json.dumps({k: v for k, v in row._asdict().items() if k != "memory"}, default=str) for row in rows]
        (folder / "attempts.jsonl").write_text("\n".join(text))
    faults = [
        f"{done.at:.3f} {done.kind} {[*done.hit.victims]} {done.hit.lasts_s:.1f} {done.hit.note}"
        for done in report.done
    ]
    (folder / "faults.txt").write_text("\n".join(faults))


def summary(reports: Sequence[Report]) -> str:
    """Faults by kind, seconds lost by each and the time of recovery, over all runs."""
    lines = [f"{'fault':24} {'times':>5} {'lost s':>7}"]
    everything: list[float] = []
    for kind in FAULTS:
        count = sum(done.kind == kind for report in reports for done in report.done)
        times = sorted(seconds for report in reports for seconds in report.recovery.get(kind, []))
        everything += times
        if count:
            lost = sum(report.lost.get(kind, 0.0) for report in reports) / count
            lines.append(f"{kind:24} {count:5} {lost:7.1f}  {_percentiles(times) if times else ''}")
    clean = sum(not report.wrong for report in reports)
    count = sum(len(report.done) for report in reports)
    lost = sum(sum(report.lost.values()) for report in reports) / max(1, count)
    lines.append(f"{'all':24} {count:5} {lost:7.1f}  {_percentiles(sorted(everything))}")
    return "\n".join([*lines, f"{clean} of {len(reports)} seeds clean"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=_seeds, default=None, metavar="N | N..M", help="default: a random one")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--lease", choices=("short", "default"), default="short")
    parser.add_argument("--kinds", default="", help="only these, with commas between them")
    parser.add_argument("--pause", type=float, nargs=2, default=None, help="seconds between two faults: from, to")
    parser.add_argument("--keep", default=None, help="a folder for the logs of failed runs")
    chosen = parser.parse_args()
    # So that nothing of a run outlives it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What the Optuna script of a fault and the services say is no part of the report.
    logging.disable(logging.INFO)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    reports: list[Report] = []
    with suppress(KeyboardInterrupt):
        _run_all(chosen, chosen.seeds or [random.SystemRandom().randrange(10**6)], reports)
    print(summary(reports), flush=True)
    return 0 if all(not report.wrong for report in reports) else 1


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("..")
    return [*range(int(first), int(last or first) + 1)]


def _run_all(chosen: argparse.Namespace, seeds: Sequence[int], reports: list[Report]) -> None:
    for seed in seeds:
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-", dir=chosen.keep))
        report = run(
            seed,
            folder,
            trials=chosen.trials,
            faults=chosen.faults,
            short_lease=chosen.lease == "short",
            kinds=[kind for kind in chosen.kinds.split(",") if kind],
            every_s=tuple(chosen.pause or ((0.5, 3.0) if chosen.lease == "short" else (1.0, 6.0))),
        )
        reports.append(report)
        print(report.text() + (f"\n  logs: {folder}" if report.wrong else ""), flush=True)


if __name__ == "__main__":
    sys.exit(main())
