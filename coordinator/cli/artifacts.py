"""The command artifacts: files that trials have saved, listed or copied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from highnoon.coordinator.cli.command_io import (
    AsJson,
    StudyName,
    mistake,
    no_result,
    no_such_trial,
    print_json,
    print_table,
)
from highnoon.coordinator.cli.reading import Storage, reading
from highnoon.shared.domain.artifact import listed

OneTrial = Annotated[int | None, typer.Argument(help="A trial's number. Default: all trials.", metavar="TRIAL")]
Into = Annotated[
    Path | None,
    typer.Option("--download", "-d", help="Copy the files into this folder, one for each trial.", metavar="DIR"),
]


def artifacts(
    study: StudyName, trial: OneTrial = None, download: Into = None, storage: Storage = None, json: AsJson = False
) -> None:
    """List the files that trials have saved, or copy them.

    Example: python -m coordinator artifacts digits 3 --download results
    """
    from highnoon.coordinator.cli.tables import aligned, near
    from highnoon.shared.domain.errors import FileStoreError, NoSuchFile
    from highnoon.shared.runtime.file_store import download as copy
    from highnoon.shared.runtime.file_store import store_of
    from highnoon.shared.runtime.settings import load_settings
    from highnoon.shared.views.formats import plural, size
    from highnoon.shared.views.trials import artifact_object

    if download is not None and download.exists() and not download.is_dir():
        raise mistake("--download", "is no folder", str(download))
    with reading(storage) as reader:
        reader.study(study)
        found = listed(reader.store.artifacts(study, trial), trial)
        if trial is not None and not found and trial not in range(count := len(reader.view(study).trials())):
            raise no_such_trial(f"no trial of study {study}", trial, count)
    if json and download is None:
        print_json([{"trial": number, **artifact_object(artifact)} for number, artifact in found])
        return
    if not found:
        of_trial = f"study {study} has no" if trial is None else f"trial {trial} of study {study} has no"
        raise no_result(f"{of_trial} artifact", next_step="hn.save_artifact(path) in the objective saves one")
    if download is None:
        rows = [[str(number), one.name, size(one.size_bytes), (one.sha256 or "")[:12]] for number, one in found]
        print_table(aligned([["trial", "file", "size", "sha256"], *rows], right={0, 2}))
        return
    store = store_of(load_settings())
    for number, artifact in found:
        try:
            copy(store, artifact, download / str(number) / artifact.name)
        except NoSuchFile as error:
            raise FileStoreError(f"{error}; HIGHNOON_ARTIFACTS_URL must name the place of the study's files") from None
    typer.echo(f"wrote {plural(len(found), 'file')} to {near(download)}")
