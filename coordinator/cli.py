"""The command line: parses, calls, prints. No decision is made here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator import deployment
from coordinator import doctor as doctors
from coordinator.access import is_embedded, ledger_access
from coordinator.ending import report_end
from coordinator.failures import account, notes
from coordinator.flower import PASSWORD, run_flower
from coordinator.progress import watch
from coordinator.report import (
    as_json,
    params_table,
    result_of,
    studies_table,
    study_object,
    trial_object,
    trials_table,
)
from coordinator.start import Errand
from coordinator.start import run as run_start
from shared.access import Access
from shared.embedded import attach
from shared.errors import InvalidInput, Problem, ServiceUnavailable, StudyConflict
from shared.exits import Exit
from shared.ledger.studies import StudyRecord
from shared.secret_files import with_secret_files
from shared.settings import Settings, load_settings
from shared.states import Ending, TrialState
from shared.study import StudySpec, load_study_file
from shared.submission import submit as submit_study
from shared.terminal import open_console, say

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Hyperparameter studies on Celery workers: start them, steer them, read them.",
    epilog="Begin with: python -m coordinator start examples/digits/study.toml",
)

StudyFile = Annotated[Path, typer.Argument(help="TOML, JSON or YAML.", metavar="STUDY_FILE")]
MaybeStudyFile = Annotated[
    Path | None, typer.Argument(help="TOML, JSON or YAML. Without one it serves.", metavar="STUDY_FILE")
]
StudyName = Annotated[str, typer.Argument(help="The study's name.", metavar="STUDY")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress and wait for the end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Trials = Annotated[int | None, typer.Option("--n-trials", help="Trials in all. Wins over the file's n_trials.")]
Workers = Annotated[int | None, typer.Option(help="Trials at a time, here. Default: one per core.", min=1)]
State = Annotated[TrialState | None, typer.Option(help="Only trials in this state.", case_sensitive=False)]
TrialNumber = Annotated[int, typer.Argument(help="The trial's number.", metavar="TRIAL")]
TrialNumbers = Annotated[
    list[int] | None, typer.Argument(help="Their numbers. Default: all that failed.", metavar="[TRIAL]...")
]
DeployFolder = Annotated[Path, typer.Argument(help="The folder with compose.yaml.", metavar="[DIR]")]
ShellCommand = Annotated[list[str], typer.Argument(help="The command and its arguments.", metavar="COMMAND...")]

_RETRIED = (Ending.FAILED, Ending.TIMED_OUT, Ending.KILLED, Ending.LOST)


@app.command()
def start(study_file: MaybeStudyFile = None, workers: Workers = None, n_trials: Trials = None) -> None:
    """Run a study to its end, or serve until Ctrl-C.

    Without HIGHNOON_DATABASE_URL and HIGHNOON_REDIS_URL it brings its own PostgreSQL, Redis, workers and Flower,
    with all data under .highnoon. With them it is the coordinator of a cluster. Started again with the same study
    it goes on where it ended.

    Example: python -m coordinator start study.toml --workers 2
    """
    settings = load_settings()
    spec = None if study_file is None else _read(study_file, n_trials)
    slots = _slots(workers, settings)
    raise typer.Exit(run_start(Errand(settings=settings, spec=spec, slots=slots, console=open_console())))


@app.command()
def submit(study_file: StudyFile, wait: Wait = False, n_trials: Trials = None, json: AsJson = False) -> None:
    """Hand a study to a running coordinator.

    Example: python -m coordinator submit study.toml --wait
    """
    settings = load_settings()
    spec = _read(study_file, n_trials)
    nobody = _why_nobody_coordinates(settings)
    if wait and nobody:
        raise ServiceUnavailable(nobody)
    console = open_console(stderr=json)
    with ledger_access(settings) as access:
        submission = submit_study(spec, access)
        name = submission.record.name
        if json:
            typer.echo(as_json({"name": name, "trials": submission.trials, "added": submission.added}))
        else:
            say(console, f"study {name}: {submission.trials} trials, {submission.added} added")
        if nobody:
            say(console, f"it waits: {nobody}", style="yellow")
        if wait:
            standing = watch(name, access.studies, console, go_on=lambda _: True)
            assert standing is not None, "nothing ends this watch but the study"
            raise typer.Exit(report_end(standing, access, console))


@app.command("list")
def list_studies(json: AsJson = False) -> None:
    """List all studies with their progress."""
    with ledger_access(load_settings()) as access:
        rows = [_standing(record, access) for record in access.studies.all()]
    if json:
        typer.echo(as_json([study_object(*row) for row in rows]))
    elif rows:
        _print_table(studies_table(rows))
    else:
        typer.echo("no studies yet")


@app.command()
def status(study: StudyName, json: AsJson = False) -> None:
    """Show how far a study is."""
    with ledger_access(load_settings()) as access:
        row = _standing(access.study(study), access)
    if json:
        typer.echo(as_json(study_object(*row)))
    else:
        _print_table(studies_table([row]))


@app.command()
def best(study: StudyName, json: AsJson = False) -> None:
    """Print the best parameters found so far."""
    with ledger_access(load_settings()) as access:
        trial = access.optuna(access.study(study)).best_trial()
    if trial is None:
        typer.echo(f"study {study} has no completed trial yet", err=True)
        raise typer.Exit(Exit.NO_RESULT)
    if json:
        kept = ("number", "value", "loss", "params_count", "params")
        typer.echo(as_json({name: trial_object(trial)[name] for name in kept}))
    else:
        _print_table([f"trial {trial.number}: {result_of(trial)}", *params_table(trial.params)])


@app.command()
def trials(study: StudyName, state: State = None, json: AsJson = False) -> None:
    """List a study's trials, those of lost attempts included."""
    with ledger_access(load_settings()) as access:
        record = access.study(study)
        found = access.optuna(record).trials(states=None if state is None else (state,))
        attempts = access.studies.attempts(record.id)
    if json:
        typer.echo(as_json([trial_object(trial) for trial in found]))
    else:
        _print_table(trials_table(found, notes(attempts), open_console()))


@app.command()
def logs(study: StudyName, trial: TrialNumber) -> None:
    """Print how a trial ended, and the last lines that it printed."""
    with ledger_access(load_settings()) as access:
        record = access.study(study)
        attempts = access.studies.attempts(record.id, trial_number=trial)
        if not attempts:
            raise _mistake("TRIAL", f"no attempt of study {study} has this number", trial)
        told = account(attempts[-1], access.traceback(record, trial))
    typer.echo("\n".join(told))


@app.command()
def pause(study: StudyName) -> None:
    """Start nothing new; running trials end by themselves."""
    with ledger_access(load_settings()) as access:
        record = access.study(study)
        _require(access.studies.pause(record.id), record, "only a running study can be paused")
    typer.echo(f"study {study} is paused")


@app.command()
def resume(study: StudyName) -> None:
    """Go on with a paused study."""
    with ledger_access(load_settings()) as access:
        record = access.study(study)
        _require(access.studies.resume(record.id), record, "only a paused study can be resumed")
    typer.echo(f"study {study} goes on")


@app.command()
def cancel(study: StudyName) -> None:
    """Give a study up: what waits is dropped, what runs is stopped."""
    with ledger_access(load_settings()) as access:
        record = access.study(study)
        _require(access.studies.cancel(record.id), record, "it is over already")
    typer.echo(f"study {study} is being cancelled")


@app.command()
def retry(study: StudyName, numbers: TrialNumbers = None) -> None:
    """Give failed trials another go, with the same parameters."""
    with ledger_access(load_settings()) as access:
        record = access.study(study)
        count = access.studies.retry(record.id, endings=_RETRIED, numbers=tuple(numbers or ()))
        _require(count > 0, record, "none of its closed trials failed" + (" among those numbers" if numbers else ""))
    typer.echo(f"study {study}: {count} trials wait for another attempt")


@app.command()
def doctor(json: AsJson = False) -> None:
    """Print each setting with its source, and check every service."""
    settings = load_settings()
    checks = doctors.examine(settings)
    if json:
        typer.echo(as_json(doctors.as_object(settings, checks)))
    else:
        doctors.show(settings, checks, open_console())
    raise typer.Exit(Exit.OK if all(check.ok for check in checks) else Exit.SERVICE)


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(command: ShellCommand) -> None:
    """Run a command with OPTUNA_STORAGE set to the studies' database.

    Example: python -m coordinator exec optuna trials --study-name digits
    """
    program = shutil.which(command[0]) or shutil.which(command[0], path=str(Path(sys.executable).parent))
    if program is None:
        raise _mistake("COMMAND", "is not on PATH", command[0])
    with ledger_access(load_settings()) as access:
        environ = {**os.environ, "OPTUNA_STORAGE": access.url, "HIGHNOON_DATABASE_URL": access.url}
        raise typer.Exit(subprocess.run([program, *command[1:]], env=environ, check=False).returncode)


@app.command("init-deploy")
def init_deploy(folder: DeployFolder = Path("deploy")) -> None:
    """Make the secrets that deploy/compose.yaml needs; what exists stays as it is.

    Example: python -m coordinator init-deploy
    """
    for line in deployment.prepare(folder):
        typer.echo(line)


@app.command(hidden=True)
def flower(
    port: Annotated[int, typer.Option()] = 5555, address: Annotated[str, typer.Option()] = "127.0.0.1"
) -> None:
    """Run Flower on HIGHNOON_REDIS_URL; beyond loopback with HIGHNOON_FLOWER_PASSWORD."""
    settings = load_settings()
    if settings.redis_url is None:
        raise InvalidInput("environment", [Problem(key="HIGHNOON_REDIS_URL", message="is not set")])
    told, _ = with_secret_files(os.environ)
    run_flower(settings.redis_url, port=port, address=address, password=told.get(PASSWORD) or None)


def _read(path: Path, n_trials: int | None) -> StudySpec:
    return load_study_file(path, {} if n_trials is None else {"n_trials": n_trials})


def _slots(workers: int | None, settings: Settings) -> int:
    if workers is not None and not is_embedded(settings):
        hint = "Workers of a cluster are started by python -m workers start."
        raise _mistake("--workers", "is for a start without addresses", workers, hint)
    return workers or len(os.sched_getaffinity(0))


def _why_nobody_coordinates(settings: Settings) -> str:
    """Empty when somebody may: only of the embedded stack is it known without asking."""
    if settings.database_url is not None or attach(settings.home) is not None:
        return ""
    return f"no coordinator runs in {settings.home} now; python -m coordinator start runs one"


def _standing(record: StudyRecord, access: Access) -> tuple[StudyRecord, Any, float | None]:
    maximize = record.spec["direction"] == "maximize"
    return record, access.studies.counts(record.id), access.studies.best_value(record.id, maximize=maximize)


def _require(done: bool, record: StudyRecord, why_not: str) -> None:
    if not done:
        raise StudyConflict(f"study {record.name!r} is {record.state}: {why_not}")


def _mistake(key: str, message: str, value: object, hint: str = "") -> InvalidInput:
    return InvalidInput("command line", [Problem(key=key, message=message, value=value, hint=hint)])


def _print_table(lines: Sequence[str]) -> None:
    console = open_console()
    for number, line in enumerate(lines):
        console.print(line, style=None if number else "bold", soft_wrap=True)
