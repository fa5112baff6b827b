"""Report: a Keras training that reports to its study, epoch by epoch. Imports Keras."""

from __future__ import annotations

from typing import Any

import keras

from highnoon.callbacks.metric_reports import MetricReporter


class Report(keras.callbacks.Callback):  # type: ignore[misc]
    """For `fit(callbacks=[...])`: reports `monitor` after each epoch, logs all metrics of it, and prunes.

    Raises TrialPruned out of `fit` when the study's pruner ends the trial, InvalidInput for a metric that the training
    does not have, NoTrialRunning outside an objective.
    """

    reads_logs = False

    def __init__(self, monitor: str = "val_loss") -> None:
        super().__init__()
        self._reporter = MetricReporter("Report()", monitor)
        self._has_trained = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """One epoch. With `validation_freq` those without a validation have nothing to report."""
        self._has_trained = True
        metrics = logs or {}
        monitor = self._reporter.monitor
        is_between_validations = monitor.startswith("val_") and not any(name.startswith("val_") for name in metrics)
        if monitor in metrics or not is_between_validations:
            self._reporter.report(metrics, epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """A `fit` without validation data has never had a `val_loss`; a resumed one may have no epoch left."""
        if self._has_trained and not self._reporter.has_reported:
            raise self._reporter.missing(logs or {})
