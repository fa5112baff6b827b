"""The decisions of population-based training, from trials alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.extension import EXTENDS
from highnoon.shared.domain.states import CAUSE, ENDING, Cause, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.search.population import GENERATION, MEMBER, Population, Segment, SegmentPruner, _moved
from highnoon.shared.search.sampling_space import SamplingSpace

SPACE = {"rate": ["log_uniform", 1e-4, 1.0], "width": ["int", 8, 64], "kind": ["categorical", ["a", "b", "c"]]}
POINT = {"rate": 0.01, "width": 16, "kind": "b"}


def population_of(size: int = 4, direction: str = "minimize", space: dict[str, Any] = SPACE, **more: Any) -> Population:
    options = {key: more.pop(key) for key in ("mutate", "resample_probability", "quantile_fraction") if key in more}
    sampler = {"name": "pbt", "population": size, **options}
    written = {"name": "p", "objective": "a.py:f", "search_space": space, "sampler": sampler, "direction": direction}
    spec = StudySpec.from_json({**written, **more})
    return Population(spec, SamplingSpace(spec.search_space, spec.point_constraints))


def trial(
    number: int, member: int, generation: int, value: float | None = None, *, ending: Ending = Ending.COMPLETED,
    cause: str = Cause.SEGMENT_END, rate: float = 0.01, history: Sequence[int] = ()
) -> FrozenTrial:  # fmt: skip
    """By default a trial at the end of its segment; without a value it runs, or has failed."""
    states = {Ending.COMPLETED: TrialState.COMPLETE, Ending.PRUNED: TrialState.PRUNED}
    state = TrialState.RUNNING if value is None and ending is Ending.COMPLETED else states.get(ending, TrialState.FAIL)
    domains = {
        "rate": FloatDistribution(1e-4, 1.0, log=True),
        "width": IntDistribution(8, 64),
        "kind": CategoricalDistribution(["a", "b", "c"]),
    }
    one = optuna.trial.create_trial(
        state=state,
        value=value if state is TrialState.COMPLETE else None,
        params={**POINT, "rate": rate},
        distributions=domains,
        user_attrs={MEMBER: member, GENERATION: generation, ENDING: str(ending), CAUSE: cause},
        system_attrs={"retry_history": list(history)} if history else {},
    )
    one.number = number
    return one


def next_of(
    population: Population, trials: Sequence[FrozenTrial], kept: Sequence[int] | None = None, ordinal: int = 60
) -> Segment:
    numbers = [one.number for one in trials] if kept is None else kept
    return population.next(ordinal, trials, numbers, random.Random(1))


def test_members_begin_until_the_population_is_whole() -> None:
    trials: list[FrozenTrial] = []
    for member in range(4):
        segment = next_of(population_of(4), trials, ordinal=member)
        assert segment == Segment(member=member, generation=0, params={})
        assert segment.attrs == {MEMBER: member, GENERATION: 0}
        trials.append(trial(member, member, 0))
    # What a person enqueues is one more, whatever has begun
    assert population_of(4).new_member(9).member == 9


def test_more_slots_than_members_train_members_of_their_own() -> None:
    # Given tickets beyond the population that begin before all of its members have
    begun = [trial(0, 0, 0), trial(1, 1, 0)]
    segments = [next_of(population_of(4), begun, ordinal=ordinal) for ordinal in (4, 5, 2, 3)]
    assert len({segment.member for segment in segments} | {0, 1}) == 6, "none is trained twice"
    assert not any(segment.is_restart_from_nothing for segment in segments), "none has had anything to leave"


def test_a_study_that_had_another_sampler_gets_a_whole_population() -> None:
    trials: list[FrozenTrial] = []
    for ordinal in range(20, 24):
        segment = next_of(population_of(4), trials, ordinal=ordinal)
        assert segment == Segment(member=ordinal, generation=0, params={})
        trials.append(trial(ordinal, ordinal, 0, 1.0))
    assert next_of(population_of(4), trials, ordinal=24).generation == 1


def test_a_first_ticket_that_begins_late_makes_no_further_member() -> None:
    begun = [trial(0, 1, 0, 1.0), trial(1, 2, 0, 1.0)]
    assert next_of(population_of(3), begun, ordinal=3).generation == 1
    assert next_of(population_of(3), begun, ordinal=0) == Segment(member=0, generation=0, params={})


def test_a_member_that_was_set_back_goes_on_from_there() -> None:
    # Given a member of the third generation that has begun with a checkpoint of the first, since the others are gone
    second = [trial(10 + n, n, 1, float(n)) for n in range(2)]
    back = [trial(20, 0, 0, 0.5), trial(21, 1, 2)]
    segment = next_of(population_of(2), [*second, *back], kept=[20])
    assert (segment.member, segment.generation, segment.of) == (0, 1, 20)
    # It is no longer where it was, neither while it runs
    running = [trial(20, 0, 0), trial(21, 1, 2)]
    assert next_of(population_of(2), [*second, *running]).member not in (0, 1)
    assert 20 in population_of(2).needed([*second, *back])


def test_a_retry_long_after_its_member_went_on_changes_nothing() -> None:
    lost = trial(3, 0, 0, ending=Ending.LOST, cause="lost")
    trials = [lost, trial(4, 1, 1), trial(5, 0, 1, 1.0), trial(9, 0, 0, 1.0, history=[3])]
    assert next_of(population_of(2), trials).of == 5


def test_a_lost_trial_is_waited_for_only_where_it_is_tried_again() -> None:
    trials = [trial(0, 0, 0, 1.0), trial(1, 1, 0, ending=Ending.KILLED, cause="signal"), trial(2, 0, 1, 1.0)]
    population, numbers, rng = population_of(2), range(3), random.Random(1)
    assert population.next(60, trials, numbers, rng).member == 0
    assert population.next(60, trials, numbers, rng, are_retried=False).member == 1


def test_an_infeasible_trial_is_none_of_the_best() -> None:
    trials = [trial(n, n, 0, float(n)) for n in range(4)]
    trials[0].system_attrs["constraints:latency_ms"] = 1.0
    going = [trial(10 + n, n, 1) for n in range(1, 4)]
    assert next_of(population_of(4), [*trials, *going]).of == 1


def test_nodes_that_choose_at_the_same_moment_take_different_members() -> None:
    trials = [trial(n, n, 0, float(n)) for n in range(4)]
    assert {next_of(population_of(4), trials, ordinal=ordinal).member for ordinal in range(4, 8)} == {0, 1, 2, 3}


def test_a_member_goes_on_from_its_own_checkpoint_at_its_own_point() -> None:
    trials = [trial(0, 0, 0, 0.0, rate=0.1), *(trial(n, n, 0) for n in range(1, 4))]
    segment = next_of(population_of(4), trials)
    assert segment == Segment(member=0, generation=1, of=0, params={**POINT, "rate": 0.1})
    assert segment.attrs == {MEMBER: 0, GENERATION: 1, EXTENDS: 0}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_one_of_the_worst_begins_with_the_checkpoint_of_one_of_the_best_near_its_point(direction: str) -> None:
    best, worst = (0, 3) if direction == "minimize" else (3, 0)
    trials = [trial(n, n, 0, float(n), rate=0.1 * (n + 1)) for n in range(4)]
    goes_on = [trial(10 + n, n, 1) for n in range(4) if n != worst]
    segment = next_of(population_of(4, direction, resample_probability=0.0), [*trials, *goes_on])
    assert (segment.member, segment.generation, segment.of) == (worst, 1, best)
    parent = 0.1 * (best + 1)
    assert any(segment.params["rate"] == pytest.approx(factor * parent) for factor in (0.8, 1.2))
    assert {name: segment.params[name] for name in ("width", "kind")} == {"width": 16, "kind": "b"}


def test_what_is_drawn_from_the_whole_range_is_left_open() -> None:
    trials = [trial(n, n, 0, float(n)) for n in range(2)] + [trial(10, 0, 1)]
    segment = next_of(population_of(2, resample_probability=1.0), trials)
    assert (segment.of, segment.params) == (0, {"width": 16, "kind": "b"})


def test_a_member_without_a_checkpoint_goes_on_from_another_one() -> None:
    trials = [trial(0, 0, 0, 0.0), trial(1, 1, 0, 1.0), trial(2, 2, 0), trial(3, 3, 0)]
    assert {next_of(population_of(4), trials, kept=[1]).of} == {1}
    segment = next_of(population_of(4), trials, kept=[])
    assert (segment.of, segment.generation, segment.params) == (None, 0, {})
    assert segment.is_restart_from_nothing


def test_a_member_that_failed_is_replaced_and_one_that_is_tried_again_is_waited_for() -> None:
    ended = [trial(n, n, 0, float(n)) for n in range(3)]
    going = [trial(10 + n, n, 1) for n in range(3)]
    failed = trial(3, 3, 0, ending=Ending.FAILED, cause="exception")
    segment = next_of(population_of(4), [*ended, failed, *going])
    assert (segment.member, segment.generation, segment.of) == (3, 1, 0)

    # A lost attempt has two more: only where nothing else can go on its member does not wait
    lost = trial(3, 3, 0, ending=Ending.LOST, cause="lost")
    again = next_of(population_of(4), [*ended, lost, *going[1:]])
    assert again.member == 0 and again.generation == 1
    assert next_of(population_of(4), [*ended, lost, *going]).member == 3

    # and the last one is no more
    last = trial(3, 3, 0, ending=Ending.LOST, cause="lost", history=[1, 2])
    assert next_of(population_of(4), [*ended, last, *going]).member == 3
    # A failure is not tried again, unless `retry_errors` of the study is set
    assert next_of(population_of(4, retry_errors=1), [*ended, failed, *going[1:]]).member == 0


def test_where_all_run_or_are_done_one_more_begins_with_one_of_the_best() -> None:
    running = [trial(n, n, 0, float(n)) for n in range(2)] + [trial(10 + n, n, 1) for n in range(2)]
    segment = next_of(population_of(2), running)
    assert (segment.member, segment.generation, segment.of) == (60, 1, 0)
    done = [trial(n, n, 0, float(n)) for n in range(2)]
    done += [trial(10 + n, n, 1, float(n), cause="") for n in range(2)]
    assert next_of(population_of(2), done).of == 0
    segment = next_of(population_of(2), [trial(0, 0, 0), trial(1, 1, 0)])
    assert segment == Segment(member=60, generation=0, params={})


def test_the_generation_that_is_behind_goes_on_first() -> None:
    trials = [trial(n, n, 0, float(n)) for n in range(3)] + [trial(3, 0, 1, 0.0)]
    assert {next_of(population_of(3), trials, ordinal=ordinal).member for ordinal in range(3, 9)} == {1, 2}


def test_a_changed_point_keeps_the_constraints() -> None:
    space = {"a": ["uniform", 0.0, 1.0], "b": ["uniform", 0.0, 1.0]}
    population = population_of(2, space=space, param_constraints=["a + b <= 1"], resample_probability=0.0)
    for seed in range(50):
        changed = population._changed({"a": 0.5, "b": 0.5}, random.Random(seed))
        assert changed["a"] + changed["b"] <= 1 and changed != {"a": 0.5, "b": 0.5}


def test_a_member_far_behind_begins_with_the_checkpoint_of_another_one() -> None:
    # Given a point that a person enqueued late, which is the worst of its generation, whose checkpoints are gone
    first, last = [trial(n, n, 0, float(n)) for n in range(4)], [trial(90 + n, n, 29, float(n)) for n in range(4)]
    late = trial(200, 120, 0, 9.0)
    segment = next_of(population_of(4), [*first, *last, late], kept=[90, 91, 92, 93, 200])
    assert (segment.member, segment.generation, segment.of) == (120, 30, 90)
    # And it keeps no others
    assert population_of(4).needed([*first, *last, late]) == {90, 91, 92, 93, 200}


def test_members_of_one_process_begin_until_the_population_is_whole() -> None:
    trials = [trial(n, n, 0, float(n)) for n in range(3, 5)]
    population, rng = population_of(4), random.Random(1)
    segments = [population.next(9, trials, (3, 4), rng, are_retried=are_retried) for are_retried in (False, True)]
    assert [(segment.member, segment.generation) for segment in segments] == [(9, 0), (4, 1)]


def test_checkpoints_are_needed_as_long_as_another_training_may_go_on_from_them() -> None:
    population = population_of(2)
    first, second = [trial(n, n, 0, float(n)) for n in range(2)], [trial(10 + n, n, 1, float(n)) for n in range(2)]
    assert population.needed([]) == set()
    assert population.needed(first) == {0, 1}
    assert population.needed([*first, second[0]]) == {0, 1, 10}
    third = [trial(20 + n, n, 2) for n in range(2)]
    assert population.needed([*first, *second, *third]) == {10, 11}
    done = [trial(20 + n, n, 2, float(n), cause="") for n in range(2)]
    assert population.needed([*first, *second, *done]) == {10, 11}


def test_a_neighbour_is_within_the_domain_and_on_its_steps() -> None:
    rng = random.Random(3)
    for _ in range(100):
        assert _moved(FloatDistribution(0.1, 1.0), 0.95, rng) in (pytest.approx(0.76), 1.0)
        assert _moved(FloatDistribution(0.0, 1.0, step=0.25), 0.75, rng) in (0.5, 1.0)
        assert _moved(IntDistribution(1, 9), 5, rng) in (4, 6)
        assert _moved(IntDistribution(1, 9), 2, rng) in (1, 3)
        assert _moved(IntDistribution(32, 256, step=32), 64, rng) in (32, 96)
        assert _moved(FloatDistribution(1e-4, 0.1, log=True), 0.1, rng) in (pytest.approx(0.08), 0.1)
        assert _moved(CategoricalDistribution(["a", "b", "c"]), "b", rng) in ("a", "c")
        assert _moved(CategoricalDistribution(["a", "b", "c"]), "a", rng) in ("a", "b")


@pytest.mark.parametrize(("generation", "first", "last"), [(0, 1, 5), (0, 0, 5), (1, 6, 10), (1, 0, 10), (2, 13, 15)])
def test_a_segment_ends_at_the_next_multiple_also_where_earlier_steps_are_reported_again(
    generation: int, first: int, last: int
) -> None:
    pruner, study = SegmentPruner(5), optuna.create_study()
    one = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={MEMBER: 0, GENERATION: generation})
    assert not pruner.prune(study, one)
    for step in range(first, 30):
        one.intermediate_values[step] = 0.0
        if pruner.prune(study, one):
            break
    assert step == last == pruner.last_step(one)


def test_a_trial_outside_of_the_population_has_no_segments() -> None:
    one = optuna.trial.create_trial(state=TrialState.RUNNING, intermediate_values={99: 0.0})
    assert not SegmentPruner(5).prune(optuna.create_study(), one)
