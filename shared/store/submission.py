"""Submission: a StudySpec becomes a study in Optuna and in the ledger, or joins the one of its name.

Optuna's study is made first: dying in between leaves an empty study that the next submission uses. The ledger's
rows appear in one transaction.
"""

from __future__ import annotations

import logging
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, MissingExtra, StudyConflict
from highnoon.shared.domain.grid import grid_size
from highnoon.shared.domain.states import StudyState
from highnoon.shared.domain.strategy import modules_of
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.source_tree import CodeDigests, root_of
from highnoon.shared.runtime.environment_record import git_state
from highnoon.shared.runtime.extras import require
from highnoon.shared.runtime.logs import event
from highnoon.shared.store.access import Access
from highnoon.shared.store.database import IntegrityError
from highnoon.shared.store.study_records import StudyRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a submission did. `trials` counts the study's trials, `added` those that this submission made."""

    record: StudyRecord
    spec: StudySpec
    trials: int
    added: int
    joined: bool
    note: str = ""


def submit(spec: StudySpec, access: Access) -> Submission:
    """Submits, joins, or extends to more trials. Raises StudyConflict when the name asks another question."""
    spec = _with_code(spec)
    access.store.check_warm_start(spec)
    known = access.studies.find(spec.name)
    if known is not None:
        return _join(known, spec, access)
    asked, spec = spec, _with_seed(spec, secrets.randbelow(2**31))
    trials, note = trials_of(spec)
    note = _with_extras(note, spec)
    optuna_id = access.store.create_study(spec.name, spec.direction, spec.scoring, spec.search_space)
    event(logger, "efficiency", study=spec.name, scoring=spec.scoring)
    try:
        record = access.studies.create(
            spec.name, spec.to_json(), queue=spec.resources, n_trials=trials, optuna_study_id=optuna_id
        )
    except IntegrityError:
        return _join(access.studies.get(spec.name), asked, access)
    return Submission(record=record, spec=spec, trials=trials, added=trials, joined=False, note=note)


def _join(known: StudyRecord, spec: StudySpec, access: Access) -> Submission:
    before = StudySpec.from_json(known.spec)
    different = spec.distinct_from(before)
    if different:
        raise StudyConflict(
            f"study {spec.name!r} exists and differs in {', '.join(different)}: "
            "give this one another name, or undo the change"
        )
    if known.state in (StudyState.CANCELLING, StudyState.CANCELLED):
        raise StudyConflict(f"study {spec.name!r} was cancelled: give the new one another name")
    if not access.store.exists(spec.name):
        raise StudyConflict(f"study {spec.name!r} was deleted in Optuna: give the new one another name")
    spec = _with_seed(spec, before.seed or 0)
    trials, note = trials_of(spec)
    counts = access.studies.counts(known.id)
    if counts.attempts and spec.seed != (before.seed or 0):
        raise StudyConflict(
            f"study {spec.name!r} exists with seed {before.seed or 0}, not {spec.seed}: a trial that is tried or "
            "reproduced again must have the seed that it had; leave `seed` out to add trials, each of which has a seed "
            "of its own, or give this one another name"
        )
    changes = spec.grid_changes(before)
    if changes and (counts.attempts or counts.total > trials):
        raise StudyConflict(
            f"study {spec.name!r} exists and differs in {', '.join(changes)}: its trials would skip or "
            "repeat points of a grid by number; give this one another name, or undo the change"
        )
    access.store.create_study(spec.name, spec.direction, spec.scoring, spec.search_space)
    spec = _with_share(_with_bundle(spec, before), before)
    note = _with_extras(note, spec)
    is_ending = known.state is StudyState.FINISHED or known.stop_reason is not None
    if is_ending and (counts.closed >= trials or spec == before):
        return Submission(record=known, spec=spec, trials=counts.total, added=0, joined=True, note=note)
    added = access.studies.extend(known.id, spec.to_json(), n_trials=trials, queue=spec.resources)
    record = access.studies.get(spec.name)
    if record.state is StudyState.PAUSED:
        note = f"it is paused: python -m coordinator resume {shlex.quote(spec.name)}"
    return Submission(record=record, spec=spec, trials=max(counts.total, trials), added=added, joined=True, note=note)


def _with_seed(spec: StudySpec, seed: int) -> StudySpec:
    """Every study has a seed, so that a retry repeats the randomness of the attempt it replaces."""
    return spec if spec.seed is not None else spec.model_copy(update={"seed": seed})


def with_git(spec: StudySpec) -> StudySpec:
    """With the commit of its folder: for a person's own folder, see `git_state`."""
    return spec.model_copy(update={"git": git_state(Path(spec.code_dir)) if spec.code_dir else None})


def _with_code(spec: StudySpec) -> StudySpec:
    """With the digest of its code as it is here, which workers compare with theirs; None where it is not here."""
    root = root_of(spec.objective_ref, Path(spec.code_dir) if spec.code_dir else None)
    return spec.model_copy(update={"code": None if root is None else CodeDigests().of(root)})


def _with_bundle(spec: StudySpec, before: StudySpec) -> StudySpec:
    """A study keeps its bundle until it is given another one: who adds trials need not pack its code again."""
    if spec.bundle is None and before.bundle is not None:
        return spec.model_copy(update={"bundle": before.bundle, "code": before.code, "git": before.git})
    return spec if spec.code is not None else spec.model_copy(update={"code": before.code})


def _with_share(spec: StudySpec, before: StudySpec) -> StudySpec:
    """A study keeps its share of the slots, which `set` may have changed, unless it is written with another one."""
    kept = {key: getattr(before, key) for key in ("priority", "max_running") if key not in spec.model_fields_set}
    return spec.model_copy(update=kept)


def _with_extras(note: str, spec: StudySpec) -> str:
    """With a warning where this installation cannot sample or prune for the study: its workers may, or may not."""
    try:
        require(modules_of(spec.sampler, spec.pruner))
    except MissingExtra as missing:
        return "; ".join(filter(None, [note, f"here {missing}; the workers need it"]))
    return note


def trials_of(spec: StudySpec) -> tuple[int, str]:
    """n_trials, but no more than a grid has points: a point is never tried twice."""
    if not spec.sampler.is_exhaustive:
        return spec.n_trials, ""
    size = grid_size(spec.search_space, spec.sampler.options.get("points"), spec.point_constraints)
    if not size:
        message = "no point of the grid keeps them"
        raise InvalidInput.of(f"study {spec.name}", "param_constraints", message, value=list(spec.param_constraints))
    if spec.n_trials <= size:
        return spec.n_trials, ""
    return size, f"the grid has {size} points: {size} trials instead of {spec.n_trials}"
