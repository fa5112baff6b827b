"""One chaos run: a seed gives the faults and their times; the report describes what became of the books.

python -m tests.chaos.run --seeds 1..20 --trials 200 --faults 40 --lease default
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import optuna

import tests.chaos.service_faults  # noqa: F401 - registers its kinds
from highnoon.shared.objective.study_file import build_spec
from highnoon.shared.store.access import opened
from highnoon.shared.store.submission import submit
from tests.chaos.books import Books, leftovers
from tests.chaos.clients import OUTAGE
from tests.chaos.faults import FAULTS, STUDY, Hit
from tests.chaos.report import Done, Report, recovery_times, seconds_lost, summary, times_until_given_back
from tests.chaos.waits import Waits
from tests.chaos.world import World, world

BYSTANDER, POISONED = "bystander", "poisoned"
_LEFT_WITHIN_S = 15.0
"""What a node has left is gone by then: the kernel ends processes of a busy machine late."""


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
    with closing(Waits()) as waits, world(folder, nodes=2, short_lease=short_lease, step_s=step_s) as cluster:
        books = Books(cluster.cluster.database_url)
        with waits.named("the studies to be submitted"):
            _submit(cluster, STUDY, trials)
            _submit(cluster, BYSTANDER, bystanders)
            _submit(cluster, POISONED, 10)
            _poison(books, chance)
        finished = _under_faults(cluster, books, chance, report, waits, faults, kinds, limit_s, every_s)
        report.restarts = cluster.restarts
        if not finished:
            report.wrong.append(f"not over after {limit_s:g} s: {_open_tickets(books)}")
        else:
            with waits.named("nodes and coordinator to end"):
                report.wrong += _end(cluster)
            with waits.named("the books"):
                report.wrong += books.faults_of(STUDY, trials) + books.faults_of(BYSTANDER, bystanders)
                report.wrong += leftovers(cluster, books.supervisors()) + books.changed()
        attempts = books.attempts(STUDY) + books.attempts(BYSTANDER)
        report.attempts = len(attempts)
        report.recovery = recovery_times(report.done, attempts)
        report.given_back = times_until_given_back(report.done, attempts)
        report.lost = seconds_lost(report.done, attempts)
        report.wrong += _tracebacks(folder)
        _keep(folder, books, report)
    report.seconds = time.monotonic() - began
    return report


def _under_faults(
    cluster: World,
    books: Books,
    chance: random.Random,
    report: Report,
    waits: Waits,
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
        with waits.named("a timer, or a process to be started again"):
            cluster.turn()
        now = time.monotonic()
        if has_begun and plan and now >= due_at:
            at = time.time()
            kind = plan.pop(0)
            hit: Hit | None = None
            try:
                with waits.named(f"the fault {kind}"), suppress(*OUTAGE):
                    hit = FAULTS[kind](cluster, chance)
            except Exception as error:
                hit = Hit(note=f"{type(error).__name__}: {error}")
            if hit is None:
                # Nothing to hit now, or a service that another fault took away: the kind comes again, later.
                plan.insert(min(len(plan), chance.randrange(1, 4)), kind)
                due_at = now + 0.1
            else:
                report.done.append(Done(kind, at, hit))
                due_at = now + chance.uniform(*every_s)
        if now >= look_at and not cluster.frozen:
            look_at = now + 0.3
            report.loads.append(os.getloadavg()[0])
            with waits.named("the books"), suppress(*OUTAGE):
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
    # Python may still import: then the signal is not handled yet.
    young = {role for role, process in cluster.running.items() if not _handles_sigterm(process.pid)}
    for process in cluster.running.values():
        process.terminate()
    for role, process in cluster.running.items():
        try:
            status = process.wait(120)
        except Exception:
            wrong.append(f"{role} does not end on SIGTERM")
        else:
            if status != 0 and not (status == -signal.SIGTERM and role in young):
                wrong.append(f"{role} ended with {status}")
    deadline = time.monotonic() + _LEFT_WITHIN_S
    while cluster.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    return wrong


def _handles_sigterm(pid: int) -> bool:
    """Whether the process catches the signal, or blocks it and waits for it."""
    with suppress(OSError):
        fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return bool((int(fields["SigCgt"], 16) | int(fields["SigBlk"], 16)) >> (signal.SIGTERM - 1) & 1)
    return False


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
    with suppress(*OUTAGE):
        rows = books.rows(
            "select t.id, t.state, t.attempt, t.worker_id, t.lease_expires_at - hn_now_1() as lease, "
            "t.not_before - hn_now_1() as due, hn_now_1() - t.queued_at as queued from hn_tickets t "
            "join hn_studies s on s.id = t.study_id where s.name <> 'poisoned' and t.state <> 'closed' limit 8"
        )
        return "; ".join(map(str, rows))
    return "the database does not answer"


def _keep(folder: Path, books: Books, report: Report) -> None:
    """For who looks into a failed run: the attempts and the faults, beside the logs."""
    with suppress(*OUTAGE):
        rows = books.rows("select * from hn_attempts order by started_at")
        text = [json.dumps({k: v for k, v in row._asdict().items() if k != "memory"}, default=str) for row in rows]
        (folder / "attempts.jsonl").write_text("\n".join(text))
    faults = [
        f"{done.at:.3f} {done.kind} {[*done.hit.victims]} {done.hit.lasts_s:.1f} {done.hit.note}"
        for done in report.done
    ]
    (folder / "faults.txt").write_text("\n".join(faults))


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
