"""The grid: every combination once, in an order that does not depend on how the space was written."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.grid import GRID_LIMIT, LISTED_LIMIT, grid, grid_problems, grid_size, grid_values
from highnoon.shared.domain.param import Categorical, Float, Int, Param
from highnoon.shared.domain.param_constraints import parsed_constraints
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.study import validate


@pytest.mark.parametrize(
    ("param", "points", "values"),
    [
        (Categorical(choices=("a", None, True)), None, ("a", None, True)),
        (Int(low=2, high=8, step=3), None, (2, 5, 8)),
        (Int(low=1, high=4, log=True), 2, (1, 2, 3, 4)),
        (Float(low=0.1, high=0.5, step=0.1), None, (0.1, 0.2, 0.3, 0.4, 0.5)),
        (Float(low=0.0, high=1.0), 5, (0.0, 0.25, 0.5, 0.75, 1.0)),
        (Float(low=0.0, high=1.0), 2, (0.0, 1.0)),
        (Float(low=0.5, high=0.5), 5, (0.5,)),
        (Float(low=0.5, high=0.5), None, (0.5,)),
        (Float(low=0.0, high=1.0), None, None),
        (Float(low=1e-5, high=1e-3, log=True), None, None),
    ],
)
def test_values_of_one_parameter(param: Param, points: int | None, values: tuple[object, ...] | None) -> None:
    assert grid_values(param, points) == values


@given(st.floats(1e-300, 1e300), st.floats(1, 1e6), st.integers(2, 50))
def test_a_log_range_is_spaced_evenly_and_includes_its_ends(low: float, ratio: float, points: int) -> None:
    values = grid_values(Float(low=low, high=low * ratio, log=True), points)
    assert values is not None
    reals = [value for value in values if isinstance(value, float)]
    assert (reals[0], reals[-1]) == (low, low * ratio)
    assert len(reals) <= points and len(set(reals)) == len(reals)
    if ratio > 1.01 and len(reals) == points:
        assert all(math.isclose(b / a, ratio ** (1 / (points - 1)), rel_tol=1e-9) for a, b in itertools.pairwise(reals))


def test_combines_everything_once_in_the_same_order_however_the_space_is_written() -> None:
    # Given the same two parameters in either order
    one = parse_space({"b": ("int", 1, 2), "a": ("categorical", ["x", "y", "z"])})
    other = parse_space({"a": ("categorical", ["x", "y", "z"]), "b": ("int", 1, 2)})
    # Then both span the same six points in the same order
    assert grid(one) == grid(other)
    assert len({tuple(point.items()) for point in grid(one)}) == 6
    assert grid(one)[:3] == [{"a": "x", "b": 1}, {"a": "x", "b": 2}, {"a": "y", "b": 1}]


def test_names_every_range_that_has_no_end() -> None:
    space = parse_space({"lr": ("log_uniform", 1e-5, 1e-3), "n": ("int", 1, 3), "dropout": ("uniform", 0, 1)})
    with pytest.raises(InvalidInput) as caught:
        grid(space)
    assert [problem.key for problem in caught.value.problems] == ["search_space.lr", "search_space.dropout"]
    assert "set points under [sampler]" in caught.value.problems[0].hint
    assert len(grid(space, points=3)) == 27


def test_points_are_counted_without_building_them() -> None:
    small = {"a": ("uniform", 0, 1), "b": ("int", 1, 7, 2), "c": ("categorical", ["x", "y"])}
    narrow = {"a": ("uniform", 1.0, 1.0 + 2**-52)}
    for space, points in ((small, 3), (narrow, 5)):
        assert grid_size(parse_space(space), points) == len(grid(parse_space(space), points))
    few = parsed_constraints(["b < 4"])
    assert grid_size(parse_space(small), 3, few) == len(grid(parse_space(small), 3, few)) == 12

    million = parse_space(dict.fromkeys("abc", ("int", 1, 100)))
    tracemalloc.start()
    assert grid_size(million) == 1_000_000
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    with pytest.raises(InvalidInput, match="at most 1,000,000"):
        grid_size(parse_space(dict.fromkeys("abc", ("int", 1, 101))))


def test_a_grid_that_must_be_listed_is_smaller() -> None:
    space = {"a": ["int", 1, 300], "b": ["int", 1, 300]}
    written = {"name": "digits", "objective": "train:objective", "sampler": "grid", "search_space": space}
    assert validate(written)[1] == []
    for more in (
        {"param_constraints": ["a < b"]},
        {"search_space": {**space, "c": {"type": "categorical", "choices": ["x"], "when": {"a": [1]}}}},
    ):
        (problem,) = validate({**written, **more})[1]
        assert problem.key == "search_space"
        assert f"90,000 combinations; at most {LISTED_LIMIT:,} are possible with conditions or" in problem.message
    constraints = parsed_constraints(["a < b"])
    with pytest.raises(InvalidInput, match="90,000"):
        grid(parse_space(space), constraints=constraints)


def test_counts_before_it_builds() -> None:
    space = parse_space({"a": ("int", 0, 2**53), "b": ("int", 0, 2**53)})
    (problem,) = grid_problems(space)
    assert f"at most {GRID_LIMIT:,}" in problem.message
    with pytest.raises(InvalidInput):
        grid(space)
