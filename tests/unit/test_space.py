"""The grammar of search spaces: everything the guide writes is read, everything else is answered with what is right."""

from __future__ import annotations

import json
import math

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.param import Bool, Categorical, Float, Int, Param, written_form
from highnoon.shared.domain.scalars import EXACT
from highnoon.shared.domain.space import parse_param, parse_space


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (("log_uniform", 1e-5, 1e-3), Float(low=1e-5, high=1e-3, log=True)),
        (("uniform", 0.0, 0.5), Float(low=0.0, high=0.5)),
        (["uniform", 0, 1, 0.25], Float(low=0.0, high=1.0, step=0.25)),
        (("int", 2, 12), Int(low=2, high=12)),
        (["int", 128, 1024, 64], Int(low=128, high=1024, step=64)),
        (["int_log", 1, 1024], Int(low=1, high=1024, log=True)),
        (("categorical", ["adam", "sgd"]), Categorical(choices=("adam", "sgd"))),
        (("categorical", (True, False)), Categorical(choices=(True, False))),
        (("categorical", range(3)), Categorical(choices=(0, 1, 2))),
        (["categorical", [None, "l2", 0.5]], Categorical(choices=(None, "l2", 0.5))),
        (("uniform", 0.5, 0.5), Float(low=0.5, high=0.5)),
        (Int(low=1, high=4), Int(low=1, high=4)),
        (Categorical(choices=("a",)), Categorical(choices=("a",))),
    ],
)
def test_reads_the_guides_grammar(written: object, expected: Param) -> None:
    assert parse_param("x", written) == expected


def test_booleans_stay_booleans_and_whole_bounds_become_reals() -> None:
    flags, share = parse_param("x", ("categorical", [True, False])), parse_param("x", ("uniform", 0, 1))
    assert isinstance(flags, Categorical) and isinstance(share, Float)
    assert [type(choice) for choice in flags.choices] == [bool, bool]
    assert type(share.low) is float


def test_takes_arrays_and_sets_as_choices_always_in_the_same_order() -> None:
    for written in (numpy.array([32, 16]), [numpy.int64(32), numpy.int64(16)]):
        assert parse_param("x", ("categorical", written)) == Categorical(choices=(32, 16))
    assert parse_param("x", ("categorical", {"sgd", "adam"})) == Categorical(choices=("adam", "sgd"))
    flags = parse_param("x", ("categorical", [numpy.True_, numpy.False_]))
    assert isinstance(flags, Categorical) and [type(choice) for choice in flags.choices] == [bool, bool]
    assert parse_param("x", ("int", 1, 9, None)) == Int(low=1, high=9)


def test_takes_numpys_numbers_as_plain_ones() -> None:
    whole, real = (
        parse_param("x", ("int", numpy.int64(1), numpy.int32(4))),
        parse_param("x", ("categorical", [numpy.float64(0.5), numpy.int64(2), numpy.str_("a")])),
    )
    assert isinstance(whole, Int) and isinstance(real, Categorical)
    assert type(whole.low) is int
    assert [type(choice) for choice in real.choices] == [float, int, str]


@pytest.mark.parametrize(
    ("written", "reached"),
    [
        (["int", 1, 10, 4], 9),
        (["int", 5, 6, 20], 5),
        (["uniform", 0.0, 1.0, 0.3], 0.9),
        (["uniform", 0.1, 0.75, 0.1], 0.7),
        (["uniform", -1.0, 1.0, 0.5], 1.0),
    ],
)
def test_lowers_high_to_the_last_value_that_steps_reach(written: object, reached: float) -> None:
    param = parse_param("x", written)
    assert isinstance(param, Int | Float) and param.high == reached


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        (["uniform", 1.0, 0.0], "low 1.0 is above high 0.0", "Swap the two."),
        (["log_uniform", 1e-3, 1e-5], "low 0.001 is above high 1e-05", "Swap"),
        (["int", 5, 4], "low 5 is above high 4", "Swap"),
        (["log_uniform", 0.0, 1.0], "a log scale starts above 0, not at 0.0", "write uniform"),
        (["log_uniform", -1.0, 1.0], "starts above 0", "write uniform"),
        (["int_log", 0, 8], "starts above 0, not at 0", "write int"),
        (["int", 1, 9, 0], "step must be above 0, not 0", "Leave it out"),
        (["int", 1, 9, -2], "step must be above 0, not -2", "Leave it out"),
        (["uniform", 0.0, 1.0, 0.0], "step must be above 0, not 0.0", "Leave it out"),
        (["uniform", 0.0, 1.0, 1e-300], "step is too small", ""),
        (["categorical", []], "at least one choice", '["categorical", ["adam", "sgd"]]'),
        (["categorical", "adam"], "needs a list", 'Write ["categorical", ["adam"]].'),
        (["categorical", "adam", "sgd"], "takes one list of choices", 'Write ["categorical", ["adam", "sgd"]].'),
        (["categorical", ["adam", "sgd", "adam"]], "'adam' is given twice", "Leave one of them out."),
        (["categorical", [1, True]], "1 equals True", "Leave one of them out."),
        (["categorical", [1, 1.0]], "1 equals 1.0", "Leave one of them out."),
        (["categorical", [[64, 32]]], "the choice [64, 32] is not text", "Give it a name"),
        (["categorical", [{"a": 1}]], "is not text", "Give it a name"),
        (["categorical", [math.nan]], "the choice nan is not", "Give it a name"),
        (["categorical", [math.inf]], "the choice inf is not", "Give it a name"),
        (["categorical", ["a\0"]], "is not text", "Give it a name"),
        (["categorical", ["\ud800"]], "is not text", "Give it a name"),
        (["uniform", "0", 1], "low must be a number, not text", "Write 0 without quotes."),
        (["uniform", 0, "high"], "high must be a number, not text", ""),
        (["uniform", None, 1], "low must be a number, not null", ""),
        (["uniform", False, True], "low must be a number, not true or false", ""),
        (["int", True, 5], "low must be a whole number, not true or false", ""),
        (["int", 1.0, 5], "low must be a whole number, not a fraction", "Write 1."),
        (["int", 1, 5.5], "high must be a whole number, not a fraction", ""),
        (["int", 1, "8"], "high must be a whole number, not text", "Write 8 without quotes."),
        (["int", 1, 2**60], f"high must be within ±{EXACT}", ""),
        (["uniform", math.nan, 1.0], "low must be a finite number", ""),
        (["uniform", 0.0, math.inf], "high must be a finite number", ""),
        (["uniform", 0, 10**400], "high must be a finite number", ""),
        (["uniform", -1.7e308, 1.7e308], "too wide", ""),
        (["loguniform", 1e-5, 1e-3], "unknown kind 'loguniform'", 'Write ["log_uniform", 1e-05, 0.001].'),
        (["INT", 1, 2], "unknown kind 'INT'", 'Write ["int", 1, 2].'),
        (["choice", ["a", "b"]], "unknown kind 'choice'", 'Write ["categorical", ["a", "b"]].'),
        (["choice", numpy.array([1, 2])], "unknown kind 'choice'", 'Write ["categorical", [1, 2]].'),
        (["float", 0, 1], "unknown kind 'float'", 'Write ["uniform", 0, 1].'),
        (["boolean"], "unknown kind 'boolean'", 'Write ["categorical", [true, false]].'),
        (("boolean",), "unknown kind 'boolean'", "Write ('categorical', [True, False])."),
        (("choice", (None, "l2")), "unknown kind 'choice'", "Write ('categorical', (None, 'l2'))."),
        (
            (16, 32),
            "is not a parameter",
            "Write ('int', 16, 32) for a range, ('categorical', [16, 32]) for two choices.",
        ),
        (["adam", "sgd"], "unknown kind 'adam'", 'Write ["categorical", ["adam", "sgd"]].'),
        ({"adam", "sgd"}, "is not a parameter", 'Write ["categorical", ["adam", "sgd"]].'),
        (
            [16, 32],
            "is not a parameter",
            'Write ["int", 16, 32] for a range, ["categorical", [16, 32]] for two choices.',
        ),
        ([16, 32, 64], "is not a parameter", 'Write ["categorical", [16, 32, 64]].'),
        (["int", 1, 1024, "log"], "step must be a whole number", 'Write ["int_log", 1, 1024].'),
        (["uniform", 1e-5, 1, "log"], "step must be a number", 'Write ["log_uniform", 1e-05, 1].'),
        ({"lr": ["uniform", 0, 1]}, "is not a parameter", '"x.lr" = ["uniform", 0, 1]'),
        (None, "is not a parameter", "Write its kind and bounds"),
        (["gauss", 0, 1], "unknown kind 'gauss'", "Valid: uniform, log_uniform, int, int_log, categorical."),
        (["uniform", 0.0], "uniform takes low, high", 'Write for example ["uniform", 0.0, 0.5].'),
        (["log_uniform", 1, 2, 3], "log_uniform takes low and high", 'Write for example ["log_uniform", 1e-5, 1e-3].'),
        (["int", 1, 2, 3, 4], "int takes low, high", 'Write for example ["int", 128, 1024, 64].'),
        (["uniform"], "uniform takes low, high", ""),
        ([], "is not a parameter", 'such as ["uniform", 0.0, 0.5]'),
        ([0.0, 1.0], "is not a parameter", 'Write ["uniform", 0.0, 1.0] for a range'),
        (0.5, "is not a parameter", 'Write ["categorical", [0.5]] for a constant.'),
        ("uniform", "is not a parameter", "Write its kind and bounds"),
        ({"low": 0, "high": 1}, "is not a parameter", "Write its kind and bounds"),
        (Float(low=2.0, high=1.0), "low 2.0 is above high 1.0", "Swap"),
        (Int(low=1, high=8, step=2, log=True), "int_log takes low and high", "Write for example"),
        (Categorical(choices=()), "at least one choice", ""),
        (Categorical(choices=5), "needs a list", ""),  # type: ignore[arg-type]
    ],
)
def test_says_what_is_wrong_and_what_is_right(written: object, message: str, hint: str) -> None:
    problem = problem_with(written)
    assert message in problem.message
    assert hint in problem.hint and (hint or problem.hint == "" or "\n" not in problem.hint)
    assert problem.key == "search_space.x"


def test_shows_a_param_built_by_hand_as_people_write_it() -> None:
    assert problem_with(Int(low=3, high=1)).value == ["int", 3, 1]


def test_reports_every_parameter_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_space({"a": ("uniform", 1, 0), "b": ("int", 1, 2), "c": ("categorical", [])})
    assert [problem.key for problem in caught.value.problems] == ["search_space.a", "search_space.c"]
    assert caught.value.source == "search_space"


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201, 5, None, "\ud800"])
def test_refuses_names_that_cannot_be_shown(name: object) -> None:
    with pytest.raises(InvalidInput, match="printable characters"):
        parse_space({name: ("uniform", 0, 1)})  # type: ignore[dict-item]


@pytest.mark.parametrize("written", [{}, [], None, "uniform"])
def test_needs_at_least_one_parameter(written: object) -> None:
    with pytest.raises(InvalidInput, match=r"search_space: (needs at least one|must be a table)"):
        parse_space(written)  # type: ignore[arg-type]


reals = st.floats(allow_nan=False, allow_infinity=False, width=32)
wholes = st.integers(-EXACT, EXACT)
positives = st.floats(min_value=1e-30, max_value=1e30)
scalars = (
    st.none() | st.booleans() | st.integers() | reals | st.text(st.characters(codec="utf-8", exclude_characters="\0"))
)

params: st.SearchStrategy[Param] = st.one_of(
    st.tuples(reals, reals).map(lambda pair: Float(low=min(pair), high=max(pair))),
    st.tuples(reals, st.floats(0, 1e6), st.floats(1e-6, 1e6)).map(
        lambda drawn: parse_param("x", ("uniform", drawn[0], drawn[0] + drawn[1], drawn[2]))
    ),
    st.tuples(positives, positives).map(lambda pair: Float(low=min(pair), high=max(pair), log=True)),
    st.tuples(wholes, wholes).map(lambda pair: Int(low=min(pair), high=max(pair))),
    st.tuples(wholes, st.integers(0, 50), st.integers(1, 99))
    .filter(lambda drawn: drawn[0] + drawn[1] * drawn[2] <= EXACT)
    .map(lambda drawn: Int(low=drawn[0], high=drawn[0] + drawn[1] * drawn[2], step=drawn[2])),
    st.tuples(st.integers(1, EXACT), st.integers(1, EXACT)).map(
        lambda pair: Int(low=min(pair), high=max(pair), log=True)
    ),
    st.lists(scalars, min_size=1, unique=True).map(lambda choices: Categorical(choices=tuple(choices))),
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"type": "float", "low": 0, "high": 0.5}, Float(0.0, 0.5)),
        ({"type": "float", "low": 0, "high": 1, "step": 0.25}, Float(0.0, 1.0, step=0.25)),
        ({"type": "float", "low": 1e-5, "high": 1e-1, "log": True}, Float(1e-5, 1e-1, log=True)),
        ({"type": "uniform", "low": 0, "high": 1, "step": 0.5}, Float(0.0, 1.0, step=0.5)),
        ({"type": "log_uniform", "low": 1, "high": 10}, Float(1.0, 10.0, log=True)),
        ({"type": "int", "low": 1, "high": 9, "step": 4}, Int(1, 9, step=4)),
        ({"type": "int", "low": 1, "high": 9, "log": True}, Int(1, 9, log=True)),
        ({"type": "int_log", "low": 1, "high": 9}, Int(1, 9, log=True)),
        ({"type": "categorical", "choices": ["a", "b"]}, Categorical(("a", "b"))),
        ({"type": "bool"}, Categorical((True, False))),
        (
            {"type": "float", "low": 0, "high": 1, "when": {"optimizer": "sgd", "depth": [1, 2]}, "default": 0},
            Float(0.0, 1.0, when={"optimizer": ("sgd",), "depth": (1, 2)}, default=0.0),
        ),
        (Float(0, 1, when={"optimizer": "sgd"}), Float(0.0, 1.0, when={"optimizer": ("sgd",)})),
        (Categorical(["a", "b"], default="a"), Categorical(("a", "b"), default="a")),
        (Bool(when={"deep": True}), Categorical((True, False), when={"deep": (True,)})),
    ],
)
def test_reads_tables_and_what_is_built_by_hand(written: object, expected: Param) -> None:
    read = parse_param("x", written)
    assert repr(read) == repr(expected)
    assert repr(parse_param("x", json.loads(json.dumps(written_form(read))))) == repr(expected)


@pytest.mark.parametrize(
    ("written", "messages"),
    [
        ({"type": "floot", "low": 0, "high": 1}, ["unknown type 'floot' (got 'floot'). Did you mean float?"]),
        ({"type": "float", "low": 0}, ["a float needs high"]),
        (
            {"type": "float", "lo": 0, "high": 1, "log": 1, "when": 3},
            ["lo is not a key of a float (got 0). Did you mean low?", "a float needs low", "when must", "log must be"],
        ),
        ({"type": "float", "low": 1, "high": 2, "log": True, "step": 1}, ["a log scale has no step (got 1)"]),
        ({"type": "bool", "low": 0}, ["low is not a key of a bool"]),
        ({"type": "int", "low": 1, "high": 4, "default": 7}, ["default is outside of ['int', 1, 4] (got 7)"]),
        ({"type": "categorical", "choices": ["adam"], "default": "adm"}, ["default is none", "Did you mean adam?"]),
        ({"type": "float", "low": 0, "high": 1, "when": {"a": []}}, ["when names no value of a"]),
        ({"type": "float", "low": 0, "high": 1, "when": {"a": [[1]]}}, ["the choice [1] is not text"]),
        (Float(0, 1, when="sgd"), ["when must be a table"]),  # type: ignore[arg-type]
        (Float("0", 1, default=0), ["low must be a number, not text"]),  # type: ignore[arg-type]
    ],
)
def test_reports_every_mistake_of_a_table_at_once(written: object, messages: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_param("x", written)
    for message in messages:
        assert message in str(caught.value)


@given(params)
def test_what_is_written_is_read_back_through_json(param: Param) -> None:
    again = parse_param("x", json.loads(json.dumps(written_form(param))))
    # repr, because to Python the choices 1, 1.0 and True are equal.
    assert repr(again) == repr(param)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(1e-6, 1e6))
def test_a_stepped_range_stays_inside_its_bounds_and_is_stable(low: float, width: float, step: float) -> None:
    assume(low <= low + width)
    param = parse_param("x", ("uniform", low, low + width, step))
    assert isinstance(param, Float)
    assert low <= param.high <= low + width
    assert low + width - param.high < step * 1.000001 + 1e-9
    assert parse_param("x", param) == param


@given(st.recursive(scalars | st.sampled_from(["uniform", "int", "categorical"]), st.lists))
def test_nothing_but_invalid_input_comes_out_of_nonsense(written: object) -> None:
    try:
        parse_param("x", written)
    except InvalidInput as invalid:
        assert len(invalid.problems) == 1


def problem_with(written: object) -> Problem:
    with pytest.raises(InvalidInput) as caught:
        parse_param("x", written)
    (problem,) = caught.value.problems
    return problem
