"""What the trials of one call of `optimize` run in: recorded with each of them, as a cluster does for its attempts."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from highnoon.shared.domain.trial_environment import ENVIRONMENT, GIT, HOST
from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.objective.attempt import Objective
from highnoon.shared.runtime.environment_record import EnvironmentRecord, git_state
from highnoon.shared.store.optuna_study import OptunaStudy


def recorded_environment(study: OptunaStudy, objective: Objective, variables: Mapping[str, str]) -> dict[str, Any]:
    """Attributes for its trials: digest, host and commit. What the digest stands for is kept with the study, once.

    `variables` are what the study sets for its trials. Raises ServiceUnavailable.
    """
    gpus = [device.name for device in Gpus().devices()]
    record = EnvironmentRecord.here(gpus, {**os.environ, **variables})
    study.keep_environment(record.digest, record.content)
    found = {ENVIRONMENT: record.digest, HOST: socket.gethostname(), GIT: git_state(_folder_of(objective))}
    return {name: value for name, value in found.items() if value is not None}


def _folder_of(objective: Objective) -> Path:
    """Of its source; of what has none (a cell of a notebook, for instance) the current one."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(objective))
    except (TypeError, ValueError):
        file = None
    folder = Path(file or ".").resolve().parent if file else Path.cwd()
    return folder if folder.is_dir() else Path.cwd()
