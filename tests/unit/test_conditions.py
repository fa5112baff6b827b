"""Conditions between parameters: which ones a point has, in which order they are chosen, and what cannot be one."""

from __future__ import annotations

import pytest

from highnoon.shared.domain.conditions import active_part, is_active, parents_first
from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.grid import grid, grid_problems
from highnoon.shared.domain.param import Bool, Categorical, Float, Int
from highnoon.shared.domain.param_constraints import parsed_constraints
from highnoon.shared.domain.space import parse_space

SPACE = parse_space(
    {
        "nesterov": Bool(when={"momentum_on": True}),
        "momentum_on": Bool(when={"optimizer": "sgd"}),
        "optimizer": Categorical(["adam", "sgd", "lion"]),
        "beta": Float(0.8, 0.99, when={"optimizer": ["adam", "lion"]}),
        "depth": Int(1, 3),
        "skip": Bool(when={"depth": [2, 3], "optimizer": "adam"}),
    }
)


def test_parents_come_first_and_a_space_without_conditions_stays_as_it_was_written() -> None:
    names = parents_first(SPACE)
    for name, param in SPACE.items():
        assert all(names.index(parent) < names.index(name) for parent in param.when)
    flat = parse_space(dict.fromkeys("zaq", ("int", 1, 2)))
    assert parents_first(flat) == ["z", "a", "q"]


def test_a_chain_ends_where_a_parent_is_inactive() -> None:
    assert is_active(SPACE["nesterov"], {"optimizer": "sgd", "momentum_on": True})
    assert not is_active(SPACE["nesterov"], {"optimizer": "adam"})
    assert not is_active(SPACE["skip"], {"optimizer": "adam", "depth": 1})
    values = {"nesterov": True, "momentum_on": True, "beta": 0.9, "depth": 2, "skip": False}
    assert active_part(SPACE, {**values, "optimizer": "sgd"}).keys() == {
        "nesterov",
        "momentum_on",
        "depth",
        "optimizer",
    }
    assert active_part(SPACE, {**values, "optimizer": "adam"}).keys() == {"beta", "depth", "skip", "optimizer"}
    # Without the optimizer nothing is ruled out yet.
    assert active_part(SPACE, values) == values


@pytest.mark.parametrize(
    ("space", "messages"),
    [
        ({"a": Float(0, 1, when={"optimiser": "sgd"}), "optimizer": Bool()}, ["which is no parameter", "optimizer?"]),
        ({"a": Float(0, 1, when={"b": 0.5}), "b": Float(0, 1)}, ["names b, which has no single values"]),
        ({"a": Bool(when={"b": "sdg"}), "b": Categorical(["sgd"])}, ["'sdg'", "Did you mean sgd?"]),
        (
            {"a": Bool(when={"b": 1}), "b": Bool()},
            ["search_space.a: when: the value of b is none of the choices (got 1)"],
        ),
        ({"a": Bool(when={"b": 9}), "b": Int(1, 8)}, ["when: the value of b is outside of ['int', 1, 8] (got 9)"]),
        ({"a": Bool(when={"b": True}), "b": Bool(when={"a": True})}, ["conditions go in a circle: ", "a -> "]),
        ({"a": Bool(when={"a": True})}, ["conditions go in a circle: a -> a"]),
        (
            {"a": Bool(when={"b": True, "c": 1}), "b": ("int", 5, 1)},
            ["low 5 is above high 1", "c, which is no parameter"],
        ),
    ],
)
def test_says_what_is_wrong_with_conditions(space: dict[str, object], messages: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_space(space)
    for message in messages:
        assert message in str(caught.value)


def test_a_grid_has_each_combination_of_active_parameters_once() -> None:
    points = grid(SPACE, points=2)
    seen = {tuple(sorted(point.items(), key=str)) for point in points}
    assert len(seen) == len(points)
    # sgd: 3 depths x (momentum off, or on with nesterov on and off); lion: 3 x 2; adam: 2 betas x (1 + 2 x 2 skips)
    assert len(points) == 3 * 3 + 3 * 2 + 2 * 5
    for point in points:
        assert point == active_part(SPACE, point)
        assert all(name in point or not is_active(SPACE[name], point) for name in SPACE)


def test_a_grid_of_many_branches_is_counted_by_branch() -> None:
    branches = {f"size_{name}": Int(1, 100, when={"kind": name}) for name in "abcdefgh"}
    space = parse_space({"kind": Categorical(list("abcdefgh")), **branches})
    assert not grid_problems(space)
    assert len(grid(space)) == 8 * 100
    assert "at most 50,000" in str(grid_problems(parse_space({**space, "n": Int(1, 10_000)}))[0])


def test_a_grid_leaves_out_what_breaks_a_constraint() -> None:
    space = parse_space({"width": Int(1, 4), "heads": Int(1, 4)})
    points = grid(space, constraints=parsed_constraints(["width % heads == 0"]))
    assert len(points) == 4 + 2 + 1 + 1
