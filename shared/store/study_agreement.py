"""What a study keeps for all who join it: directions, objectives, the scale of its scores, and its search space.

Each function compares what is asked for with what Optuna's study has, writes what is not there yet, and raises
StudyConflict for what differs. Trials of other programs decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.storages import BaseStorage

from highnoon.shared.domain.errors import StudyConflict
from highnoon.shared.domain.param import SearchSpace, written_form
from highnoon.shared.domain.score import Scoring
from highnoon.shared.domain.space import read_space
from highnoon.shared.domain.space_change import REMEDY, refused_changes
from highnoon.shared.search.samplers import Distributions
from highnoon.shared.store.study_view import param_of

SCORING = "highnoon:scoring"
"""Study attribute: the value of `Scoring.terms`. Absent where the score is the loss."""

METRIC_NAMES = "study:metric_names"
"""Optuna's own study attribute: the names of several objectives."""

SPACE = "highnoon:search_space"
"""Study attribute: the search space of the last process that created or joined the study, as a study file has it."""


def check_directions(storage: BaseStorage, study_id: int, name: str, wanted: Sequence[str]) -> None:
    """Raises StudyConflict for other directions, or another number of objectives."""
    directions = [one.name.lower() for one in storage.get_study_directions(study_id)]
    if len(directions) != len(wanted):
        of_this = "a single one" if len(wanted) == 1 else f"{len(wanted)} ({' and '.join(wanted)})"
        of_that = "a single objective" if len(directions) == 1 else f"{len(directions)} objectives"
        raise StudyConflict(
            f"study {name!r} has {of_that} ({' and '.join(directions)}), and this one has {of_this}. Give it "
            "another name; `coordinator trials` and `best` with --storage read that study"
        )
    if directions != [*wanted]:
        raise StudyConflict(f"study {name!r} exists with direction {', '.join(directions)}, not {', '.join(wanted)}")


def check_comparable(storage: BaseStorage, study_id: int, name: str, scoring: Scoring) -> None:
    """Raises StudyConflict for a study of `warm_start` whose values are on another scale than `scoring`."""
    directions = [one.name.lower() for one in storage.get_study_directions(study_id)]
    if directions != list(scoring.directions):
        raise StudyConflict(
            f"warm_start: study {name!r} has {'directions' if len(directions) > 1 else 'direction'} "
            f"{', '.join(directions)}, and this one {', '.join(scoring.directions)}: their values cannot be compared"
        )
    goals = list(scoring.objectives)
    theirs = storage.get_study_system_attrs(study_id).get(METRIC_NAMES, goals)
    if goals and theirs != goals:
        raise StudyConflict(
            f"warm_start: study {name!r} has the objectives {', '.join(theirs)}, and this one "
            f"{', '.join(goals)}: their values cannot be compared"
        )
    kept = storage.get_study_user_attrs(study_id).get(SCORING)
    if kept != scoring.terms:
        raise StudyConflict(
            f"warm_start: study {name!r} has {_terms_in_words(kept)}, and this one "
            f"{_terms_in_words(scoring.terms)}: their scores cannot be compared"
        )


def agree_on_scoring(storage: BaseStorage, study_id: int, name: str, scoring: Scoring) -> None:
    """The study keeps the scale of its scores; a study without trials takes the first one that it is given."""
    wanted = scoring.terms
    kept = storage.get_study_user_attrs(study_id).get(SCORING)
    if kept == wanted:
        return
    if kept is None and not storage.get_n_trials(study_id):
        storage.set_study_user_attr(study_id, SCORING, wanted)
        return
    raise StudyConflict(
        f"study {name!r} exists and has {_terms_in_words(kept)}, not {_terms_in_words(wanted)}: its scores could "
        "not be compared. Give this one another name, or the same terms"
    )


def agree_on_objectives(storage: BaseStorage, study_id: int, name: str, names: list[str]) -> None:
    """Optuna keeps them as metric names, which its figures and tables show."""
    kept = storage.get_study_system_attrs(study_id).get(METRIC_NAMES)
    if kept is not None and kept != names:
        raise StudyConflict(f"study {name!r} exists with the objectives {', '.join(kept)}, not {', '.join(names)}")
    if kept is None:
        storage.set_study_system_attr(study_id, METRIC_NAMES, names)


def agree_on_space(
    storage: BaseStorage, study_id: int, name: str, space: SearchSpace, own_domains: Distributions
) -> None:
    """Optuna would refuse other choices, and takes every other change; we write past its check.

    `own_domains` are the parameters of the newest trial of ours, which count for what was active in it.
    """
    kept = storage.get_study_user_attrs(study_id).get(SPACE)
    own = {key: param_of(domain) for key, domain in own_domains.items()}
    before = read_space(kept or {})[0] | {key: param for key, param in own.items() if param is not None}
    # Without trials nothing would be lost; and what only other programs' trials have is not known here.
    refused = refused_changes(before, space) if before and storage.get_n_trials(study_id) else []
    if refused:
        lines = "\n".join(f"  {line}" for line in refused)
        raise StudyConflict(
            f"study {name!r} exists and has another search_space, which may not become this one:\n{lines}\n{REMEDY}"
        )
    written = {key: written_form(param) for key, param in space.items()}
    if written != kept:
        storage.set_study_user_attr(study_id, SPACE, written)


def _terms_in_words(terms: Mapping[str, Any] | None) -> str:
    if terms is None:
        return "no param_budget and no constraints"
    words = {key: value for key, value in terms.items() if key != "constraints"}
    bounds = [f"{name} {bound}" for name, bound in terms.get("constraints", {}).items()]
    return " and ".join([*(f"{key} {value}" for key, value in words.items()), *bounds])
