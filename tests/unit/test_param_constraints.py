"""Constraints between parameters: a small grammar, of which nothing is executed."""

from __future__ import annotations

import pytest

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.domain.kept_constraints import kept_constraints_problems
from highnoon.shared.domain.param import Bool, Categorical, Float, Int
from highnoon.shared.domain.param_constraints import TEXT_LIMIT, broken, parsed_constraints, read_param_constraints
from highnoon.shared.domain.space import parse_space
from highnoon.shared.domain.study import validate
from highnoon.shared.objective.study_file import build_spec

SPACE = parse_space(
    {
        "a": Float(0, 1),
        "b": Float(0, 1),
        "width": Int(1, 512),
        "heads": Categorical([1, 2, 4]),
        "optimizer": Categorical(["adam", "sgd"]),
        "deep": Bool(),
    }
)


@pytest.mark.parametrize(
    ("text", "point", "holds"),
    [
        ("a <= b", {"a": 0.5, "b": 0.5}, True),
        ("a < b", {"a": 0.5, "b": 0.5}, False),
        ("a + b <= 1", {"a": 0.5, "b": 0.6}, False),
        ("0.1 < a < b", {"a": 0.2, "b": 0.3}, True),
        ("0.1 < a < b", {"a": 0.05, "b": 0.3}, False),
        ("width % heads == 0", {"width": 96, "heads": 4}, True),
        ("width % heads == 0", {"width": 97, "heads": 4}, False),
        ("width * heads != 12", {"width": 3, "heads": 4}, False),
        ("-a >= -(b - 1) / 2", {"a": 0.1, "b": 0.0}, False),
        ("a / b <= 1", {"a": 0.1, "b": 0.0}, False),
        ("a <= b", {"a": 0.5}, True),
    ],
)
def test_decides_on_points_also_without_an_inactive_parameter(text: str, point: dict[str, float], holds: bool) -> None:
    assert broken(parsed_constraints([text]), point) == ([] if holds else [text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <= c", "names c, which is no parameter (got 'a <= c'). Valid: a, b, width, heads."),
        ("widht <= 3", "Did you mean width?"),
        ("optimizer <= 1", "names optimizer, which is not numeric"),
        ("deep <= 1", "names deep, which is not numeric"),
        ("a + b", "must compare"),
        ("a in b", "must compare with"),
        ("a <= 'x'", "numbers, parameters and + - * / %, not \"'x'\""),
        ("a ** 99 <= 1", "not 'a ** 99'"),
        ("a <= __import__('os').getpid()", "not \"__import__('os').getpid()\""),
        ("a.real <= 1", "not 'a.real'"),
        ("a <= True", "not 'True'"),
        ("(lambda: a)() <= 1", "not '(lambda: a)()'"),
        ("1 <= 2", "names no parameter"),
        ("a <= ", "cannot be read"),
        ("a <= b\0", "cannot be read"),
        ("(" * 200 + "a" + ")" * 90 + " <= 1", "cannot be read"),
        ("a - b <= 1e400", "finite numbers only"),
        ("", "a text of 1 to"),
        ("a <= 1" + " + 0" * TEXT_LIMIT, "a text of 1 to"),
        (3, "a text of 1 to"),
    ],
)
def test_refuses_everything_else(text: object, message: str) -> None:
    constraints, problems = read_param_constraints([text], SPACE)
    assert not constraints and message in str(problems[0])
    assert problems[0].hint


@pytest.mark.parametrize("written", ["a <= b", 3, None, {"a": "b"}])
def test_a_study_wants_a_list_of_them(written: object) -> None:
    _, problems = read_param_constraints(written, SPACE)
    assert "must be a list of constraints" in str(problems[0])


@pytest.mark.parametrize(
    ("constraints", "sampler", "message"),
    [
        (["a >= 0", "a <= -5"], "tpe", "keeps it, in 20,000 draws (got 'a <= -5'). Here a is ['uniform', 0.0, 1.0]."),
        (["a / 0 <= 1"], "tpe", "keeps it, in 20,000 draws (got 'a / 0 <= 1')"),
        (["n % (n - n) == 0"], "tpe", "Here n is ['int', 1, 8]."),
        (["a < 0.5", "a > 0.5"], "tpe", "keeps all of them, in 20,000 draws (got ['a < 0.5', 'a > 0.5'])"),
        (["a == 0.25"], {"name": "grid", "points": 3}, "no point of the grid keeps it (got 'a == 0.25')"),
    ],
)
def test_constraints_that_no_point_keeps_are_refused_when_a_study_is_asked_for(
    constraints: list[str], sampler: object, message: str
) -> None:
    space = {"a": ["uniform", 0, 1], "n": ["int", 1, 8]}
    study = {"name": "x", "objective": "a:b", "search_space": space, "sampler": sampler}
    spec, _ = validate({**study, "param_constraints": constraints})
    assert spec is not None, "one that is stored can be read"
    with pytest.raises(InvalidInput) as refused:
        build_spec({**study, "param_constraints": constraints}, source="study.toml")
    (problem,) = (problem for problem in refused.value.problems if problem.key == "param_constraints")
    assert message in str(problem)


def test_constraints_that_few_points_keep_are_accepted() -> None:
    space = {
        "m": ["categorical", ["p", "q"]],
        "a": ["int", 1, 64],
        "b": ["int_log", 1, 64],
        "c": ["uniform", 0, 1, 0.1],
        "d": {"type": "float", "low": 0.1, "high": 1.0, "log": True, "when": {"m": "q"}},
    }
    constraints = ["a == b", "a <= 2", "c == 0.5", "d <= 0.2"]
    spec, problems = validate(
        {"name": "x", "objective": "a:b", "search_space": space, "param_constraints": constraints}
    )
    assert spec is not None and not problems and not kept_constraints_problems(spec)


def test_a_study_reports_them_with_all_its_other_mistakes() -> None:
    study = {"name": "x", "objective": "a:b", "search_space": {"a": ["uniform", 0, 1]}, "n_trials": 0}
    spec, problems = validate({**study, "param_constraints": ["a <= c", "d >="]})
    assert spec is None
    assert [problem.key for problem in problems] == ["n_trials", "param_constraints", "param_constraints"]
    spec, problems = validate({**study, "n_trials": 3, "param_constraints": ["a <= 0.5"]})
    assert not problems and spec is not None
    assert type(spec).from_json(spec.to_json()) == spec
    assert [constraint.holds({"a": 0.6}) for constraint in spec.point_constraints] == [False]
