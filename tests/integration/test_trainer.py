"""Trainer on real text with a small model: what it trains, what it prints, what it refuses.

The model here is a plain Keras one, so that these tests are about the trainer alone.
"""

from __future__ import annotations

import io
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

import highnoon as hn
from highnoon.lm.data import sources
from highnoon.lm.training import loop
from highnoon.lm.training.options import TrainingOptions
from highnoon.lm.training.train_state import TrainState, apply_adamw, decays, make_optimizer
from highnoon.shared.domain.errors import InvalidInput, NoTrialRunning, TrainingDiverged, TrialPruned, UserInputError
from highnoon.shared.objective.trial_context import bound

SENTENCES = [
    f"{number} birds sat on the {place}, and {number + 1} flew away.\n" for number in range(20) for place in "ab"
]


@pytest.fixture(autouse=True)
def _birds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sources, "_registered", {})
    hn.register_dataset("birds", SENTENCES)
    keras.utils.set_random_seed(1)
    yield
    keras.backend.clear_session()


class Sizes:
    """Stands for a model's configuration."""

    def to_dict(self) -> dict[str, Any]:
        return {"embedding_dim": 16}


def small_model(vocab_size: int = 256, dropout: float = 0.1, aux: float = 0.0) -> Any:
    ids = keras.Input((None,), dtype="int32")
    hidden = keras.layers.Embedding(vocab_size, 16)(ids)
    hidden = keras.layers.Conv1D(16, 3, padding="causal", activation="gelu")(hidden)
    hidden = keras.layers.Dropout(dropout)(hidden)
    hidden = keras.layers.ActivityRegularization(l2=aux)(hidden)
    model = keras.Model(ids, keras.layers.Dense(vocab_size)(hidden))
    model.config = Sizes()
    return model


def trainer_of(model: Any = None, **options: Any) -> hn.Trainer:
    settings = {"learning_rate": 3e-3, "batch_size": 4, "max_seq_length": 32, **options}
    return hn.Trainer(small_model() if model is None else model, **settings)


def test_training_lowers_the_loss_and_sends_the_guides_events() -> None:
    trainer = trainer_of()
    assert trainer.add_curriculum_stage("foundation", datasets=["birds"], epochs=3) is trainer
    trainer.add_curriculum_stage("second", "birds", learning_rate=1e-3, batch_size=8)
    events_seen: list[dict[str, Any]] = []
    trainer.add_callback(events_seen.append)

    summary = trainer.train(epochs_per_stage=2)

    first, second = summary["stages_completed"]
    assert (first["name"], first["epochs"], second["name"], second["epochs"]) == ("foundation", 3, "second", 2)
    assert (first["steps"], summary["total_steps"]) == (3 * first["steps"] // 3, first["steps"] + second["steps"])
    assert second["steps"] < first["steps"], "a larger batch makes fewer steps"
    assert [entry["epoch"] for entry in summary["history"]] == [0, 1, 2, 0, 1]
    losses = [entry["loss"] for entry in summary["history"]]
    assert np.isfinite(losses).all()
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < np.log(256)
    assert first["final_loss"] == first["val_loss"] == losses[2]
    assert summary["final_loss"] == second["final_loss"] == second["best_loss"] == losses[-1]
    assert not first["early_stopped"]
    assert first["tokens_per_second"] > 0
    events = [event["event"] for event in events_seen]
    assert events == ["epoch_end"] * 3 + ["stage_complete"] + ["epoch_end"] * 2 + ["stage_complete"]
    assert events_seen[0]["stage"] == "foundation"
    assert events_seen[3]["metrics"]["final_loss"] == first["final_loss"]
    assert events_seen[3]["metrics"]["steps"] == first["steps"]


def first_losses(
    epochs: int = 1, model: Any = None, stage: dict[str, Any] | None = None, **options: Any
) -> list[float]:
    keras.utils.set_random_seed(5)
    trainer = trainer_of(small_model(dropout=0.0) if model is None else model(), **options)
    trainer.add_curriculum_stage("only", **{"datasets": "birds", **(stage or {})})
    history = trainer.train(epochs_per_stage=epochs)["history"]
    return [loss for entry in history for loss in (entry["train_loss"], entry["val_loss"])]


def test_every_option_changes_the_losses_and_the_same_options_do_not() -> None:
    plain = first_losses()
    assert first_losses() == plain

    for options in (
        {"learning_rate": 1e-3},
        {"batch_size": 2},
        {"warmup_steps": 8},
        {"gradient_clip": 0.01},
        {"max_grad_norm": 0.01},
        {"weight_decay": 0.5},
        {"seed": 3},
        {"validation_split": 0.3},
    ):
        assert first_losses(**options) != plain, options


def test_accumulated_batches_equal_one_large_batch() -> None:
    large = first_losses(batch_size=8)
    parts = first_losses(batch_size=2, gradient_accumulation_steps=4)

    assert parts == pytest.approx(large, rel=1e-5)


def test_losses_added_by_a_model_change_the_training_and_are_not_reported() -> None:
    light = first_losses(model=lambda: small_model(dropout=0.0, aux=1e-9))
    heavy = first_losses(model=lambda: small_model(dropout=0.0, aux=3.0))

    assert heavy[0] != pytest.approx(light[0], rel=1e-6)
    assert max(heavy) < 6.0, "an added loss of this weight would be seen in the sum"


def test_a_stage_has_its_own_settings_and_weight() -> None:
    own = {"learning_rate": 1e-3, "max_seq_length": 16}
    assert first_losses(stage=own) == first_losses(**own)

    half = trainer_of()
    half.add_curriculum_stage("half", "birds", weight=0.5).add_curriculum_stage("whole", "birds")
    half_steps, whole_steps = (stage["steps"] for stage in half.train(epochs_per_stage=1)["stages_completed"])
    assert half_steps == round(whole_steps / 2)


def test_tokens_per_epoch_shortens_an_epoch() -> None:
    trainer = trainer_of(tokens_per_epoch=32 * 4 * 3).add_curriculum_stage("only", "birds")

    assert trainer.train(epochs_per_stage=2)["total_steps"] == 6


def test_mixed_datasets_are_drawn_in_their_shares() -> None:
    hn.register_dataset("fish", [f"the fish number {number} swam up the river.\n" for number in range(40)])
    trainer = trainer_of().add_curriculum_stage("mixed", [("birds", 0.7), ("fish", 0.3)], epochs=1)

    assert np.isfinite(trainer.train()["final_loss"])


def test_early_stopping_ends_a_stage() -> None:
    trainer = trainer_of(early_stopping_patience=2, early_stopping_min_delta=100.0)

    summary = trainer.add_curriculum_stage("only", "birds").train(epochs_per_stage=9)

    assert summary["stages_completed"][0]["early_stopped"]
    assert summary["stages_completed"][0]["epochs"] == 3


class Stops(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(logs["loss"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        assert set(logs) == {"loss", "val_loss"}
        self.model.stop_training = epoch == 1


def test_keras_callback_gets_losses_and_stops_the_training() -> None:
    callback = Stops()
    trainer = trainer_of().add_curriculum_stage("only", "birds").add_callback(callback)

    summary = trainer.train(epochs_per_stage=5)

    assert len(summary["history"]) == 2
    assert len(callback.seen) == summary["total_steps"]


class StopsInABatch(keras.callbacks.Callback):
    batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1
        self.model.stop_training = self.batches == 2


def test_training_that_is_stopped_in_a_batch_ends_there_as_in_fit() -> None:
    callback = StopsInABatch()
    trainer = trainer_of().add_curriculum_stage("only", "birds").add_callback(callback)

    summary = trainer.train(epochs_per_stage=5)

    assert callback.batches == summary["total_steps"] == 2
    assert len(summary["history"]) == 1


@pytest.mark.parametrize(
    "callback", [keras.callbacks.ReduceLROnPlateau(), keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)]
)
def test_callback_that_sets_the_learning_rate_is_refused(callback: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{type(callback).__name__}.* the learning rate is the schedule's"):
        trainer_of().add_callback(callback)


def test_terminal_gets_a_bar_with_both_losses_and_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=150)
    monkeypatch.setattr("highnoon.lm.training.trainer.Console", lambda **options: terminal)

    summary = trainer_of().add_curriculum_stage("only", "birds").train(epochs_per_stage=2)

    steps, val_loss = summary["total_steps"], summary["final_loss"]
    assert "only 1" in shown.getvalue()
    assert f"{steps}/{steps}" in shown.getvalue()
    assert f"val_loss={val_loss:.4f}" in shown.getvalue()
    assert shown.getvalue().rindex("\x1b[?25h") > shown.getvalue().rindex("\x1b[?25l"), "the cursor is shown again"


def test_loss_of_each_step_is_read_only_for_callbacks_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[float] = []
    sums = TrainState.sums

    def counted(self: TrainState) -> tuple[float, float]:
        reads.append(1)
        return sums(self)

    monkeypatch.setattr(TrainState, "sums", counted)
    trainer = trainer_of().add_curriculum_stage("only", "birds").add_callback(keras.callbacks.History())
    trainer.add_callback(lambda event: None)

    steps = trainer.train(epochs_per_stage=1)["total_steps"]

    assert len(reads) <= 2 < steps, "after the compiling step, and at the end of the epoch"
    assert not any(hasattr(callback, "loop") for callback in trainer._callbacks), "the loop holds all the text"


@pytest.mark.parametrize("error", [TrialPruned("no"), ZeroDivisionError("mine")])
def test_exception_of_a_callback_ends_the_training(error: Exception) -> None:
    def callback(event: dict[str, Any]) -> None:
        raise error

    trainer = trainer_of().add_curriculum_stage("only", "birds").add_callback(callback)

    with pytest.raises(type(error)) as raised:
        trainer.train(epochs_per_stage=1)
    assert raised.value is error


class Study:
    """A channel that prunes after `until` reports."""

    def __init__(self, until: int) -> None:
        self.reports: list[tuple[int, float]] = []
        self._until = until
        self.saved = Path()

    def checkpoint_saved(self) -> None:
        """Nothing takes it away in these tests."""

    def report(self, value: float, step: int) -> None:
        self.reports.append((step, value))

    def should_prune(self) -> bool:
        return len(self.reports) >= self._until

    def save_artifact(self, path: Path, name: object = None) -> None:
        """In place of the one before."""
        shutil.copy(path, self.saved / str(name or path.name))


def test_trainer_reports_each_epoch_and_raises_trial_pruned(tmp_path: Path) -> None:
    study = Study(until=3)
    study.saved = tmp_path
    trainer = trainer_of(report_to="hpo", save_best=True)
    trainer.add_curriculum_stage("a", "birds", epochs=2).add_curriculum_stage("b", "birds", epochs=2)
    losses: list[float] = []
    trainer.add_callback(lambda event: losses.append(event["loss"]) if event["event"] == "epoch_end" else None)

    with bound(study), pytest.raises(TrialPruned, match="not promising at epoch 2"):
        trainer.train()

    assert study.reports == list(enumerate(losses))
    assert keras.saving.load_model(tmp_path / "model.keras").count_params() == trainer.model.count_params()
    with pytest.raises(InvalidInput, match="save_best: keeps the model with a trial, and report_to names none"):
        trainer_of(save_best=True)
    with pytest.raises(NoTrialRunning):
        trainer.train()


def test_a_whole_dict_of_best_parameters_is_accepted() -> None:
    best = {"learning_rate": 1e-3, "batch_size": 4, "embedding_dim": 16, "num_blocks": 4, "num_experts": 8}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = hn.Trainer(small_model(), **best)

    assert {key: trainer.hyperparameters[key] for key in best} == best
    assert (trainer.options.learning_rate, trainer.options.batch_size) == (1e-3, 4)


def test_warns_of_differences_from_the_model_and_of_unknown_keys() -> None:
    with pytest.warns(UserWarning, match=r"not built with embedding_dim=512 \(the model has 16\)"):
        trainer_of(embedding_dim=512)
    with pytest.warns(UserWarning, match=r"Trainer keeps flavour in trainer\.hyperparameters and does not use it"):
        assert trainer_of(flavour="sweet").hyperparameters["flavour"] == "sweet"


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(InvalidInput) as raised:
        trainer_of(learning_rate=-1.0, batch_size=2.5, learning_rte=1e-3, gradient_clip=1.0, max_grad_norm=2.0)

    message = str(raised.value)
    for part in (
        "learning_rate: must be above 0 (got -1.0)",
        "batch_size: must be a whole number (got 2.5)",
        "learning_rte: is not known. Did you mean learning_rate?",
        "max_grad_norm: differs from gradient_clip",
    ):
        assert part in message

    trainer = trainer_of().add_curriculum_stage("only", "birds")
    with pytest.raises(InvalidInput) as raised:
        trainer.add_curriculum_stage("only", [("birds", 0)], epochs=0, weight=-1, learning_rte=2, batch_size=0)
    message = str(raised.value)
    for part in ("name: is the name", "datasets[0]: must be", "epochs: ", "weight: ", "learning_rate?", "batch_size: "):
        assert part in message
    with pytest.raises(InvalidInput, match="report_to: must be 'hpo' or None"):
        trainer_of(report_to="hop")
    with pytest.raises(InvalidInput, match="log_interval: must be at least 1"):
        trainer.train(log_interval=0)


def test_data_that_cannot_be_trained_on_is_refused_before_training() -> None:
    with pytest.raises(InvalidInput, match="vocab_size: is 100 in the model, and the tokenizer has 256 ids"):
        trainer_of(small_model(vocab_size=100)).add_curriculum_stage("only", "birds").train()
    with pytest.raises(InvalidInput, match=r"birds: has \d+ tokens to train on, less than one sequence of 10000"):
        trainer_of(max_seq_length=10_000).add_curriculum_stage("only", "birds").train()
    with pytest.raises(InvalidInput, match=r"batch_size: a step takes 5000 sequences .* an epoch has \d+ of 32 tokens"):
        trainer_of(batch_size=5000).add_curriculum_stage("only", "birds").train()
    with pytest.raises(UserInputError, match=r"no dataset 'brids'\. Did you mean birds\?"):
        trainer_of().add_curriculum_stage("only", "brids").train()
    hn.register_dataset("one", ["alone"])
    with pytest.raises(UserInputError, match="dataset 'one': it takes two different documents"):
        trainer_of().add_curriculum_stage("only", "one").train()


def test_held_out_text_of_one_token_is_refused_before_training() -> None:
    hn.register_dataset("letters", ["x", "A" * 5000, "B" * 5000])

    with pytest.raises(InvalidInput, match=r"validation_split: fewer than two tokens are held out, .*\(got 0\.1\)"):
        trainer_of().add_curriculum_stage("a", "letters").train(epochs_per_stage=1)

    more = trainer_of(validation_split=0.6).add_curriculum_stage("a", "letters").train(epochs_per_stage=1)
    assert more["final_loss"] > 0


def test_warns_of_a_warm_up_longer_than_the_plan() -> None:
    trainer = trainer_of(warmup_steps=5000).add_curriculum_stage("only", "birds", epochs=1)

    with pytest.warns(UserWarning, match=r"warmup_steps is 5000, and the training has only \d+ steps") as said:
        trainer.train()
    assert len(said) == 1


def test_trainer_without_a_stage_warns_of_the_built_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")

    with pytest.warns(UserWarning, match="training on the built-in text 'python-docs'") as said:
        summary = trainer_of(max_seq_length=2048).train(epochs_per_stage=1)
    assert len(said) == 1
    assert summary["total_steps"] <= 16


def test_divergence_is_reported_with_its_first_step() -> None:
    trainer = trainer_of(learning_rate=1e30, warmup_steps=0, gradient_clip=None)
    trainer.add_curriculum_stage("only", "birds")

    with pytest.raises(TrainingDiverged, match=r"from step \d+ on \(stage 'only', epoch 0, learning rate") as raised:
        trainer.train(log_interval=1000)
    assert 1 <= raised.value.step <= 5


def test_nan_weight_is_reported_with_the_step_that_used_it() -> None:
    class Poison(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 3:
                self.model.trainable_variables[0].assign(np.full((256, 16), np.nan))

    trainer = trainer_of().add_curriculum_stage("only", "birds").add_callback(Poison())

    with pytest.raises(TrainingDiverged) as raised:
        trainer.train()
    assert raised.value.step == 4


def test_weight_decay_excludes_norms_biases_and_embeddings() -> None:
    layer = keras.layers.LayerNormalization()
    layer.build((None, 4))
    model = small_model()
    a_log = keras.Variable(np.ones((4, 4)), name="A_log")
    kernels = [variable for variable in model.trainable_variables if decays(variable)]

    assert {variable.name for variable in kernels} == {"kernel"}
    assert len(kernels) == 2
    assert not any(decays(variable) for variable in (*layer.trainable_variables, a_log))


def test_the_steps_are_compiled_once_for_each_shape() -> None:
    trainer = trainer_of().add_curriculum_stage("a", "birds").add_curriculum_stage("b", "birds", batch_size=8)

    trainer.train(epochs_per_stage=2)

    assert trainer._train_state is not None
    assert len(trainer._train_state.train_step.traced) == 2
    assert len(trainer._train_state.validation_step.traced) == 2


def test_a_stage_makes_its_datasets_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()
    for name in ("training_batches", "validation_batches"):
        original = getattr(loop, name)

        def counted(*args: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            made[_name] += 1
            return _original(*args, **options)

        monkeypatch.setattr(loop, name, counted)

    trainer_of().add_curriculum_stage("a", "birds").add_curriculum_stage("b", "birds").train(epochs_per_stage=3)

    assert made == {"training_batches": 2, "validation_batches": 2}


def test_the_fused_step_of_the_optimizer_is_keras_own() -> None:
    def trained(apply: Any) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        model = small_model()
        weights = model.trainable_variables
        optimizer = make_optimizer(model, TrainingOptions(weight_decay=0.3, adam_beta2=0.97))
        for step in range(4):
            optimizer.learning_rate.assign(0.01 / (step + 1))
            apply(optimizer, [tf.sin(weight.value * 50.0 + step) for weight in weights], weights)
        return [variable.numpy() for variable in (*weights, *optimizer.variables)]

    ours, keras_own = trained(apply_adamw), trained(lambda optimizer, *given: optimizer.apply(*given))

    for one, other in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"kernel_constraint": "non_neg"}, {"dtype": "float64"}])
def test_weights_with_a_constraint_or_a_type_of_their_own_are_updated_as_keras_does(options: dict[str, Any]) -> None:
    layer = keras.layers.Dense(3, use_bias=False, kernel_initializer="ones", **options)
    layer.build((None, 2))
    optimizer = make_optimizer(layer, TrainingOptions(learning_rate=2.0))

    apply_adamw(optimizer, [tf.ones((2, 3))], layer.trainable_variables)

    (weights,) = layer.get_weights()
    assert (weights == 0.0).all() if "kernel_constraint" in options else (weights < 0.0).all()


def test_trains_with_a_trained_tokenizer() -> None:
    tokenizer = hn.QWTTextTokenizer(vocab_size=280)
    tokenizer.train_on(SENTENCES)

    trainer = trainer_of(small_model(vocab_size=280), tokenizer=tokenizer).add_curriculum_stage(
        "only", "birds", epochs=1
    )

    assert np.isfinite(trainer.train()["final_loss"])


def test_mixed_precision_leaves_weights_and_losses_in_float32() -> None:
    model = small_model()
    trainer = trainer_of(model, mixed_precision=True).add_curriculum_stage("only", "birds", epochs=1)

    summary = trainer.train()

    assert model.layers[-1].compute_dtype == "bfloat16"
    assert {str(variable.dtype) for variable in model.trainable_variables} == {"float32"}
    assert summary["final_loss"] < np.log(256)


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    trainer_of().add_curriculum_stage("only", "birds", epochs=1).train()
    trainer_of().add_curriculum_stage("only", "birds", epochs=1).train(
        save_checkpoints=False, checkpoint_dir=tmp_path / "none"
    )

    assert list(tmp_path.iterdir()) == []


def test_epochs_of_the_trainer_go_before_those_of_the_call_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="epochs_per_stage=5 is not used: the trainer has epochs=1"):
        summary = trainer_of(epochs=1).add_curriculum_stage("a", "birds").train(epochs_per_stage=5)
    assert len(summary["history"]) == 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer_of(epochs=1).add_curriculum_stage("a", "birds").train()
        trainer_of(epochs=3).add_curriculum_stage("a", "birds", epochs=1).train(epochs_per_stage=5)
