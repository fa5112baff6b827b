"""WandbLogger: a run per finished trial in a project of Weights & Biases, grouped by study; online or offline."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from highnoon.callbacks.finished_trial import FinishedTrial, TrialLogger
from highnoon.shared.domain.states import TrialState
from highnoon.shared.runtime.extras import require

_WHOLE = "highnoon.whole"
"""A file in the folder of a run that was written to its end."""


class WandbLogger(TrialLogger):
    """Logs to `project`. Without a `mode` (`online`, `offline`) wandb decides. Raises UserInputError without wandb.

    A run's id is made of the study's name and the trial, so that writing one again adds no second run. Markers of what
    was written are kept in `dir` (by default the current folder).
    """

    def __init__(
        self,
        project: str,
        *,
        entity: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        dir: str | Path | None = None,
    ) -> None:
        require({"WandbLogger": ["wandb"]})
        self._project = project
        self._entity = entity
        self._mode = mode
        self._folder = Path(dir or ".").absolute()

    def _write(self, ended: FinishedTrial) -> None:
        """Nothing when its run is whole."""
        run_id = hashlib.sha256(f"{ended.study}/{ended.key}".encode()).hexdigest()[:32]
        if any(self._folder.glob(f"wandb/*run-*-{run_id}/{_WHOLE}")):
            return
        run = self._begun(ended, run_id)
        try:
            for report in ended.trial.reports:
                run.log({"report": report.value}, step=report.step)
            ending = {"cause": ended.cause, "message": ended.message} if ended.cause else {}
            names = {"study": ended.study, "trial": ended.trial.number, "state": str(ended.trial.state)}
            run.summary.update({**ended.results, **names, **ending})
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
            # Beside a run of the user's own; and nothing of this process but what is given here.
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True
            ),
        )
