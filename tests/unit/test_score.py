"""The efficiency score: the guide's table, what lambda buys, what is refused, and what holds for every number."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any, Literal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from highnoon.shared.domain.errors import InvalidObjectiveResult, MissingParamCount
from highnoon.shared.domain.score import Scoring

BILLION = 1_000_000_000

losses = st.floats(1e-6, 1e6)
sizes = st.integers(1, 10**12)
lambdas = st.floats(1e-3, 10)
directions: st.SearchStrategy[Literal["minimize", "maximize"]] = st.sampled_from(["minimize", "maximize"])


def test_the_guides_table() -> None:
    scoring = Scoring(param_budget=BILLION, lambda_efficiency=0.1)

    a, b = scoring.score(0.099, BILLION), scoring.score(0.100, BILLION // 2)

    assert (a, b) == (pytest.approx(0.1089), pytest.approx(0.105))
    assert b < a, "B is first"


def test_under_maximize_size_divides() -> None:
    scoring = Scoring(direction="maximize", param_budget=BILLION)

    a, b = scoring.score(0.901, BILLION), scoring.score(0.900, BILLION // 2)

    assert (a, b) == (pytest.approx(0.901 / 1.1), pytest.approx(0.900 / 1.05))
    assert b > a


@pytest.mark.parametrize(("lambda_", "percent"), [(0.05, 2.4), (0.1, 4.8), (0.2, 9.1), (0.3, 13.0)])
def test_what_lambda_buys(lambda_: float, percent: float) -> None:
    """Halving a model that sits on the budget pays for so much more loss, and for no more."""
    scoring = Scoring(param_budget=BILLION, lambda_efficiency=lambda_)
    full = scoring.score(1.0, BILLION)

    assert round(100 * (full / scoring.score(1.0, BILLION // 2) - 1), 1) == percent
    assert scoring.score(1 + (percent - 0.1) / 100, BILLION // 2) < full
    assert scoring.score(1 + (percent + 0.1) / 100, BILLION // 2) > full


@pytest.mark.parametrize("loss", [0.5, 0.0, -0.9, math.inf, -math.inf])
def test_without_a_budget_the_score_is_the_loss(loss: float) -> None:
    for direction in ("minimize", "maximize"):
        assert Scoring(direction=direction, lambda_efficiency=5.0).score(loss, None) == loss  # type: ignore[arg-type]


def test_one_line_says_what_a_score_is() -> None:
    assert str(Scoring()) == "efficiency is off: no param_budget, so the score is the loss"
    assert str(Scoring(param_budget=BILLION)) == "score = loss * (1 + 0.1 * params / 1,000,000,000)"
    assert str(Scoring(direction="maximize", param_budget=5, param_budget_hard=True)) == (
        "score = value / (1 + 0.1 * params / 5), larger is infeasible"
    )


def test_a_budget_wants_a_count() -> None:
    with pytest.raises(MissingParamCount, match=r"hn\.create_model.*hpo\.report_params\(n\).*\{\"loss\": \.\.\."):
        Scoring(param_budget=5).score(0.5, None)


@pytest.mark.parametrize(
    ("direction", "loss", "reason"),
    [
        ("minimize", -0.9, "times more than 1 it falls, so a larger model would win"),
        ("minimize", -math.inf, "a larger model would win"),
        ("minimize", 0.0, "it stays 0, so size would not count"),
        ("maximize", -0.9, "divided by more than 1 it comes nearer to 0, so a larger model would win"),
    ],
)
def test_what_size_would_not_worsen_is_refused_with_reason_and_alternative(
    direction: Any, loss: float, reason: str
) -> None:
    with pytest.raises(InvalidObjectiveResult) as caught:
        Scoring(direction=direction, param_budget=5).score(loss, 5)

    message = str(caught.value)
    assert reason in message
    assert direction in message
    assert "hpo.pareto_front()" in message
    assert "`objectives`" in message


def test_what_is_legal_without_a_budget_and_ranks_last_stays_so() -> None:
    minimize, maximize = Scoring(param_budget=5), Scoring(direction="maximize", param_budget=5)

    assert minimize.score(math.inf, 3) == math.inf
    assert maximize.score(-math.inf, 3) == -math.inf
    assert maximize.score(0.0, 3) == 0.0
    assert math.isnan(minimize.score(math.nan, 3)), "a report may be NaN"
    assert math.isnan(maximize.score(math.nan, 3))


def test_lambda_zero_scores_nothing_and_refuses_nothing() -> None:
    assert Scoring(param_budget=5, lambda_efficiency=0.0).score(-0.9, 3) == -0.9


def test_only_a_hard_budget_is_exceeded() -> None:
    hard = Scoring(param_budget=1000, param_budget_hard=True)

    assert hard.excess(1500) == 0.5
    assert hard.excess(1000) is None
    assert Scoring(param_budget=1000).excess(1500) is None
    assert Scoring().excess(1500) is None


def test_two_trials_can_be_compared_when_their_terms_are_equal() -> None:
    assert Scoring().terms == Scoring(lambda_efficiency=0.3).terms is None
    assert Scoring(param_budget=5).terms == Scoring(param_budget=5, param_budget_hard=True).terms
    assert Scoring(param_budget=5).terms != Scoring(param_budget=6).terms
    assert Scoring(param_budget=5).terms != Scoring(param_budget=5, lambda_efficiency=0.2).terms


@given(direction=directions, budget=sizes, lambda_=lambdas, size=sizes, one=losses, other=losses)
def test_at_equal_size_the_order_of_losses_is_kept(
    direction: Literal["minimize", "maximize"], budget: int, lambda_: float, size: int, one: float, other: float
) -> None:
    scoring = Scoring(direction=direction, param_budget=budget, lambda_efficiency=lambda_)
    low, high = sorted((one, other))

    assert scoring.score(low, size) <= scoring.score(high, size)
    if high > low * (1 + 1e-12):
        assert scoring.score(low, size) < scoring.score(high, size)


@given(direction=directions, budget=sizes, lambda_=lambdas, loss=losses, one=sizes, other=sizes)
@example(direction="minimize", budget=10**12, lambda_=1e-3, loss=1.0, one=1, other=2)
def test_at_equal_loss_more_parameters_are_never_better(
    direction: Literal["minimize", "maximize"], budget: int, lambda_: float, loss: float, one: int, other: int
) -> None:
    scoring = Scoring(direction=direction, param_budget=budget, lambda_efficiency=lambda_)
    sign = -1 if direction == "maximize" else 1
    small, large = sorted((one, other))

    assert sign * scoring.score(loss, small) <= sign * scoring.score(loss, large)
    if lambda_ * (large - small) / budget > 1e-9 * (1 + lambda_ * large / budget):
        assert sign * scoring.score(loss, small) < sign * scoring.score(loss, large)


@given(budget=sizes, lambda_=lambdas, loss=losses, size=sizes)
def test_the_score_is_never_better_than_the_loss(budget: int, lambda_: float, loss: float, size: int) -> None:
    assert Scoring(param_budget=budget, lambda_efficiency=lambda_).score(loss, size) >= loss
    assert Scoring(direction="maximize", param_budget=budget, lambda_efficiency=lambda_).score(loss, size) <= loss


@given(direction=directions, budget=sizes, lambda_=lambdas, scale=st.floats(1e-3, 1e3), data=st.data())
def test_the_unit_of_the_loss_does_not_change_the_order(
    direction: Literal["minimize", "maximize"], budget: int, lambda_: float, scale: float, data: st.DataObject
) -> None:
    scoring = Scoring(direction=direction, param_budget=budget, lambda_efficiency=lambda_)
    (one, small), (other, large) = data.draw(st.tuples(losses, sizes)), data.draw(st.tuples(losses, sizes))
    before = scoring.score(one, small) - scoring.score(other, large)
    assume(abs(before) > 1e-9 * (scoring.score(one, small) + scoring.score(other, large)))

    after = scoring.score(one * scale, small) - scoring.score(other * scale, large)

    assert (before > 0) == (after > 0)


def test_the_score_needs_nothing_but_python() -> None:
    modules = "highnoon.shared.domain.score"
    program = f"import sys, {modules}; print({{'numpy', 'optuna', 'pydantic'}} & sys.modules.keys())"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "set()"
