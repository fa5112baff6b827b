"""MemoryGuardCallback in a real `fit`: it stops one that presses, and leaves one that does not alone."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import highnoon as hn
from highnoon.memory import StopCooldown
from highnoon.shared.domain.errors import TrialCancelled, TrialPruned, TrialStopped
from highnoon.shared.domain.states import Ending
from highnoon.shared.memory.poller import MemorySample, Scope
from highnoon.shared.objective.attempt import run_attempt
from tests.integration.test_trainer import small_model

keras: Any = pytest.importorskip("keras")

GIB = 1 << 30


class Pressure:
    """A machine whose memory is at `usage(n)` at the n-th look, all of it this process'."""

    def __init__(self, usage: Callable[[int], float]) -> None:
        self.usage = usage
        self.looks = 0

    def __call__(self, is_close: bool) -> MemorySample:
        used = int(self.usage(self.looks) * 32 * GIB)
        self.looks += 1
        scope = Scope(name="host", limit_bytes=32 * GIB, used_bytes=used)
        return MemorySample(at_s=float(self.looks), scopes=(scope,), process_bytes=used, peak_bytes=used)


class Ticking:
    """A clock on which every step is long enough to be checked."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 10.0
        return self.now_s


class Silent:
    def report(self, value: float, step: int) -> None:
        pass

    def should_prune(self) -> bool:
        return False

    def progress(self) -> None:
        pass

    def report_params(self, total: int, active: int | None = None) -> None:
        pass


def manager_at(usage: Callable[[int], float], tmp_path: Path) -> hn.EnterpriseMemoryManager:
    return hn.EnterpriseMemoryManager(source=Pressure(usage), cooldown=StopCooldown(tmp_path / "turn"), clock=Ticking())


def fit(manager: hn.EnterpriseMemoryManager, *, steps: int = 40, epochs: int = 1) -> Any:
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.zeros((steps, 4), "float32"), np.zeros((steps, 1), "float32")
    guard = hn.callbacks.MemoryGuardCallback(manager)
    return model.fit(x, y, batch_size=1, epochs=epochs, verbose=0, callbacks=[guard])


def test_a_fit_under_pressure_becomes_a_stopped_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = manager_at(lambda look: 0.5 if look < 5 else 0.96, tmp_path)

    with caplog.at_level(logging.INFO):
        outcome = run_attempt(lambda params: fit(manager).history["loss"][-1], {}, Silent())

    assert (outcome.ending, outcome.cause, outcome.value) == (Ending.STOPPED, "memory_guard", None)
    assert outcome.message.startswith("memory_guard: sustained_high_memory_stable:96.0% (peak 31457MB, limit 32768MB)")
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("[Memory] ")]
    assert lines[0] == "[Memory] EnterpriseMemoryManager: total=32768MB, warning_threshold=31130MB (95%)"
    assert [line.partition(":")[0] for line in lines[1:11]] == [f"[Memory] WARNING ({n}/10)" for n in range(1, 11)]
    assert lines[1] == "[Memory] WARNING (1/10): System memory at 96.0% (process=31457MB), trend=stable"


def test_a_fit_without_pressure_is_left_alone(tmp_path: Path) -> None:
    manager = manager_at(lambda look: 0.5, tmp_path)

    assert len(fit(manager, steps=5, epochs=2).history["loss"]) == 2
    assert manager.peak_bytes == 16 * GIB


def test_garbage_is_collected_after_each_epoch(tmp_path: Path) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    gone = weakref.ref(Cycle())
    gc.disable()
    try:
        fit(manager_at(lambda look: 0.5, tmp_path), steps=1)
        assert gone() is None
    finally:
        gc.enable()


def test_keras_state_is_released_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[bool] = []
    monkeypatch.setattr(keras.backend, "clear_session", lambda *args: cleared.append(True))

    with pytest.raises(TrialStopped, match="memory_ceiling"):
        fit(manager_at(lambda look: 0.5 if look < 3 else 0.999, tmp_path))

    assert cleared == [True]


@pytest.mark.parametrize(
    ("error", "is_failure"),
    [
        (ValueError(), True),
        (TrialStopped("full"), True),
        (SystemExit(1), True),
        (TrialPruned(), False),
        (optuna.TrialPruned(), False),
        (TrialCancelled(), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_keras_state_is_released_after_failures_alone(error: BaseException, is_failure: bool, tmp_path: Path) -> None:
    with pytest.raises(type(error)), manager_at(lambda look: 0.5, tmp_path):
        first = keras.layers.Dense(1).name
        raise error

    assert (keras.layers.Dense(1).name == "dense") is is_failure, f"names of layers are counted on after {first}"


def test_release_keeps_the_dtype_policy_of_keras(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        manager_at(lambda look: 0.5, tmp_path).release()
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_after_a_stop_the_next_trial_of_the_process_trains(tmp_path: Path) -> None:
    with pytest.raises(TrialStopped):
        fit(manager_at(lambda look: 0.5 if look < 3 else 0.999, tmp_path))

    assert np.isfinite(fit(manager_at(lambda look: 0.5, tmp_path), steps=3).history["loss"]).all()


def test_settings_may_be_given_to_the_callback() -> None:
    guard = hn.callbacks.MemoryGuardCallback(memory_warning_pct=0.5, memory_grace_steps=3)

    assert (guard.manager.policy.warning_fraction, guard.manager.policy.grace_steps) == (0.5, 3)
    with pytest.raises(TypeError, match="memory_grace_steps"):
        hn.callbacks.MemoryGuardCallback(guard.manager, memory_grace_steps=3)


def test_a_trainer_is_guarded_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = manager_at(lambda look: 0.5 if look < 3 else 0.96, tmp_path)
    monkeypatch.setattr("highnoon.lm.training.trainer.EnterpriseMemoryManager", lambda **settings: manager)
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")
    hn.register_dataset("words", [f"The {number} birds flew over the river and away.\n" for number in range(400)])
    trainer = hn.Trainer(small_model(), batch_size=1)
    trainer.add_curriculum_stage("only", datasets=["words"], epochs=3)

    with pytest.raises(TrialStopped, match="memory_guard: sustained_high_memory"):
        trainer.train(save_checkpoints=False)


def test_a_manager_in_process_passes_its_memory_keys_to_its_trials() -> None:
    seen = []

    def objective(params: dict[str, Any]) -> float:
        manager = hn.EnterpriseMemoryManager()
        seen.append((manager.policy.warning_fraction, manager.policy.grace_steps, manager.prefetch_buffer_size))
        return 0.0

    hpo = hn.HPOTrialManager("keys", n_trials=1, memory_warning_pct=0.42, memory_grace_steps=7, prefetch_buffer_size=3)
    best = hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})
    assert seen == [(0.42, 7, 3)]
    assert set(best) == {"x"}, "settings are no parameters"
