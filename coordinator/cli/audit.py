"""The command that shows the audit: who changed what, and when."""

from __future__ import annotations

from typing import Annotated

import typer

from highnoon.coordinator.cli.command_io import AsJson, ledger, print_json, print_sentence, print_table, study_names
from highnoon.coordinator.cli.tables import audit_table
from highnoon.shared.runtime.terminal import open_console

MaybeStudyName = Annotated[
    str | None, typer.Argument(help="Of this study only.", metavar="STUDY", autocompletion=study_names)
]
Limit = Annotated[
    int, typer.Option("--limit", "-n", help="At most so many, the newest.", min=1, max=1_000_000, metavar="N")
]


def audit(study: MaybeStudyName = None, limit: Limit = 50, json: AsJson = False) -> None:
    """Show who changed what, and which programs exec ran.

    Studies that were deleted are in it, too.

    Example: python -m coordinator audit digits
    """
    from dataclasses import asdict

    from highnoon.shared.store.audit import AuditLog

    with ledger() as access:
        entries = AuditLog(access.database).entries(study=study, limit=limit)
        if study is not None and not entries:  # with entries it may be one that was deleted
            access.studies.get(study)
    if json:
        print_json([asdict(entry) for entry in entries])
    elif entries:
        print_table(audit_table(entries, open_console()))
    else:
        print_sentence("no change was made yet" if study is None else f"no change was made to a study named {study!r}")
