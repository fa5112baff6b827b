"""Trainings of XGBoost and LightGBM that report to their study, by iterations. Imports XGBoost when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from highnoon.callbacks.metric_reports import MetricReporter, framework


def XGBoostReport(monitor: str, *, every: int = 1) -> Any:
    """For `train`, `cv` and the estimators of XGBoost: reports `monitor` after each iteration, logs, and prunes.

    `monitor` is the name of the data and of the metric, such as "validation-logloss"; `cv` has "test-logloss".
    `every` reports only each n-th iteration, where they are fast.
    """
    reporter = MetricReporter("XGBoostReport()", monitor, every)
    xgboost = framework("xgboost", "XGBoostReport()")

    class Callback(xgboost.callback.TrainingCallback):  # type: ignore[misc,name-defined]
        def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, list[Any]]]) -> bool:
            newest = {f"{data}-{name}": log[-1] for data, logs in evals_log.items() for name, log in logs.items()}
            # `cv` has pairs of mean and standard deviation.
            reporter.report({name: v[0] if isinstance(v, tuple) else v for name, v in newest.items()}, epoch)
            return False

    return Callback()


def LightGBMReport(monitor: str, *, every: int = 1) -> Callable[[Any], None]:
    """For `train`, `cv` and the estimators of LightGBM: reports `monitor` after each iteration, logs, and prunes.

    `monitor` is the name of the data and of the metric, such as "valid_0-l2"; `cv` has "valid-l2".
    `every` reports only each n-th iteration, where they are fast.
    """
    reporter = MetricReporter("LightGBMReport()", monitor, every)

    def callback(env: Any) -> None:
        results = env.evaluation_result_list or ()
        reporter.report({f"{result[0]}-{result[1]}": result[2] for result in results}, env.iteration)

    callback.order = 25  # type: ignore[attr-defined]  # before its early stopping, which ends the training at 30
    return callback
