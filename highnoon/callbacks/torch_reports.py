"""Trainings of PyTorch Lightning and of Hugging Face's Trainer that report to their study.

Functions, since the class that each framework asks for is known only once that framework is imported.
"""

from __future__ import annotations

import sys
from typing import Any

from highnoon.callbacks.metric_reports import MetricReporter, framework

_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")
"""Two packages with classes of their own: the one that the program uses is imported by now."""


def LightningReport(monitor: str = "val_loss") -> Any:
    """For `Trainer(callbacks=[...])` of PyTorch Lightning: reports `monitor` after each validation, logs, and prunes.

    A metric of the training itself is reported after each epoch. `fit` raises TrialPruned when the study's pruner ends
    the trial, and InvalidInput for a metric that is never logged. Of several processes the first one reports.
    """
    reporter = MetricReporter("LightningReport()", monitor)
    lightning = framework(
        next((name for name in _LIGHTNING if name in sys.modules), _LIGHTNING[0]), "LightningReport()"
    )

    class Callback(lightning.Callback):  # type: ignore[misc,name-defined]
        is_validated = False
        is_of_training = False
        """Known at the end of the first epoch: a later validation finds there the value of the epoch before."""

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            self.is_validated = not trainer.sanity_checking
            if self.is_validated and not self.is_of_training and monitor in trainer.callback_metrics:
                self.report(trainer)

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            is_known = monitor in trainer.callback_metrics or self.is_validated or not trainer.enable_validation
            self.is_of_training |= is_known and not reporter.has_reported
            if self.is_of_training:
                self.report(trainer)

        def on_train_end(self, trainer: Any, module: Any) -> None:
            if not reporter.has_reported and trainer.is_global_zero:
                raise reporter.missing(trainer.callback_metrics)

        def report(self, trainer: Any) -> None:
            if trainer.is_global_zero:
                metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
                reporter.report(metrics, trainer.current_epoch)

    return Callback()


def TransformersReport(monitor: str = "eval_loss") -> Any:
    """For `Trainer(callbacks=[...])` of Hugging Face: reports `monitor` after each evaluation, logs, and prunes.

    Steps are the evaluations so far, also those before a resume. `train` raises TrialPruned when the study's pruner
    ends the trial, and InvalidInput for a metric that no evaluation had. Of several processes the first one reports.
    """
    reporter = MetricReporter("TransformersReport()", monitor)
    transformers = framework("transformers", "TransformersReport()")

    class Callback(transformers.TrainerCallback):  # type: ignore[misc,name-defined]
        is_training = has_trained = False

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.is_training = True

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.has_trained = True

        def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            metrics = given.get("metrics") or {}
            is_reporting = self.is_training and state.is_world_process_zero
            if is_reporting and monitor in metrics:  # each of several datasets has names of its own
                evaluations = [entry for entry in state.log_history if monitor in entry]
                reporter.report(metrics, max(0, len(evaluations) - 1))

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.is_training = False
            if self.has_trained and not reporter.has_reported and state.is_world_process_zero:
                raise reporter.missing({name: None for entry in state.log_history for name in entry})

    return Callback()
