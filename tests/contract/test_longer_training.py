"""Training longer, in the ledger: what is kept for it, what a new trial goes on from, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from highnoon.coordinator.file_keeper import FileKeeper
from highnoon.shared.domain.artifact import Checkpoint
from highnoon.shared.domain.errors import InvalidInput, StudyConflict, UserInputError
from highnoon.shared.domain.extension import EXTENDS, Extension
from highnoon.shared.domain.lease import Disposition, Lease
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.runtime.file_store import FileStore
from highnoon.shared.search.population import MEMBER
from highnoon.shared.store import steering
from highnoon.shared.store.access import Access
from highnoon.shared.store.optuna_study import OptunaStudy
from highnoon.shared.store.optuna_trials import NewTrial
from highnoon.shared.store.point_choice import LastCheckpoints
from highnoon.shared.store.steering import extend_trial
from highnoon.shared.store.stored_files import StoredFiles
from highnoon.shared.store.study_records import StudyRecord
from tests.contract.saved_files import noted, put, stored
from tests.ledger import DONE, FAILED, KILLED, Ledger


def study_of(ledger: Ledger, n_trials: int = 1, name: str = "digits", **keys: object) -> StudyRecord:
    written = {"name": name, "objective": "a.py:f", "search_space": {"x": ["uniform", 0.0, 1.0]}, **keys}
    optuna_id = ledger.access.store.create_study(name, "minimize")
    spec = StudySpec.from_json({**written, "n_trials": n_trials}).to_json()
    return ledger.studies.create(name, spec, queue="cpu", n_trials=n_trials, optuna_study_id=optuna_id)


def started(ledger: Ledger, ticket: int) -> Lease:
    """As a supervisor does it, with the study's own sampler."""
    candidate = ledger.look(ticket)
    optuna = ledger.access.optuna(ledger.studies.get("digits"))
    return ledger.start(
        ticket, new=optuna.choose(ordinal=candidate.ordinal, waiting=candidate.waiting, before=candidate.before)
    )


def with_checkpoint(ledger: Ledger, store: FileStore, ticket: int, file_id: str, outcome: Outcome = DONE) -> Lease:
    """A trial that has saved this last checkpoint."""
    lease = started(ledger, ticket)
    keep(ledger, store, lease, file_id)
    ledger.finish(lease, outcome)
    return lease


def keep(ledger: Ledger, store: FileStore, lease: Lease, file_id: str) -> Checkpoint:
    size, digest = put(ledger, store, lease, file_id)
    kept = Checkpoint(id=file_id, attempt=lease.attempt, size_bytes=size, sha256=digest)
    ledger.attempts.keep_checkpoint(lease, kept)
    return kept


def test_a_new_trial_goes_on_from_the_checkpoint_with_the_same_parameters(
    ledger: Ledger, store: FileStore, folder: Path, keeper: FileKeeper
) -> None:
    # Given a trial that is over, in a study that is finished
    study = study_of(ledger)
    done = with_checkpoint(ledger, store, ledger.tickets(study)[0], "c0")

    # When a person trains it longer
    extend_trial(ledger.access, ledger.studies.get("digits"), 0, {"epochs": 20})

    # Then there is one more ticket, whose first attempt has the point, the settings and the checkpoint
    _, ticket = ledger.tickets(study)
    lease = started(ledger, ticket)
    assert lease.params == done.params and lease.trial_number == 1
    assert lease.extension is not None
    assert (lease.extension.of, lease.extension.settings) == (0, {"epochs": 20})
    assert lease.checkpoint is not None and lease.checkpoint.id == "c0"
    assert lease.checkpoint.is_of_another_ticket
    assert ledger.trial(lease).user_attrs[EXTENDS] == 0
    optuna_side = ledger.access.optuna(study)
    assert optuna_side.extension(1) == lease.extension and optuna_side.extension(0) is None

    # And so has the attempt after a lost one
    ledger.finish(lease, KILLED, Disposition.RETRY)
    again = started(ledger, ticket)
    assert (again.attempt, again.params, again.extension) == (2, done.params, lease.extension)
    assert again.checkpoint == lease.checkpoint
    assert ledger.trial(again).user_attrs[EXTENDS] == 0

    # And once it has saved one of its own, the next one goes on from that
    own = keep(ledger, store, again, "c1")
    ledger.finish(again, KILLED, Disposition.RELEASE)
    last = started(ledger, ticket)
    assert last.checkpoint == own and last.extension is not None and not own.is_of_another_ticket
    ledger.finish(last, DONE)
    assert keeper.remove_useless(grace_s=0.0) == 0, "both may be trained longer"
    assert stored(folder) == noted(ledger) == {"c0", "c1"}


def test_what_is_enqueued_is_no_further_attempt_of_a_trial_that_a_limit_had_dropped(
    ledger: Ledger, store: FileStore
) -> None:
    # Given a study that a limit has ended: one trial is over, one was to be tried again, one had not begun
    study = study_of(ledger, 3)
    over, tried, unbegun = ledger.tickets(study)
    done = with_checkpoint(ledger, store, over, "c0")
    ledger.finish(started(ledger, tried), KILLED, Disposition.RETRY)
    assert ledger.control.stop(study.id, "timeout", spec_version=ledger.studies.get("digits").spec_version)

    # When a person wants another point, and a trial trained longer
    steering.enqueue(ledger.access, ledger.studies.get("digits"), {"x": 0.25})
    extend_trial(ledger.access, ledger.studies.get("digits"), done.trial_number)

    # Then these run
    further = ledger.tickets(study)[3:]
    assert [started(ledger, ticket).params for ticket in (unbegun, *further)] == [{"x": 0.25}, done.params]
    # And the other one once more trials are wanted
    assert ledger.state(tried) == "cancelled"
    assert steering.add_trials(ledger.access, ledger.studies.get("digits"), 1) == 1
    assert started(ledger, tried).attempt == 2


def test_the_best_trials_keep_their_last_checkpoint(
    ledger: Ledger, store: FileStore, folder: Path, keeper: FileKeeper
) -> None:
    # Given five trials with checkpoints, of which two may keep them
    study = study_of(ledger, 5, keep_checkpoints=2)
    outcomes = [
        Outcome(ending=Ending.COMPLETED, value=0.3),
        Outcome(ending=Ending.COMPLETED, value=0.1),
        Outcome(ending=Ending.PRUNED, value=0.05),
        Outcome(ending=Ending.COMPLETED, value=0.2),
        FAILED,
    ]
    for number, (ticket, outcome) in enumerate(zip(ledger.tickets(study), outcomes, strict=True)):
        with_checkpoint(ledger, store, ticket, f"c{number}", outcome)

    # When the coordinator looks
    keeper.keep_checkpoints()
    assert keeper.remove_useless(grace_s=0.0) == 3

    # Then only these are left
    assert stored(folder) == noted(ledger) == {"c1", "c3"}
    assert set(StoredFiles(ledger.database).extendable(study.id)) == {1, 3}


def test_fault_of_one_study_keeps_no_checkpoint_of_another(
    ledger: Ledger, store: FileStore, folder: Path, keeper: FileKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("broken", "other"):
        for number, ticket in enumerate(ledger.tickets(study_of(ledger, 2, name=name, keep_checkpoints=1))):
            lease = ledger.start(ticket)
            keep(ledger, store, lease, f"{name}-{number}")
            ledger.finish(lease, Outcome(ending=Ending.COMPLETED, value=float(number)))
    sound = Access.optuna

    def optuna_of(access: Access, record: StudyRecord) -> OptunaStudy:
        if record.name == "broken":
            raise ZeroDivisionError("of its data")
        return sound(access, record)

    monkeypatch.setattr(Access, "optuna", optuna_of)
    keeper.keep_checkpoints()
    keeper.remove_useless(grace_s=0.0)

    assert stored(folder) == {"broken-0", "broken-1", "other-0"}


@pytest.mark.parametrize("is_started", [False, True], ids=["waits", "runs"])
def test_a_checkpoint_that_a_longer_training_needs_is_not_removed(
    ledger: Ledger, store: FileStore, folder: Path, keeper: FileKeeper, is_started: bool
) -> None:
    # Given a trial whose extension is open, and a better one that alone may keep its checkpoint
    study = study_of(ledger, 2, keep_checkpoints=1)
    first, second = ledger.tickets(study)
    with_checkpoint(ledger, store, first, "worse", Outcome(ending=Ending.COMPLETED, value=0.9))
    extend_trial(ledger.access, study, 0, {})
    if is_started:
        lease = started(ledger, second)
        assert lease.checkpoint is not None and lease.checkpoint.id == "worse"
        with_checkpoint(ledger, store, ledger.tickets(study)[2], "better", Outcome(ending=Ending.COMPLETED, value=0.1))
    else:
        new = ledger.access.optuna(study).choose(ordinal=1, waiting=None)
        lease = ledger.start(second, new=new)
        keep(ledger, store, lease, "better")
        ledger.finish(lease, Outcome(ending=Ending.COMPLETED, value=0.1))

    # When the coordinator looks, then it stays
    keeper.keep_checkpoints()
    keeper.remove_useless(grace_s=0.0)
    assert stored(folder) == {"worse", "better"}

    # And once the extension has a checkpoint of its own, or is over, it goes
    if is_started:
        own = keep(ledger, store, lease, "own")
        assert own.id == "own"
        assert keeper.remove_useless(grace_s=0.0) == 1
        assert stored(folder) == {"own", "better"}


def test_a_trial_without_a_stored_checkpoint_is_refused_with_those_that_have_one(
    ledger: Ledger, store: FileStore
) -> None:
    study = study_of(ledger, 3)
    first, second, third = ledger.tickets(study)
    ledger.finish(started(ledger, first), DONE)
    with pytest.raises(UserInputError, match=r"trial 0 of study digits has no stored checkpoint.*no trial of it has"):
        extend_trial(ledger.access, study, 0, {})
    with_checkpoint(ledger, store, second, "c1")
    with pytest.raises(UserInputError, match=r"trials 1 have one.*keep_checkpoints = 3"):
        extend_trial(ledger.access, study, 0, {})
    with pytest.raises(UserInputError, match="has no trial 7"):
        extend_trial(ledger.access, study, 7, {})
    started(ledger, third)
    with pytest.raises(UserInputError, match="trial 2 of study digits has no stored"):
        extend_trial(ledger.access, study, 2, {})
    assert len(ledger.tickets(study)) == 3 and len(ledger.optuna().get_trials()) == 3, "nothing was added"


def test_settings_that_are_parameters_replace_them_within_their_domain(ledger: Ledger, store: FileStore) -> None:
    space = {"x": ["uniform", 0.0, 1.0], "epochs": ["int", 1, 30]}
    study = study_of(ledger, search_space=space)
    done = with_checkpoint(ledger, store, ledger.tickets(study)[0], "c0")

    with pytest.raises(InvalidInput, match=r'epochs: is outside of \["int", 1, 30\]'):
        extend_trial(ledger.access, study, 0, {"epochs": 99})
    for wrong in ({"epochs": [1]}, {"highnoon:x": 1}, {"": 1}, {"a" * 999: 1}):
        with pytest.raises(InvalidInput):
            extend_trial(ledger.access, study, 0, wrong)

    extend_trial(ledger.access, study, 0, {"epochs": 30, "warmup": 0})
    lease = started(ledger, ledger.tickets(study)[1])
    assert lease.params == {**done.params, "epochs": 30}
    assert lease.extension is not None and lease.extension.settings == {"warmup": 0}


def test_settings_that_change_nothing_and_slips_of_earlier_ones_are_refused(ledger: Ledger, store: FileStore) -> None:
    # Given a trial that was trained longer, up to epoch 20
    study = study_of(ledger)
    with_checkpoint(ledger, store, ledger.tickets(study)[0], "c0")
    extend_trial(ledger.access, study, 0, {"epochs": 20})
    with_checkpoint(ledger, store, ledger.tickets(study)[1], "c1")

    # Then the same again is refused, and a slip unless the earlier setting is given as well
    with pytest.raises(InvalidInput, match=r"epochs: has this value in trial 1 already, which is complete \(got 20\)"):
        extend_trial(ledger.access, study, 1, {"epochs": 20})
    with pytest.raises(InvalidInput, match=r"epoch: is no setting of trial 1 \(got 30\)\. Did you mean epochs\?"):
        extend_trial(ledger.access, study, 1, {"epoch": 30})
    assert len(ledger.tickets(study)) == 2
    extend_trial(ledger.access, study, 1, {"epochs": 20, "warmup_epochs": 3})


def test_studies_that_cannot_train_longer_say_so(ledger: Ledger, store: FileStore) -> None:
    study = study_of(ledger, repeats=3)
    with_checkpoint(ledger, store, ledger.tickets(study)[0], "c0")
    with pytest.raises(StudyConflict, match="runs each point 3 times"):
        extend_trial(ledger.access, study, 0, {})

    ledger.studies.cancel(study.id)
    with pytest.raises(StudyConflict, match="given up"):
        extend_trial(ledger.access, ledger.studies.get("digits"), 0, {})


def test_a_trial_of_a_grid_trains_longer_beyond_its_points(ledger: Ledger, store: FileStore) -> None:
    # Given a grid whose points have all been tried
    study = study_of(ledger, 2, sampler="grid", search_space={"x": ["categorical", [0.25, 0.75]]})
    for number, ticket in enumerate(ledger.tickets(study)):
        with_checkpoint(ledger, store, ticket, f"c{number}")

    # When one trains longer, then a third trial has its point
    extend_trial(ledger.access, study, 1, {"epochs": 9})
    lease = started(ledger, ledger.tickets(study)[2])
    assert lease.params == {"x": 0.75} and lease.extension is not None and lease.extension.of == 1
    with pytest.raises(StudyConflict, match="every point of its grid has its trial already"):
        steering.add_trials(ledger.access, ledger.studies.get("digits"), 1)


def test_the_points_of_a_grid_that_a_limit_has_dropped_come_first(ledger: Ledger, store: FileStore) -> None:
    study = study_of(ledger, 2, sampler="grid", search_space={"x": ["categorical", [0.25, 0.75]]})
    with_checkpoint(ledger, store, ledger.tickets(study)[0], "c0")
    assert ledger.control.stop(study.id, "timeout", spec_version=study.spec_version)
    with pytest.raises(StudyConflict, match="submit STUDY_FILE --n-trials N runs them"):
        extend_trial(ledger.access, ledger.studies.get("digits"), 0, {})


def test_the_points_of_a_grid_that_were_not_asked_for_yet_come_first(ledger: Ledger, store: FileStore) -> None:
    study = study_of(ledger, 1, sampler="grid", search_space={"x": ["categorical", [0.25, 0.75]]})
    with_checkpoint(ledger, store, ledger.tickets(study)[0], "c0")
    with pytest.raises(StudyConflict, match="submit STUDY_FILE --n-trials N runs them"):
        extend_trial(ledger.access, ledger.studies.get("digits"), 0, {})
    assert len(ledger.tickets(study)) == 1


def test_longer_trainings_of_a_grid_that_a_limit_has_dropped_may_be_asked_for_again(
    ledger: Ledger, store: FileStore
) -> None:
    study = study_of(ledger, 1, sampler="grid", search_space={"x": ["categorical", [0.25]]})
    with_checkpoint(ledger, store, ledger.tickets(study)[0], "c0")
    extend_trial(ledger.access, study, 0, {"epochs": 9})
    version = ledger.studies.get("digits").spec_version
    assert ledger.control.stop(study.id, "timeout", spec_version=version)

    extend_trial(ledger.access, ledger.studies.get("digits"), 0, {"epochs": 20})
    extension = started(ledger, ledger.tickets(study)[1]).extension
    assert extension is not None and extension.settings == {"epochs": 9}, "the oldest first"


def test_a_longer_training_survives_its_json() -> None:
    one = Extension(of=3, checkpoint=Checkpoint(id="c", attempt=2, size_bytes=5, sha256="ab"), settings={"epochs": 9})
    assert Extension.from_json(one.to_json()) == one
    assert one.first_checkpoint.id == "c" and one.first_checkpoint.is_of_another_ticket
    assert not one.checkpoint.is_of_another_ticket
    assert NewTrial(params={}, distributions={}).extension is None


def test_a_trial_that_ends_while_the_next_is_chosen_is_not_taken_for_one_without_a_checkpoint(
    ledger: Ledger, store: FileStore
) -> None:
    # Given a population of two, whose better trial ends right after the checkpoints were read
    study = study_of(ledger, 4, sampler={"name": "pbt", "population": 2})
    first, second, *_ = ledger.tickets(study)
    with_checkpoint(ledger, store, first, "c0", replace(DONE, cause=Cause.SEGMENT_END))
    lease = started(ledger, second)
    keep(ledger, store, lease, "c1")

    def read() -> LastCheckpoints:
        found = LastCheckpoints(kept=StoredFiles(ledger.database).extendable(study.id))
        ledger.finish(lease, replace(DONE, value=0.1, cause=Cause.SEGMENT_END))
        return found

    # Then the other one goes on, and its member is not replaced
    attrs = ledger.access.optuna(study).choose(ordinal=3, waiting=None, kept=read).user_attrs
    assert (attrs[MEMBER], attrs[EXTENDS]) == (0, 0)
