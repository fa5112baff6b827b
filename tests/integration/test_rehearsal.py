"""A rehearsal of a script that trains: it runs through, and leaves what a real run has written as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import highnoon as hn
from highnoon.lm.data import sources
from highnoon.shared.domain.errors import UserInputError
from tests.integration.test_trainer import SENTENCES

SHAPE: dict[str, Any] = {"embedding_dim": 128, "num_blocks": 1, "num_experts": 2, "block_pattern": "transformer"}


@pytest.fixture(autouse=True)
def _birds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sources, "_registered", {"birds": tuple(SENTENCES)})
    keras.utils.set_random_seed(1)
    yield
    keras.backend.clear_session()


def new_model(vocab_size: int = 256) -> Any:
    return hn.create_model("small", vocab_size=vocab_size, max_seq_length=32, **SHAPE)


def new_trainer() -> hn.Trainer:
    return hn.Trainer(new_model(), batch_size=4).add_curriculum_stage("a", "birds", epochs=1)


@pytest.fixture
def trained(tmp_path: Path) -> hn.Trainer:
    """What a real run has trained and saved."""
    trainer = new_trainer()
    trainer.train(checkpoint_dir=tmp_path / "best")
    trainer.save(tmp_path / "mine")
    return trainer


def same_model(path: Path, trainer: hn.Trainer) -> bool:
    ids = np.arange(8)[None]
    return np.array_equal(hn.Trainer.load(path, new_model()).model(ids), trainer.model(ids))


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_rehearsal_replaces_no_model(trained: hn.Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in (tmp_path / "best").iterdir())
    with monkeypatch.context() as patch:
        patch.setenv("HIGHNOON_REHEARSAL", "1")
        for _ in range(2):  # the second one keeps none of the first apart
            small = new_trainer()
            small.train(checkpoint_dir=tmp_path / "best")
            small.save(tmp_path / "mine")
        loaded = [
            hn.Trainer.load(path, new_model())
            for path in (tmp_path / "best", tmp_path / "best" / "latest", tmp_path / "mine")
        ]

    assert [one.model.count_params() for one in loaded] == [small.model.count_params()] * 3
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == sorted([*before, "rehearsal"])
    assert "earlier-1" not in [path.name for path in (tmp_path / "best" / "rehearsal").iterdir()]
    assert same_model(tmp_path / "best", trained)
    assert same_model(tmp_path / "mine", trained)
    trained.save(tmp_path / "mine")
    assert not (tmp_path / "mine" / "rehearsal").exists(), "it is saved whole, in place of everything that was there"


def test_a_rehearsal_begins_at_the_first_step(
    trained: hn.Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")

    resumed = new_trainer().train(checkpoint_dir=tmp_path / "best", resume_from="latest")
    named = new_trainer().train(resume_from=tmp_path / "best")
    loaded = hn.Trainer.load(tmp_path / "mine", new_model(), batch_size=2)

    assert len(resumed["history"]) == len(named["history"]) == len(loaded.train()["history"]) == 1
    with pytest.raises(UserInputError, match="there is no checkpoint in"):
        new_trainer().train(resume_from=tmp_path / "nowhere")


def test_a_rehearsal_takes_a_tokenizer_of_many_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGHNOON_REHEARSAL", "1")
    tokenizer = hn.QWTTextTokenizer(vocab_size=600)
    tokenizer.train_on(" ".join(f"word{number} token{number * 7}" for number in range(400)) for _ in range(3))
    assert tokenizer.vocab_size > 512

    trainer = hn.Trainer(new_model(vocab_size=600), batch_size=4, tokenizer=tokenizer)

    assert trainer.add_curriculum_stage("a", "birds", epochs=1).train()["total_steps"] > 0
