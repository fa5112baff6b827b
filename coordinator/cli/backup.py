"""Commands that copy one study to one file, and back into this database or another one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from highnoon.coordinator.cli.command_io import StudyName, check_output_folder, ledger, print_sentence

BackupFile = Annotated[Path, typer.Argument(help="What backup wrote.", metavar="FILE")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where to. Default: STUDY.backup.jsonl here.", metavar="FILE")
]
NewName = Annotated[str | None, typer.Option("--as", help="Give the study another name.", metavar="NAME")]


def backup(study: StudyName, output: Output = None) -> None:
    """Write a study into one file, with all that belongs to it.

    All its trials and attempts, and the code that was sent along. The study may run meanwhile. A file of that name is
    replaced when the new one is whole.

    Example: python -m coordinator backup digits -o digits.jsonl
    """
    from highnoon.shared.store.backup import backup as write
    from highnoon.shared.views.formats import plural, size

    path = Path(f"{study}.backup.jsonl") if output is None else output
    check_output_folder(path)
    with ledger() as access:
        copied = write(access.studies.get(study), access, path)
    counts = f"{plural(copied.trials, 'trial')} and {plural(copied.attempts, 'attempt')}"
    print_sentence(f"wrote {path}: study {study}, {counts}, {size(path.stat().st_size)}")


def restore(file: BackupFile, name: NewName = None) -> None:
    """Make the study of a backup in this database.

    The database may be another one, or new. All of it is there afterwards, or nothing. It goes on where the backup
    found it; what ran then waits again. Restore only files of your own: who can change a file can change what your
    workers run.

    Example: python -m coordinator restore digits.jsonl --as digits-again
    """
    from highnoon.shared.store.restore import readable
    from highnoon.shared.store.restore import restore as read
    from highnoon.shared.views.formats import plural

    readable(file)  # before a database is made for it
    with ledger(create=True) as access:
        copied = read(file, access, name=name)
        record = access.studies.get(copied.study)
    counts = f"{plural(copied.trials, 'trial')} and {plural(copied.attempts, 'attempt')}"
    print_sentence(f"study {copied.study} is {record.state} again, with {counts}, as of {copied.made_at}")
