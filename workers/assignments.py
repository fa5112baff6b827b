"""What the trial process of an attempt is given."""

from __future__ import annotations

from pathlib import Path

from highnoon.shared.objective.repetition import Repeats
from highnoon.shared.objective.seeds import trial_seed
from highnoon.shared.objective.staged_files import SavingLimits
from highnoon.workers.claim import StartedAttempt
from highnoon.workers.node import Node
from highnoon.workers.trial.process import Assignment


def assignment_of(started: StartedAttempt, node: Node, *, checkpoints: Path, saving: SavingLimits) -> Assignment:
    """Of an attempt on this node, with its folder of checkpoints and what may be saved; resources are added to it."""
    lease, spec = started.lease, started.study.spec
    return Assignment(
        study=spec.name,
        ticket=lease.ticket_id,
        attempt=lease.attempt,
        trial_number=lease.trial_number,
        objective=spec.objective,
        code_dir=started.code.folder,
        code_is_bundle=spec.bundle is not None,
        params=lease.params,
        defines_by_run=spec.defines_by_run,
        scoring=spec.scoring,
        memory=spec.memory,
        confinement=node.confinement,
        repeats=Repeats(count=spec.repeats, seed=trial_seed(spec.seed or 0, lease.ordinal), bar=started.repeat_bar),
        environment=spec.environment,
        work_dir=str(node.work_dir(spec.name, lease.trial_number)),
        checkpoint_dir=str(checkpoints),
        saving=saving,
        settings={} if lease.extension is None else lease.extension.settings,
    )
