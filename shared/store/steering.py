"""What a person does to a study or a worker, for command line, dashboard and Python: pause, add, drain, delete.

Raises StudyConflict or WorkerConflict where its state forbids it. The transactions on the ledger are in `studies` and
`nodes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.errors import (
    InvalidInput,
    Problem,
    StudyConflict,
    UserInputError,
    WorkerConflict,
    did_you_mean,
)
from highnoon.shared.domain.extension import Extension, setting_problems
from highnoon.shared.domain.scalars import choice, plain
from highnoon.shared.domain.states import GIVEN_UP, TicketState, TrialState
from highnoon.shared.domain.study import MOST_TRIALS, StudySpec, validate
from highnoon.shared.domain.trial import Params, ParamValue, Trial
from highnoon.shared.runtime.data_dir import attach
from highnoon.shared.store.access import Access
from highnoon.shared.store.attempt_queries import AttemptQueries
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.nodes import Nodes, Worker
from highnoon.shared.store.stored_files import StoredFiles
from highnoon.shared.store.study_records import StudyRecord
from highnoon.shared.store.submission import trials_of


def require(access: Access, done: bool, record: StudyRecord, why_not: str) -> None:
    """Raises StudyConflict, with the study's state of now, unless that allowed it."""
    if not done:
        record = access.studies.get(record.name)
        raise StudyConflict(f"study {record.name!r} is {record.state}: {why_not}")


def pause(access: Access, record: StudyRecord) -> None:
    """Nothing new starts; running trials end by themselves. Raises StudyConflict."""
    require(access, access.studies.pause(record.id), record, "only a running study can be paused")


def resume(access: Access, record: StudyRecord) -> None:
    """Continues a paused study. Raises StudyConflict."""
    require(access, access.studies.resume(record.id), record, "only a paused study can be resumed")


def cancel(access: Access, record: StudyRecord) -> None:
    """Drops the waiting trials and stops the running ones. Raises StudyConflict."""
    require(access, access.studies.cancel(record.id), record, "it is over already")


def set_share(
    access: Access, record: StudyRecord, *, priority: int | None = None, max_running: int | None = None
) -> None:
    """Changes its share of the slots; a `max_running` of 0 is no limit, None leaves a key as it is.

    Raises InvalidInput with every mistake, StudyConflict when it is over.
    """
    changes, problems = share_of(record.spec, priority=priority, max_running=max_running)
    if not changes:
        raise InvalidInput.of("set", "priority", "or max_running is needed")
    if problems:
        raise InvalidInput("set", problems)
    require(access, access.studies.set_share(record.id, changes), record, "it has no share of the slots any more")


def share_of(
    spec: Mapping[str, Any], *, priority: int | None, max_running: int | None
) -> tuple[dict[str, object], list[Problem]]:
    """What changes in a specification, and every mistake in that."""
    changes: dict[str, object] = {}
    if priority is not None:
        changes["priority"] = plain(priority)
    if max_running is not None:
        changes["max_running"] = plain(max_running) or None
    # In its grammar of now: other keys of a study that an older version wrote may be refused today.
    _, problems = validate({**spec, **changes})
    return changes, [problem for problem in problems if problem.key in changes]


def add_trials(access: Access, record: StudyRecord, count: int) -> int:
    """`count` more trials, as many of them as a grid has points; a finished study runs again.

    Raises InvalidInput for a senseless count, StudyConflict.
    """
    counts = access.studies.counts(record.id)
    most = MOST_TRIALS - counts.total + counts.by_state.get(TicketState.CANCELLED, 0)
    whole = plain(count)
    if isinstance(whole, bool) or not isinstance(whole, int) or not 1 <= whole <= most:
        raise InvalidInput.of("add trials", "count", f"must be from 1 to {most:,}", value=count)
    return _add(access, record, whole)


def enqueue(access: Access, record: StudyRecord, params: Params) -> None:
    """One more trial, at this point; what it leaves open is sampled. Raises InvalidInput for a wrong point."""
    if not params:
        raise InvalidInput.of("params", "params", "needs at least one parameter")
    if StudySpec.from_json(record.spec).sampler.is_exhaustive:
        raise StudyConflict(f"study {record.name!r} tries the points of a grid, and no others")
    require(access, record.state not in GIVEN_UP, record, "it was given up: start a new one like it")
    params = {name: cast(ParamValue, plain(value)) for name, value in params.items()}
    # First the point: without its ticket it is tried in the place of another, a ticket without it is sampled.
    access.optuna(record).enqueue(params)
    _add(access, record, 1, untried=True, action="enqueue", details={"params": dict(params)})


def stop_trial(access: Access, record: StudyRecord, number: int) -> None:
    """Ends one running trial, as cancelled. Raises StudyConflict."""
    if not access.studies.stop_trial(record.id, number):
        running = sorted(run.trial_number or 0 for run in AttemptQueries(access.database).running(record.id))
        hint = f"these run: {', '.join(map(str, running[:20]))}" if running else "none runs"
        raise StudyConflict(f"trial {number} of study {record.name} does not run now; {hint}")


def delete_study(access: Access, record: StudyRecord) -> None:
    """Removes a study that is over, with all trials. Log files stay where they are."""
    if not access.studies.delete(record.id):
        require(access, False, record, "only one that is over can be deleted: cancel it first")
    Bundles(access.database).drop_unused()


def extend_trial(access: Access, record: StudyRecord, number: int, settings: Mapping[str, Any] | None = None) -> None:
    """One more trial, which goes on from the checkpoint of an ended one, with the same parameters.

    `settings` are what its objective reads by `hn.trial_settings()`; one that is a parameter of the study replaces it.
    Raises InvalidInput for wrong settings, UserInputError where there is no such checkpoint, StudyConflict.
    """
    given = {} if settings is None else settings
    if problems := [*setting_problems(given)]:
        raise InvalidInput("extend trial", problems)
    require(access, record.state not in GIVEN_UP, record, "it was given up: start a new one like it")
    spec, study = StudySpec.from_json(record.spec), access.optuna(record)
    if spec.repeats > 1:
        raise StudyConflict(f"study {record.name!r} runs each point {spec.repeats} times: none of its trials can go on")
    trial, checkpoint = study.trial(number), _checkpoint_of(access, record, spec, number)
    values = {name: choice(value) for name, value in given.items()}
    earlier = study.extension(number)
    if problems := _unintended(values, trial, {} if earlier is None else earlier.settings):
        raise InvalidInput("extend trial", problems)
    params = {**trial.params, **{name: value for name, value in values.items() if name in spec.search_space}}
    further = {name: value for name, value in values.items() if name not in spec.search_space}
    if spec.sampler.is_exhaustive:
        points = most_trials(record)
        if access.studies.count_first(record.id, points) < points:
            raise StudyConflict(
                f"study {record.name!r} has points of its grid left, which come first: "
                "submit STUDY_FILE --n-trials N runs them"
            )
    study.enqueue_extension(params, Extension(of=number, checkpoint=checkpoint, settings=further))
    details = {"trial": number, "set": values}
    added = access.studies.add_trials(
        record.id, 1, at_most=MOST_TRIALS, untried=True, action="extend trial", details=details
    )
    require(access, added == 1, record, "it was given up: start a new one like it")


def belong_to_start(access: Access, home: Path) -> bool:
    """True when a `coordinator start` in this home runs these workers, and starts them again."""
    running = attach(home)
    return running is not None and running.database_url == access.database.url


def drain(access: Access, worker: Worker, home: Path) -> None:
    """It takes nothing new, ends what runs within its drain time, and leaves. Raises WorkerConflict."""
    if belong_to_start(access, home):
        raise WorkerConflict(
            f"the worker on {worker.host} belongs to coordinator start, which would start it again: "
            "pause its studies instead"
        )
    if not Nodes(access.database).drain(worker.id, "a person drained it"):
        raise WorkerConflict(
            f"the worker on {worker.host} is {worker.state}, and only one that is active or in quarantine can drain"
        )


def reinstate(access: Access, worker: Worker) -> None:
    """One in quarantine gets trials again, one that drains never. Raises WorkerConflict."""
    if not Nodes(access.database).reinstate(worker.id):
        raise WorkerConflict(
            f"the worker on {worker.host} is {worker.state}, and only one in quarantine can be taken back"
        )


def _unintended(values: Mapping[str, ParamValue], trial: Trial, settings: Mapping[str, ParamValue]) -> list[Problem]:
    """What would train a complete trial again without a change, and names near one that the trial was set before."""
    known = {**trial.params, **settings}
    if trial.state is TrialState.COMPLETE and values and values.items() <= known.items():
        message = f"has this value in trial {trial.number} already, which is complete"
        return [Problem(key=name, message=message, value=value) for name, value in values.items()]
    return [
        Problem(key=name, message=f"is no setting of trial {trial.number}", value=value, hint=hint)
        for name, value in values.items()
        if name not in known and (hint := did_you_mean(name, settings.keys() - values.keys()))
    ]


def _checkpoint_of(access: Access, record: StudyRecord, spec: StudySpec, number: int) -> Checkpoint:
    """Raises UserInputError with the trials that have one."""
    found = StoredFiles(access.database).extendable(record.id)
    if number in found:
        return found[number]
    others = ", ".join(map(str, list(found)[:20]))
    keep = f"keep_checkpoints = {spec.keep_checkpoints}"
    raise UserInputError(
        f"trial {number} of study {record.name} has no stored checkpoint to go on from: "
        + (f"trials {others} have one" if others else "no trial of it has one")
        + f". The best trials keep what they saved in hn.checkpoint_dir() ({keep}), where files are stored"
    )


def most_trials(record: StudyRecord) -> int:
    """How many trials the study may have; of a grid those that it has points for."""
    return trials_of(StudySpec.from_json({**record.spec, "n_trials": MOST_TRIALS}))[0]


def _add(access: Access, record: StudyRecord, count: int, *, untried: bool = False, **audited: Any) -> int:
    added = access.studies.add_trials(record.id, count, at_most=most_trials(record), untried=untried, **audited)
    if not added:
        is_given_up = access.studies.get(record.name).state in GIVEN_UP
        require(access, not is_given_up, record, "it was given up: start a new one like it")
        require(access, False, record, "every point of its grid has its trial already")
    return added
