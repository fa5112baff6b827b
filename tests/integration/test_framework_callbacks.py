"""Callbacks of the frameworks, on the real libraries: each in a study of 20 trials that prunes.

The development environment has scikit-learn, Keras and LightGBM; `make test-frameworks` installs the others and runs
this file on them.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import highnoon as hn
from highnoon.shared.domain.errors import EveryTrialFailed, InvalidInput, NoTrialRunning
from highnoon.shared.domain.trial import Trial

EPOCHS = 5
random = np.random.RandomState(0)
X = random.normal(size=(160, 4)).astype("float32")
Y = (X[:, 0] + X[:, 1] * 0.5 > 0).astype("float32")
TRAINING, VALIDATION = slice(0, 120), slice(120, 160)

Train = Callable[[float, str], float]
"""Trains with a learning rate and reports the metric of that name."""


def keras_training(rate: float, monitor: str) -> float:
    keras: Any = importlib.import_module("keras")
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy", metrics=["accuracy"], run_eagerly=True)
    history = model.fit(
        *(X[TRAINING], Y[TRAINING]),
        validation_data=(X[VALIDATION], Y[VALIDATION]),
        epochs=EPOCHS,
        batch_size=120,
        verbose=0,
        callbacks=[hn.callbacks.Report(monitor)],
    )
    return float(history.history["val_loss"][-1])


def lightning_training(rate: float, monitor: str) -> float:
    lightning: Any = importlib.import_module("lightning.pytorch")
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def loss(self, batch: Any) -> Any:
            x, y = batch
            return torch.nn.functional.binary_cross_entropy_with_logits(self.layer(x)[:, 0], y)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.loss(batch)
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), rate)

    lightning.seed_everything(1, verbose=False)
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[hn.callbacks.LightningReport(monitor)],
    )
    trainer.fit(Module(), DataLoader(data, batch_size=40), DataLoader(data, batch_size=160))
    return float(trainer.callback_metrics["val_loss"])


def transformers_training(rate: float, monitor: str) -> float:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers_trainer(rate, monitor, folder)
        trainer.train()
        return float(trainer.evaluate()["eval_loss"])


def transformers_trainer(rate: float, monitor: str, folder: str, **given: Any) -> Any:
    transformers: Any = importlib.import_module("transformers")
    import torch

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: Any, labels: Any) -> dict[str, Any]:
            logits = self.layer(x)[:, 0]
            return {"loss": torch.nn.functional.binary_cross_entropy_with_logits(logits, labels), "logits": logits}

    transformers.set_seed(1)
    rows = [{"x": torch.from_numpy(x), "labels": torch.tensor(y)} for x, y in zip(X, Y, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        learning_rate=rate,
        optim="sgd",
        lr_scheduler_type="constant",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=160,
        per_device_eval_batch_size=160,
        eval_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"save_strategy": "no", **given},
    )
    return transformers.Trainer(
        model=Model(),
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[hn.callbacks.TransformersReport(monitor)],
    )


def xgboost_training(rate: float, monitor: str) -> float:
    xgboost: Any = importlib.import_module("xgboost")
    data = xgboost.DMatrix(X[TRAINING], Y[TRAINING])
    validation = xgboost.DMatrix(X[VALIDATION], Y[VALIDATION])
    results: dict[str, Any] = {}
    xgboost.train(
        {"objective": "binary:logistic", "eta": min(rate, 1.0), "max_depth": 2, "nthread": 1},
        data,
        num_boost_round=EPOCHS,
        evals=[(data, "train"), (validation, "validation")],
        evals_result=results,
        verbose_eval=False,
        callbacks=[hn.callbacks.XGBoostReport(monitor)],
    )
    return float(results["validation"]["logloss"][-1])


def lightgbm_training(rate: float, monitor: str) -> float:
    lightgbm: Any = importlib.import_module("lightgbm")
    data = lightgbm.Dataset(X[TRAINING], Y[TRAINING])
    model = lightgbm.train(
        {"objective": "binary", "learning_rate": rate, "num_leaves": 4, "num_threads": 1, "verbose": -1, "seed": 1},
        data,
        num_boost_round=EPOCHS,
        valid_sets=[data, lightgbm.Dataset(X[VALIDATION], Y[VALIDATION], reference=data)],
        valid_names=["train", "validation"],
        callbacks=[hn.callbacks.LightGBMReport(monitor)],
    )
    return float(model.best_score["validation"]["binary_logloss"])


TRAININGS: dict[str, tuple[Train, str, set[str]]] = {
    "keras": (keras_training, "val_loss", {"loss", "accuracy", "val_loss", "val_accuracy"}),
    "lightning": (lightning_training, "val_loss", {"train_loss", "val_loss"}),
    "transformers": (transformers_training, "eval_loss", {"eval_loss", "epoch"}),
    "xgboost": (xgboost_training, "validation-logloss", {"train-logloss", "validation-logloss"}),
    "lightgbm": (lightgbm_training, "validation-binary_logloss", {"train-binary_logloss", "validation-binary_logloss"}),
}


def pruned_study(objective: Callable[[dict[str, Any]], float], direction: str = "minimize") -> list[Trial]:
    hpo = hn.HPOTrialManager(
        *("callbacks", 20, direction),
        sampler="random",
        pruner={"name": "median", "n_startup_trials": 4, "n_warmup_steps": 1},
        seed=3,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hpo.optimize(objective, {"rate": ("log_uniform", 1e-3, 1.0)}, show_progress=False)
    return hpo.trials


def assert_pruned(trials: list[Trial]) -> None:
    completed = [trial for trial in trials if trial.state == "COMPLETE"]
    pruned = [trial for trial in trials if trial.state == "PRUNED"]
    assert len(trials) == 20 and len(completed) >= 4 and len(pruned) >= 3, [trial.state for trial in trials]
    assert all([report.step for report in trial.reports] == list(range(EPOCHS)) for trial in completed)
    assert all(2 <= len(trial.reports) <= EPOCHS for trial in pruned)


@pytest.mark.parametrize("framework", TRAININGS)
def test_a_study_of_20_trials_is_pruned(framework: str) -> None:
    pytest.importorskip(framework)
    train, monitor, metrics = TRAININGS[framework]

    trials = pruned_study(lambda params: train(params["rate"], monitor))

    assert_pruned(trials)
    for trial in trials:
        assert metrics <= set(trial.metrics)
        assert trial.metrics[monitor] == pytest.approx(trial.reports[-1].value, rel=1e-6)
    best = min((trial for trial in trials if trial.state == "COMPLETE"), key=lambda trial: trial.value or 0.0)
    assert best.value == pytest.approx(best.reports[-1].value, rel=1e-5)


@pytest.mark.parametrize("framework", TRAININGS)
def test_a_wrong_metric_is_answered_with_the_nearest(framework: str) -> None:
    pytest.importorskip(framework)
    train, monitor, _ = TRAININGS[framework]
    hpo = hn.HPOTrialManager("wrong", n_trials=1)

    with warnings.catch_warnings(), pytest.raises(EveryTrialFailed) as failed:
        warnings.simplefilter("ignore")
        hpo.optimize(lambda params: train(0.1, monitor[:-1]), {"x": ("uniform", 0.0, 1.0)})

    assert f"(got {monitor[:-1]!r}). Did you mean {monitor}?" in str(failed.value)


def test_an_estimator_that_learns_in_steps_is_pruned() -> None:
    linear: Any = pytest.importorskip("sklearn.linear_model")

    def objective(params: dict[str, Any]) -> float:
        model = linear.SGDClassifier(loss="log_loss", learning_rate="constant", eta0=params["rate"], random_state=1)
        return hn.callbacks.partial_fit(
            *(model, X[TRAINING], Y[TRAINING]),
            validation=(X[VALIDATION], Y[VALIDATION]),
            epochs=EPOCHS,
            batch_size=30,
            scoring="neg_log_loss",
            seed=1,
        )

    trials = pruned_study(objective, "maximize")

    assert_pruned(trials)
    assert all(trial.metrics["score"] == trial.reports[-1].value for trial in trials)


def test_batches_of_an_estimator_follow_from_the_studys_seed() -> None:
    linear: Any = pytest.importorskip("sklearn.linear_model")

    def objective(params: dict[str, Any]) -> float:
        model = linear.SGDClassifier(loss="log_loss", random_state=1)
        return hn.callbacks.partial_fit(
            *(model, X[TRAINING], Y[TRAINING]),
            validation=(X[VALIDATION], Y[VALIDATION]),
            epochs=1,
            batch_size=30,
            scoring="neg_log_loss",
        )

    def values() -> list[float | None]:
        hpo = hn.HPOTrialManager("seeded", n_trials=2, direction="maximize", seed=3)
        hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})
        return [trial.value for trial in hpo.trials]

    first = values()
    assert values() == first and len(set(first)) == 2


def test_a_second_fit_goes_on_counting_epochs() -> None:
    keras: Any = pytest.importorskip("keras")

    def objective(params: dict[str, Any]) -> float:
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        report = hn.callbacks.Report("loss")
        for _ in range(2):
            model.fit(X, Y, epochs=2, verbose=0, callbacks=[report])
        return 0.0

    hpo = hn.HPOTrialManager("twice", n_trials=1)
    hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})
    assert [report.step for report in hpo.trials[0].reports] == [0, 1, 2, 3]


def test_a_resumed_fit_without_an_epoch_left_reports_nothing() -> None:
    keras: Any = pytest.importorskip("keras")

    def objective(params: dict[str, Any]) -> float:
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(X, Y, epochs=2, initial_epoch=2, verbose=0, callbacks=[hn.callbacks.Report()])
        return 0.5

    hpo = hn.HPOTrialManager("resumed", n_trials=1)
    hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})
    assert hpo.best_value == 0.5 and not hpo.trials[0].reports


def test_a_resumed_training_without_a_step_left_reports_nothing(tmp_path: Path) -> None:
    pytest.importorskip("transformers")

    def objective(params: dict[str, Any]) -> float:
        for resumes in (False, True):
            trainer = transformers_trainer(0.1, "eval_loss", str(tmp_path), save_strategy="epoch")
            trainer.train(resume_from_checkpoint=resumes)
        return 0.5

    hpo = hn.HPOTrialManager("resumed", n_trials=1)
    hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})
    assert hpo.best_value == 0.5 and len(hpo.trials[0].reports) == EPOCHS


def test_epochs_without_validation_report_nothing() -> None:
    keras: Any = pytest.importorskip("keras")

    def objective(params: dict[str, Any]) -> float:
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        report = hn.callbacks.Report()
        model.fit(X, Y, epochs=4, validation_split=0.2, validation_freq=2, verbose=0, callbacks=[report])
        return 0.0

    hpo = hn.HPOTrialManager("seldom", n_trials=1)
    hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})
    assert [report.step for report in hpo.trials[0].reports] == [1, 3]


def test_boosting_may_report_each_tenth_iteration() -> None:
    report = hn.callbacks.LightGBMReport("valid_0-l2", every=10)

    class Iteration:
        evaluation_result_list = (("valid_0", "l2", 0.5, False),)

        def __init__(self, iteration: int) -> None:
            self.iteration = iteration

    report(Iteration(1))
    with pytest.raises(NoTrialRunning):
        report(Iteration(10))


def test_arguments_are_checked_at_once() -> None:
    wrong: Any = None
    with pytest.raises(InvalidInput, match=r"(?s)monitor: .*got None.*every: must be a whole number >= 1 \(got 0\)"):
        hn.callbacks.LightGBMReport(wrong, every=0)
