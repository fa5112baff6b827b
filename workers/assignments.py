"""What the trial process of an attempt is given."""

from __future__ import annotations

from pathlib import Path

from highnoon.shared.objective.seeds import trial_seed
from highnoon.shared.objective.staged_files import SavingLimits
from highnoon.shared.objective.trial_task import TrialTask
from highnoon.workers.claim import StartedAttempt
from highnoon.workers.node import Node
from highnoon.workers.trial.process import SAVED_FILES, Assignment


def assignment_of(started: StartedAttempt, node: Node, *, checkpoints: Path, saving: SavingLimits) -> Assignment:
    """Of an attempt on this node, with its folder of checkpoints and what may be saved; resources are added to it."""
    lease, spec = started.lease, started.study.spec
    work_dir = node.work_dir(spec.name, lease.trial_number)
    return Assignment(
        task=TrialTask.of(
            spec,
            number=lease.trial_number,
            params=lease.params,
            seed=trial_seed(spec.seed or 0, lease.ordinal),
            repeat_bar=started.repeat_bar,
            saved=work_dir.joinpath(*SAVED_FILES),
            saving=saving,
            checkpoints=checkpoints,
            extension=lease.extension,
        ),
        ticket=lease.ticket_id,
        attempt=lease.attempt,
        objective=spec.objective,
        code_dir=started.code.folder,
        code_is_bundle=spec.bundle is not None,
        confinement=node.confinement,
        work_dir=str(work_dir),
    )
