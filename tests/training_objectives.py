"""Objectives that train a small model with the Trainer, in one file as a user would write it."""

from __future__ import annotations

import os
import signal
from typing import Any

import highnoon as hn

SENTENCES = [f"{number} birds sat on the roof, and {number + 1} flew away.\n" for number in range(30)]
SHAPE = {"vocab_size": 256, "embedding_dim": 16, "num_heads": 2, "num_reasoning_blocks": 1, "num_moe_experts": 2}


def trains(params: dict[str, Any]) -> float:
    """One epoch of a small model."""
    hn.register_dataset("birds", SENTENCES)
    trainer = hn.Trainer(hn.create_model(hn.ModelConfig(**SHAPE)), 0.001, 4, 32, report_to="hpo", jit_compile=False)
    return float(trainer.add_curriculum_stage("only", "birds", epochs=1).train()["final_loss"])


def is_killed_once(params: dict[str, Any]) -> float:
    """Three epochs; the first attempt is killed in its last, the next goes on with what that one has saved."""
    hn.register_dataset("birds", SENTENCES)
    model = hn.create_model(hn.ModelConfig(**SHAPE))
    trainer = hn.Trainer(model, params["rate"], 4, 32, report_to="hpo", jit_compile=False)
    saved: list[int] = []

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint_saved":
            saved.append(event["step"])
        if event["event"] == "epoch_end":
            print(f"attempt {os.environ['HIGHNOON_ATTEMPT']} has trained epoch {event['epoch']}", flush=True)
            if len(saved) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    trainer.add_callback(watch).add_curriculum_stage("only", "birds", epochs=3)
    return float(trainer.train()["final_loss"])
