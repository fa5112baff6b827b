"""What a person does to one study that takes the ledger and Optuna's side of it together: add, enqueue, delete.

The command line and the dashboard call it; what the ledger does alone is in `studies`.
"""

from __future__ import annotations

from typing import cast

from highnoon.shared.domain.errors import InvalidInput, Problem, StudyConflict
from highnoon.shared.domain.scalars import plain
from highnoon.shared.domain.states import StudyState
from highnoon.shared.domain.study import MOST_TRIALS, StudySpec
from highnoon.shared.domain.trial import Params, ParamValue
from highnoon.shared.store.access import Access
from highnoon.shared.store.audit import AuditLog
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.studies import StudyRecord
from highnoon.shared.store.submission import trials_of

_GIVEN_UP = (StudyState.CANCELLING, StudyState.CANCELLED)


def require(done: bool, record: StudyRecord, why_not: str) -> None:
    """Raises StudyConflict unless the study's state allowed it."""
    if not done:
        raise StudyConflict(f"study {record.name!r} is {record.state}: {why_not}")


def add_trials(access: Access, record: StudyRecord, count: int) -> int:
    """`count` more trials, as many of them as a grid has points; a finished study runs again. Raises StudyConflict."""
    require(record.state not in _GIVEN_UP, record, "it was given up: start a new one like it")
    spec = StudySpec.from_json({**record.spec, "n_trials": MOST_TRIALS})
    added = access.studies.add_trials(record.id, count, at_most=trials_of(spec)[0])
    require(added > 0, record, "every point of its grid has its trial already")
    return added


def enqueue(access: Access, record: StudyRecord, params: Params) -> None:
    """One more trial, at this point; what it leaves open is sampled. Raises InvalidInput for a wrong point."""
    if not params:
        raise InvalidInput("params", [Problem(key="params", message="needs at least one parameter")])
    if record.spec.get("sampler", {}).get("name") in ("grid", "brute_force"):
        raise StudyConflict(f"study {record.name!r} tries the points of a grid, and no others")
    require(record.state not in _GIVEN_UP, record, "it was given up: start a new one like it")
    params = {name: cast(ParamValue, plain(value)) for name, value in params.items()}
    access.optuna(record).enqueue(params)
    AuditLog(access.database).add("enqueue", study=record.name, params=dict(params))
    add_trials(access, record, 1)


def delete_study(access: Access, record: StudyRecord) -> None:
    """Removes a study that is over, with all trials. Log files stay where they are."""
    require(record.is_over, record, "only one that is over can be deleted: cancel it first")
    access.studies.delete(record.id)
    access.store.delete_study(record.name)
    Bundles(access.database).drop_unused()
