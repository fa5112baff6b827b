"""The command export: all trials of a study into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from highnoon.coordinator.cli.command_io import StudyName, check_output_folder, mistake
from highnoon.coordinator.cli.reading import Storage, reading
from highnoon.shared.domain.errors import nearest

_FORMATS = ("csv", "jsonl", "parquet")

AsFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="csv, jsonl or parquet. Default: by the file's ending, else csv.",
        metavar="FORMAT",
        autocompletion=lambda: list(_FORMATS),
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where to write. Default: print it.", metavar="FILE")
]


def export(study: StudyName, format: AsFormat = None, output: Output = None, storage: Storage = None) -> None:
    """Write all trials of a study as CSV, JSON lines or Parquet.

    Example: python -m coordinator export digits -o digits.csv
    """
    from highnoon.coordinator.cli.tables import near
    from highnoon.shared.views.formats import plural
    from highnoon.shared.views.trial_export import csv_head, csv_rows, json_lines, parquet
    from highnoon.shared.views.trials import metric_names

    kind = format or (output.suffix[1:].lower() if output and output.suffix else "csv")
    if kind not in _FORMATS:
        key = "--output" if format is None else "--format"
        raise mistake(key, "is no format of trials", format or str(output), nearest(kind, _FORMATS))
    if output is None and kind == "parquet":
        raise mistake("--output", "is needed for parquet, which is no text")
    if output is not None:
        check_output_folder(output)
    with reading(storage) as reader:
        summary, view = reader.study(study), reader.view(study)
        trials = view.trials()
        names, goals = list(view.space()), view.objectives()
        notes = reader.notes(study)
        places = reader.places(summary)
    if kind == "parquet":
        content = parquet(trials, names, places, goals, notes)
    else:
        metrics = metric_names(trials)
        head = csv_head(names, goals, metrics, notes)
        text = head + csv_rows(trials, names, places, goals, metrics, notes) if kind == "csv" else ""
        content = (text or json_lines(trials, places, notes)).encode()
    if output is None:
        typer.echo(content, nl=False)
    else:
        output.write_bytes(content)
        typer.echo(f"wrote {plural(len(trials), 'trial')} to {near(output)}")
