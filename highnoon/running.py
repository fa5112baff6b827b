"""What an objective may say about the trial that runs in this process, and ask about it.

The same calls in process and in a worker's trial process, the first three also as methods of HPOTrialManager: they
speak through the channel that the runner of the attempt has bound.
"""

from __future__ import annotations

from pathlib import Path

from highnoon.shared.objective.trial_context import channel, checkpoints


def report(value: float, step: int) -> None:
    """Records an intermediate value, usually once per epoch; the first value of a step wins.

    Raises NoTrialRunning outside an objective, InvalidInput for what is no number or no step.
    """
    channel().report(value, step)


def should_prune() -> bool:
    """True when the study's pruner would end this trial now. Raises NoTrialRunning outside an objective."""
    return channel().should_prune()


def report_params(params: int, active_params: int | None = None) -> None:
    """Says how many parameters this trial's model has; needed before the first report where there is a param_budget.

    `active_params` are those that one input meets (mixtures of experts); they are kept beside and never scored.
    Raises NoTrialRunning outside an objective, InvalidInput for what is no count, InvalidObjectiveResult for another
    count than reports were scored with, and TrialStopped beyond a hard budget.
    """
    channel().report_params(params, active_params)


def checkpoint_dir() -> Path:
    """A folder that this trial finds as it was left when a worker has to try it again on the same machine.

    It is removed when the trial is over. In process nothing is tried again: there it is a temporary folder.
    Raises NoTrialRunning outside an objective.
    """
    return checkpoints().path()
