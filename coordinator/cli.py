"""The command line: parses, calls, prints. No decision is made here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from coordinator import doctor as doctors
from coordinator.access import Access, ledger_access
from coordinator.flower import run_flower
from coordinator.progress import watch
from coordinator.report import (
    params_table,
    spelled,
    studies_table,
    study_object,
    trial_object,
    trials_table,
)
from coordinator.start import Errand, report_end
from coordinator.start import run as run_start
from coordinator.submission import submit as submit_study
from shared.errors import InvalidInput, Problem, StudyConflict
from shared.exits import Exit
from shared.ledger.studies import StudyRecord
from shared.settings import load_settings
from shared.states import Ending, TrialState
from shared.study import StudySpec, load_study_file

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Hyperparameter studies on Celery workers: start them, steer them, read them.",
    epilog="Begin with: python -m coordinator start examples/digits/study.toml --workers 2",
)

StudyName = Annotated[str, typer.Argument(help="The study's name.", metavar="STUDY")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Trials = Annotated[int | None, typer.Option("--n-trials", help="Trials in all; wins over the file's n_trials.")]

_RETRIED = (Ending.FAILED, Ending.TIMED_OUT, Ending.KILLED, Ending.LOST)


@app.command()
def start(
    study_file: Annotated[Path | None, typer.Argument(help="TOML, JSON or YAML; without one it serves.")] = None,
    workers: Annotated[int | None, typer.Option(help="Trials at a time here. Default: one per core.")] = None,
    n_trials: Trials = None,
) -> None:
    """Runs a study to its end, or serves until Ctrl-C.

    Without HIGHNOON_DATABASE_URL and HIGHNOON_REDIS_URL it brings its own PostgreSQL, Redis, workers and Flower,
    with all data under .highnoon/. With them it is the coordinator of a cluster.

    Example: python -m coordinator start study.toml --workers 2
    """
    settings = load_settings()
    spec = None if study_file is None else _read(study_file, n_trials)
    slots = _slots(workers)
    raise typer.Exit(run_start(Errand(settings=settings, spec=spec, slots=slots, console=Console())))


@app.command()
def submit(
    study_file: Annotated[Path, typer.Argument(help="TOML, JSON or YAML.")],
    wait: Annotated[bool, typer.Option("--wait", help="Show progress and wait for the end.")] = False,
    n_trials: Trials = None,
    as_json: AsJson = False,
) -> None:
    """Hands a study to a running coordinator.

    Example: python -m coordinator submit study.toml --wait
    """
    settings = load_settings()
    spec = _read(study_file, n_trials)
    console = Console(stderr=as_json)
    with ledger_access(settings) as access:
        submission = submit_study(spec, access)
        name = submission.record.name
        if wait:
            standing = watch(name, access.studies, console, go_on=lambda _: True)
            code = Exit.INTERRUPTED if standing is None else report_end(standing, access, console)
            raise typer.Exit(code)
        if as_json:
            _print_json({"name": name, "trials": submission.trials, "added": submission.added})
        else:
            console.print(f"study {name}: {submission.trials} trials, {submission.added} added", highlight=False)


@app.command("list")
def list_studies(as_json: AsJson = False) -> None:
    """Lists all studies with their progress."""
    with ledger_access(load_settings()) as access:
        rows = [_standing(record, access) for record in access.studies.all()]
    if as_json:
        _print_json([study_object(*row) for row in rows])
    else:
        Console().print(studies_table(rows))


@app.command()
def status(study: StudyName, as_json: AsJson = False) -> None:
    """Shows how far a study is."""
    with ledger_access(load_settings()) as access:
        row = _standing(access.studies.get(study), access)
    if as_json:
        _print_json(study_object(*row))
    else:
        Console().print(studies_table([row]))


@app.command()
def best(study: StudyName, as_json: AsJson = False) -> None:
    """Prints the best parameters found so far."""
    with ledger_access(load_settings()) as access:
        trial = access.optuna(access.studies.get(study)).best_trial()
    if trial is None:
        typer.echo(f"study {study} has no completed trial yet", err=True)
        raise typer.Exit(Exit.NO_RESULT)
    if as_json:
        _print_json({"number": trial.number, "value": trial.value, "params": trial.params})
        return
    console = Console()
    console.print(f"trial {trial.number}: value {spelled(trial.value)}", style="bold")
    console.print(params_table(trial.params))


@app.command()
def trials(
    study: StudyName,
    state: Annotated[TrialState | None, typer.Option(help="Only trials in this state.", case_sensitive=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Lists a study's trials, those of lost attempts included."""
    with ledger_access(load_settings()) as access:
        record = access.studies.get(study)
        found = access.optuna(record).trials(states=None if state is None else (state,))
        attempts = access.studies.attempts(record.id)
    if as_json:
        _print_json([trial_object(trial) for trial in found])
    else:
        Console().print(trials_table(found, attempts=attempts))


@app.command()
def logs(study: StudyName, trial: Annotated[int, typer.Argument(help="The trial's number.")]) -> None:
    """Prints how a trial's attempt ended and the last lines that it printed."""
    with ledger_access(load_settings()) as access:
        attempts = access.studies.attempts(access.studies.get(study).id, trial_number=trial)
    if not attempts:
        raise InvalidInput("command line", [Problem(key="TRIAL", message=f"no attempt of {study} ran it", value=trial)])
    attempt = attempts[-1]
    typer.echo(f"host {attempt.host}, attempt {attempt.attempt}, {attempt.ending or 'running'}, log {attempt.log_path}")
    if attempt.message:
        typer.echo(attempt.message)
    typer.echo(attempt.log_tail or "")


@app.command()
def pause(study: StudyName) -> None:
    """Starts nothing new; running trials end by themselves."""
    with ledger_access(load_settings()) as access:
        record = access.studies.get(study)
        _require(access.studies.pause(record.id), record, "only a running study can be paused")
    typer.echo(f"study {study} is paused")


@app.command()
def resume(study: StudyName) -> None:
    """Goes on with a paused study."""
    with ledger_access(load_settings()) as access:
        record = access.studies.get(study)
        _require(access.studies.resume(record.id), record, "only a paused study can be resumed")
    typer.echo(f"study {study} goes on")


@app.command()
def cancel(study: StudyName) -> None:
    """Gives a study up: what waits is dropped, what runs is stopped."""
    with ledger_access(load_settings()) as access:
        record = access.studies.get(study)
        _require(access.studies.cancel(record.id), record, "it is over already")
    typer.echo(f"study {study} is being cancelled")


@app.command()
def retry(
    study: StudyName,
    numbers: Annotated[list[int] | None, typer.Argument(help="Trial numbers; default: all that failed.")] = None,
) -> None:
    """Gives failed trials another go, with the same parameters."""
    with ledger_access(load_settings()) as access:
        record = access.studies.get(study)
        count = access.studies.retry(record.id, endings=_RETRIED, numbers=tuple(numbers or ()))
        _require(count > 0, record, "none of its closed trials failed" + (" among those numbers" if numbers else ""))
    typer.echo(f"study {study}: {count} trials wait for another attempt")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Prints each setting with its source and checks every service."""
    settings = load_settings()
    checks = doctors.examine(settings)
    if as_json:
        _print_json(doctors.as_object(settings, checks))
    else:
        doctors.show(settings, checks, Console())
    raise typer.Exit(Exit.OK if all(check.ok for check in checks) else Exit.SERVICE)


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(command: Annotated[list[str], typer.Argument(help="The command and its arguments.")]) -> None:
    """Runs a command with OPTUNA_STORAGE set to the studies' database.

    Example: python -m coordinator exec optuna trials --study-name digits
    """
    import shutil
    import subprocess

    program = shutil.which(command[0]) or shutil.which(command[0], path=str(Path(sys.executable).parent))
    if program is None:
        problem = Problem(key="COMMAND", message="is not on PATH", value=command[0])
        raise InvalidInput("command line", [problem])
    with ledger_access(load_settings()) as access:
        environ = {**os.environ, "OPTUNA_STORAGE": access.url, "HIGHNOON_DATABASE_URL": access.url}
        raise typer.Exit(subprocess.run([program, *command[1:]], env=environ, check=False).returncode)


@app.command(hidden=True)
def flower(port: Annotated[int, typer.Option()] = 5555) -> None:
    """Runs Flower on HIGHNOON_REDIS_URL, on loopback."""
    settings = load_settings()
    if settings.redis_url is None:
        raise InvalidInput("environment", [Problem(key="HIGHNOON_REDIS_URL", message="is not set")])
    run_flower(settings.redis_url, port=port)


def _read(path: Path, n_trials: int | None) -> StudySpec:
    return load_study_file(path, {} if n_trials is None else {"n_trials": n_trials})


def _slots(workers: int | None) -> int:
    if workers is None:
        return len(os.sched_getaffinity(0))
    if workers < 1:
        raise InvalidInput("command line", [Problem(key="--workers", message="must be at least 1", value=workers)])
    return workers


def _standing(record: StudyRecord, access: Access) -> tuple[StudyRecord, Any, float | None]:
    maximize = record.spec["direction"] == "maximize"
    return record, access.studies.counts(record.id), access.studies.best_value(record.id, maximize=maximize)


def _require(done: bool, record: StudyRecord, why_not: str) -> None:
    if not done:
        raise StudyConflict(f"study {record.name!r} is {record.state}: {why_not}")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))
