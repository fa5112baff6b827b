"""Optuna's studies, as the rest of the system uses them: opened, asked, told, read.

`store` opens, `study` decides, `trials` is the seam to what is written (`sql` in a database, `memory` without one),
`history` reads. Optuna's schema and its own readers stay as they are: any Optuna script may join a study of ours.
"""

from highnoon.shared.studies.store import OptunaStore, quiet
from highnoon.shared.studies.study import OptunaStudy
from highnoon.shared.studies.trials import Asked, OwnedTrial, Owner
from highnoon.shared.studies.view import StudyEntry, StudyView

__all__ = ["Asked", "OptunaStore", "OptunaStudy", "OwnedTrial", "Owner", "StudyEntry", "StudyView", "quiet"]
