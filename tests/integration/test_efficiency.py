"""Loss and size through HPOTrialManager: what ranks, what is kept, what is refused, in memory and on SQLite."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import optuna
import pytest

import highnoon as hn
from highnoon.shared.domain.errors import (
    EveryTrialFailed,
    InvalidInput,
    NoCompletedTrial,
    NoTrialRunning,
    StudyConflict,
    UserInputError,
)
from highnoon.shared.domain.states import TrialState
from highnoon.shared.domain.study import StudySpec
from tests.guide.blocks import blocks, run

SPACE = {"width": ("int", 1, 40), "rate": ("uniform", 0.0, 1.0)}
BUDGET = 400


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return None if request.param == "memory" else f"sqlite:///{tmp_path}/hpo.db"


def size_of(params: dict[str, Any]) -> int:
    return int(params["width"]) ** 2


def loss_of(params: dict[str, Any]) -> float:
    """Wider is better, and less so the wider it is."""
    return 0.5 + 1 / int(params["width"]) + float(params["rate"])


def calls(params: dict[str, Any]) -> float:
    hn.report_params(size_of(params))
    hn.report(2 * loss_of(params), 0)
    hn.report(loss_of(params), 1)
    return loss_of(params)


def returns(params: dict[str, Any]) -> dict[str, Any]:
    return {"loss": loss_of(params), "params": size_of(params), "active_params": 1}


def score_of(params: dict[str, Any]) -> float:
    return loss_of(params) * (1 + 0.1 * size_of(params) / BUDGET)


@pytest.mark.parametrize("objective", [calls, returns])
def test_score_combines_loss_and_size_and_both_are_kept(storage: str | None, objective: Any) -> None:
    hpo = hn.HPOTrialManager("digits", 25, storage=storage, seed=3, param_budget=BUDGET, pruner="none")

    best = hpo.optimize(objective, SPACE)

    by_score = min(hpo.trials, key=lambda trial: score_of(trial.params))
    assert best == by_score.params
    assert hpo.best_value == pytest.approx(score_of(best))
    assert hpo.best_loss == loss_of(best)
    assert hpo.best_loss > min(trial.loss or math.inf for trial in hpo.trials), "size decided"
    for trial in hpo.trials:
        assert (trial.loss, trial.params_count) == (loss_of(trial.params), size_of(trial.params))
        assert trial.value == pytest.approx(score_of(trial.params))
        assert trial.attrs["highnoon:score"] == trial.value
        assert trial.active_params == (1 if objective is returns else None)


def test_intermediate_reports_are_scored_like_the_result(storage: str | None) -> None:
    hpo = hn.HPOTrialManager("digits", 3, storage=storage, seed=3, param_budget=BUDGET, pruner="none")

    hpo.optimize(calls, SPACE)

    for trial in hpo.trials:
        first, last = (report.value for report in trial.reports)
        assert trial.value is not None
        assert (first, last) == (pytest.approx(2 * trial.value), trial.value)


def test_the_pruner_compares_scores(storage: str | None) -> None:
    """The large model has the lower loss at each step, and the worse score: it is the one that is pruned."""
    hpo = hn.HPOTrialManager(
        "digits", 6, storage=storage, sampler="random", param_budget=BUDGET, lambda_efficiency=1.0,
        pruner={"name": "median", "n_startup_trials": 5},
    )  # fmt: skip
    sizes = iter([40, 40, 40, 40, 40, 400])

    def objective(params: dict[str, Any]) -> float:
        size = next(sizes)
        hpo.report_params(size)
        loss = 1.0 if size == 40 else 0.9
        hpo.report(loss, 0)
        if hpo.should_prune():
            raise hpo.TrialPruned
        return loss

    hpo.optimize(objective, SPACE)

    large = hpo.trials[-1]
    assert (large.state, large.value, large.loss) == (TrialState.PRUNED, pytest.approx(1.8), 0.9)
    assert hpo.best_loss == 1.0


def test_maximize_divides(storage: str | None) -> None:
    hpo = hn.HPOTrialManager("digits", 2, "maximize", storage, param_budget=1000)
    results = iter([{"loss": 0.901, "params": 1000}, {"loss": 0.900, "params": 500}])

    hpo.optimize(lambda params: next(results), SPACE)

    assert (hpo.best_value, hpo.best_loss) == (pytest.approx(0.9 / 1.05), 0.9)
    assert [number for number, _, _ in hpo.pareto_front()] == [1, 0]


def test_optuna_script_reads_loss_size_and_score(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hpo.db"
    hn.HPOTrialManager("digits", 2, storage=url, param_budget=BUDGET).optimize(returns, SPACE)

    for trial in optuna.load_study(study_name="digits", storage=url).trials:
        assert (
            trial.user_attrs.items()
            >= {
                "highnoon:loss": loss_of(trial.params),
                "highnoon:params": size_of(trial.params),
                "highnoon:active_params": 1,
                "highnoon:score": trial.value,
            }.items()
        )


class TestParetoFront:
    def test_it_needs_no_lambda_and_no_budget(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager("digits", 4, storage=storage)
        results = iter([(0.3, 100), (0.2, 200), (0.25, 300), (0.1, 400)])

        hpo.optimize(lambda params: dict(zip(("loss", "params"), next(results), strict=True)), SPACE)

        assert hpo.pareto_front() == [(0, 0.3, 100), (1, 0.2, 200), (3, 0.1, 400)]
        assert hpo.best_value == hpo.best_loss == 0.1

    def test_pareto_front_without_trials_or_sizes_is_refused(self) -> None:
        hpo = hn.HPOTrialManager("digits", 1)
        with pytest.raises(NoCompletedTrial):
            hpo.pareto_front()
        hpo.optimize(lambda params: 1.0, SPACE)
        with pytest.raises(UserInputError, match=r"no trial with a known size.*create_model.*report_params.*params"):
            hpo.pareto_front()


class TestHardBudget:
    def test_larger_is_infeasible_before_training(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager(
            "digits", 30, storage=storage, seed=1, param_budget=BUDGET, param_budget_hard=True, pruner="none"
        )
        trained = []

        def objective(params: dict[str, Any]) -> float:
            hn.report_params(size_of(params))
            trained.append(size_of(params))
            return loss_of(params)

        hpo.optimize(objective, SPACE)

        pruned = [trial for trial in hpo.trials if trial.state is TrialState.PRUNED]
        assert pruned and max(trained) <= BUDGET
        for trial in pruned:
            assert trial.attrs["highnoon:cause"] == "param_budget"
            assert trial.params_count == size_of(trial.params) > BUDGET
            assert (trial.value, trial.loss) == (None, None)
        assert size_of(hpo.best_params) <= BUDGET
        assert len(trained) == 30 - len(pruned)

    def test_it_needs_a_budget(self) -> None:
        with pytest.raises(InvalidInput, match="param_budget_hard: needs a param_budget"):
            hn.HPOTrialManager("digits", param_budget_hard=True)


class TestRefused:
    def test_missing_parameter_count_fails_the_trial_with_a_remedy(self, storage: str | None) -> None:
        hpo = hn.HPOTrialManager("digits", 2, storage=storage, param_budget=BUDGET)

        with pytest.raises(EveryTrialFailed, match=r"create_model.*report_params\(n\).*\"params\""):
            hpo.optimize(loss_of, SPACE)

        for trial in hpo.trials:
            assert (trial.state, trial.attrs["highnoon:cause"]) == (TrialState.FAIL, "no_param_count")

    def test_a_loss_that_size_would_improve_ends_the_trial(self) -> None:
        hpo = hn.HPOTrialManager("digits", 1, param_budget=BUDGET)

        with pytest.raises(EveryTrialFailed, match=r"a larger model would win.*hpo\.pareto_front\(\)"):
            hpo.optimize(lambda params: {"loss": -0.9, "params": 5}, SPACE)

    @pytest.mark.parametrize("wrong", [{"param_budget": 0}, {"param_budget": 1e9}, {"lambda_efficiency": -1}])
    def test_wrong_settings_are_refused_by_their_names(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput) as caught:
            hn.HPOTrialManager("digits", **wrong)

        assert [problem.key for problem in caught.value.problems] == list(wrong)

    def test_report_params_outside_a_trial_raises_no_trial_running(self) -> None:
        for call in (hn.report_params, hn.HPOTrialManager.report_params):
            with pytest.raises(NoTrialRunning, match=r"report_params\(\)"):
                call(5)

    def test_study_keeps_its_scoring_and_can_be_read_without_it(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/hpo.db"
        hn.HPOTrialManager("digits", 2, storage=url, param_budget=BUDGET).optimize(returns, SPACE)

        reader = hn.HPOTrialManager("digits", 1, storage=url)
        assert reader.best_loss < reader.best_value
        with pytest.raises(StudyConflict, match=r"has param_budget 400 and lambda_efficiency 0\.1, not no param"):
            reader.optimize(returns, SPACE)
        with pytest.raises(StudyConflict, match=r"lambda_efficiency 0\.1, not param_budget 400 and lambda_eff"):
            hn.HPOTrialManager("digits", 1, storage=url, param_budget=BUDGET, lambda_efficiency=0.3).optimize(
                returns, SPACE
            )
        assert len(reader.trials) == 2


@pytest.mark.parametrize(("budget", "words"), [(None, "efficiency is off"), (BUDGET, "score = loss * (1 + 0.1 *")])
def test_log_line_describes_the_score(budget: int | None, words: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="highnoon")

    hn.HPOTrialManager("digits", 3, param_budget=budget).optimize(returns, SPACE)

    lines = [record.getMessage() for record in caplog.records if "action=efficiency" in record.getMessage()]
    assert len(lines) == 1
    assert words in lines[0]


def test_the_guides_settings_are_keys_of_manager_and_study_file() -> None:
    settings = next(json.loads(block) for block in blocks("Configuration", language="json") if "param_budget" in block)

    hn.HPOTrialManager("digits", **settings)
    study = StudySpec.from_json({"name": "digits", "objective": "a.py:b", "search_space": SPACE, **settings})

    assert (study.scoring.param_budget, study.scoring.lambda_efficiency) == (1_000_000_000, 0.1)


def test_examples_of_the_efficiency_page_run() -> None:
    """Its model is a width, and an epoch of training is a number."""
    page = (Path(__file__).parents[2] / "docs" / "efficiency.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)

    class Model:
        def __init__(self, width: int) -> None:
            self.width, self.epochs = width, 0

        def count_params(self) -> int:
            return 1000 * self.width

    def train_one_epoch(model: Model) -> float:
        model.epochs += 1
        return 1 / model.epochs + 1 / model.width

    names = run(code, build=lambda params: Model(int(params["width"])), train_one_epoch=train_one_epoch)

    hpo = names["hpo"]
    assert len(hpo.trials) == 20
    assert hpo.best_loss < hpo.best_value
    assert hpo.pareto_front()[-1][2] >= hpo.best_trial.params_count
