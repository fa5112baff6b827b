"""WandbLogger: a run per finished trial in a project of Weights & Biases, grouped by study; online or offline."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from highnoon.callbacks.extras import require
from highnoon.callbacks.finished import FinishedTrial, finished
from highnoon.shared.domain.states import TrialState

if TYPE_CHECKING:
    from highnoon.shared.store.callbacks import FrozenTrial, Study

_WHOLE = "highnoon.whole"
"""A file in the folder of a run that was written to its end."""


class WandbLogger:
    """Logs to `project`. Without a `mode` (`online`, `offline`) wandb decides. Raises UserInputError without wandb.

    A run's id is made of the study's name and the trial, so that writing one again adds no second run. What was
    written is remembered in `dir` (by default where the program runs).
    """

    def __init__(
        self,
        project: str,
        *,
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        dir: str | Path | None = None,
    ) -> None:
        require("wandb", extra="wandb")
        self._project = project
        self._entity = entity
        self._mode = mode
        self._folder = Path(dir or ".").absolute()

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Logs the trial unless its run is whole."""
        ended = finished(study, trial)
        if ended is None:
            return
        run_id = _id(ended)
        if any(self._folder.glob(f"wandb/*run-*-{run_id}/{_WHOLE}")):
            return
        run = self._begun(ended, run_id)
        try:
            for report in ended.trial.reports:
                run.log({"report": report.value}, step=report.step)
            run.summary.update({**ended.results, **_words(ended)})
        finally:
            run.finish(exit_code=int(ended.trial.state is TrialState.FAIL))
        (Path(run.dir).parent / _WHOLE).touch()

    def _begun(self, ended: FinishedTrial, run_id: str) -> Any:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=self._project,
            entity=self._entity,
            dir=str(self._folder),
            id=run_id,
            name=f"trial {ended.trial.number}",
            group=ended.study,
            config=dict(ended.trial.params),
            mode=self._mode,
            resume="allow",
            # Beside a run of the person's own; and nothing of this process but what is said here.
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True
            ),
        )


def _id(ended: FinishedTrial) -> str:
    return hashlib.sha256(f"{ended.study}/{ended.key}".encode()).hexdigest()[:32]


def _words(ended: FinishedTrial) -> dict[str, Any]:
    words = {"study": ended.study, "trial": ended.trial.number, "state": str(ended.trial.state)}
    return {**words, **({"cause": ended.cause, "message": ended.message} if ended.cause else {})}
