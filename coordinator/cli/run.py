"""Commands that run studies: start, submit; and exec and init-deploy."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from highnoon.coordinator.cli.command_io import (
    AsJson,
    StudyFile,
    TrialsInAll,
    environment_with,
    is_embedded,
    leaving,
    ledger,
    mistake,
    print_json,
    why_no_coordinator,
    why_nothing_starts,
)
from highnoon.shared.runtime.terminal import open_console, say

if TYPE_CHECKING:
    from highnoon.shared.runtime.settings import Settings


MaybeStudyFile = Annotated[
    Path | None, typer.Argument(help="TOML, JSON or YAML. Without one it serves.", metavar="STUDY_FILE")
]
Workers = Annotated[int | None, typer.Option(help="Trials at a time, here. Default: one per core.", min=1, metavar="N")]
BundleDir = Annotated[
    Path | None, typer.Option("--bundle", help="Send this folder along as the code that workers run.", metavar="DIR")
]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress and wait for the end.")]
Callbacks = Annotated[
    list[str] | None,
    typer.Option(
        "--callback",
        help="With --wait: f(study, trial), called as trials end. May be repeated.",
        metavar="FILE.py:NAME",
    ),
]
DeployFolder = Annotated[Path, typer.Argument(help="The folder with compose.yaml.", metavar="DIR")]
ShellCommand = Annotated[list[str], typer.Argument(help="The command and its arguments.", metavar="COMMAND")]


def start(study_file: MaybeStudyFile = None, workers: Workers = None, n_trials: TrialsInAll = None) -> None:
    """Run a study to its end, or serve until Ctrl-C.

    Without HIGHNOON_DATABASE_URL and HIGHNOON_REDIS_URL it brings its own PostgreSQL, Redis, workers and Flower,
    with all data under .highnoon. With them it is the coordinator of a cluster. Started again with the same study
    it goes on where it ended.

    Example: python -m coordinator start study.toml --workers 2
    """
    from highnoon.coordinator.local.start import StartOptions
    from highnoon.coordinator.local.start import run as run_start
    from highnoon.shared.objective.study_file import load_study_file
    from highnoon.shared.runtime.settings import load_settings

    if n_trials is not None and study_file is None:
        hint = f"Write python -m coordinator start STUDY_FILE --n-trials {n_trials}."
        raise mistake("--n-trials", "needs a STUDY_FILE", n_trials, hint)
    settings = load_settings()
    spec = None if study_file is None else load_study_file(study_file, _overrides(n_trials))
    slots = _slots(workers, settings)
    raise typer.Exit(run_start(StartOptions(settings=settings, spec=spec, slots=slots, console=open_console())))


def submit(
    study_file: StudyFile,
    wait: Wait = False,
    n_trials: TrialsInAll = None,
    json: AsJson = False,
    bundle: BundleDir = None,
    callback: Callbacks = None,
) -> None:
    """Hand a study to a running coordinator.

    Example: python -m coordinator submit study.toml --wait
    """
    from highnoon.coordinator.cli import submit_options
    from highnoon.coordinator.cli.failures import report_end
    from highnoon.coordinator.cli.progress import watch
    from highnoon.shared.domain.errors import ServiceUnavailable
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.runtime.terminal import Exit
    from highnoon.shared.store.code_upload import upload_code
    from highnoon.shared.store.submission import submit as submit_study
    from highnoon.shared.store.submission import with_git

    if callback and not wait:
        raise mistake("--callback", "is called only while the command waits", callback[0], "Add --wait.")
    settings = load_settings()
    called = submit_options.callbacks_named(callback or ())
    spec, code = submit_options.read_study(study_file, _overrides(n_trials), bundle, settings)
    missing = why_no_coordinator(settings)
    if wait and missing:
        raise ServiceUnavailable(missing)
    console = open_console(stderr=json)
    with ledger(settings) as access:
        upload_code(spec, code, access, settings, is_embedded=is_embedded(settings))
        began = access.studies.clock()
        submission = submit_study(with_git(spec), access)
        name = submission.record.name
        if json:
            print_json({"name": name, "trials": submission.trials, "added": submission.added})
        else:
            say(console, f"study {name}: {submit_options.trials_in_words(submission, n_trials)}")
        if settings.database_url is not None:
            missing = why_nothing_starts(access.database)
        if missing and not submission.record.is_over:
            say(console, f"it waits: {missing}", style="yellow")
        if wait:
            callbacks = submit_options.CallbackRunner(submission.record, called, access)
            with leaving(f"study {name}", console):
                ended = watch(
                    name,
                    access,
                    console,
                    go_on=lambda say: not why_no_coordinator(settings) and callbacks.go_on(say),
                )
                if ended is not None:
                    callbacks.finish()
            if ended is None and (missing := why_no_coordinator(settings)):
                raise ServiceUnavailable(missing)
            if ended is None:
                say(console, f"a callback stopped it: study {name} is paused, and what runs ends by itself")
                raise typer.Exit(Exit.INTERRUPTED)
            since = 0.0 if submission.record.is_over else began
            raise typer.Exit(report_end(ended, access, console, since=since))


def execute(command: ShellCommand) -> None:
    """Run a program on the studies: OPTUNA_STORAGE is set for it.

    Example: python -m coordinator exec optuna trials --study-name digits
    """
    program = shutil.which(command[0]) or shutil.which(command[0], path=str(Path(sys.executable).parent))
    if program is None:
        raise mistake("COMMAND", "is not on PATH", command[0])
    from highnoon.shared.store.audit import AuditLog

    with ledger() as access:
        AuditLog(access.database).add("exec", program=Path(program).name)
        environ = {**environment_with(access.url), "OPTUNA_STORAGE": access.url}
        raise typer.Exit(_exit_code_of([program, *command[1:]], environ))


def init_deploy(folder: DeployFolder = Path("deploy")) -> None:
    """Make the passwords and tokens for deploy/compose.yaml.

    Each goes into a file of its own in DIR/secrets, for its owner alone. Existing secrets stay; DIR/.env gets the
    user of the containers where it lacks it.

    Example: python -m coordinator init-deploy
    """
    from highnoon.coordinator.local.deployment import prepare

    for line in prepare(folder):
        typer.echo(line)


def _exit_code_of(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs a program to its end. Ctrl-C is for the program alone; where a signal ends it, the code is a shell's."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        # A function, since the program would inherit SIG_IGN: in it the signal has its default effect.
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run(command, env=environ, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _overrides(n_trials: int | None) -> dict[str, object]:
    return {} if n_trials is None else {"n_trials": n_trials}


def _slots(workers: int | None, settings: Settings) -> int:
    from highnoon.shared.memory.cores import usable_cores

    if workers is not None and not is_embedded(settings):
        hint = "Workers of a cluster are started by python -m workers start."
        raise mistake("--workers", "is for a start without addresses", workers, hint)
    return workers or usable_cores()
