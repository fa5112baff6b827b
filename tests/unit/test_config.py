"""The configuration: the guide's fields under either spelling, and every mistake named at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from highnoon.config import Config, ModelConfig, TrainingConfig
from highnoon.lm.models.creation import overridden
from highnoon.lm.models.presets import PRESETS, preset
from highnoon.lm.models.size import active_parameters, count_parameters, estimate_memory
from highnoon.shared.domain.errors import InvalidInput

ROOT = Path(__file__).parents[2]


def keys_of(refused: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [problem.key for problem in refused.value.problems]


def test_defaults_match_the_documentation() -> None:
    config = Config()

    assert config.model.to_dict() == {
        "vocab_size": 60_000,
        "embedding_dim": 512,
        "num_reasoning_blocks": 6,
        "max_seq_length": 4096,
        "num_moe_experts": 8,
        "top_k_experts": 2,
        "aux_loss_weight": 0.01,
        "mamba_d_state": 16,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "num_heads": 8,
        "dropout_rate": 0.1,
        "block_pattern": "mamba_timecrystal_wlam_moe_hybrid",
        "tie_embeddings": True,
    }
    assert config.training.to_dict() == {
        "learning_rate": 1e-4,
        "batch_size": 8,
        "epochs": 100,
        "warmup_steps": 1000,
        "gradient_clip": 1.0,
        "weight_decay": 0.01,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
    }


def test_second_spellings_mean_the_same() -> None:
    model = ModelConfig(num_blocks=3, num_experts=4)  # type: ignore[call-arg]
    training = TrainingConfig(max_grad_norm=0.5)  # type: ignore[call-arg]

    assert model == ModelConfig(num_reasoning_blocks=3, num_moe_experts=4)
    assert (model.num_blocks, model.num_experts) == (3, 4)
    assert (training.gradient_clip, training.max_grad_norm) == (0.5, 0.5)


def test_both_spellings_must_agree() -> None:
    assert ModelConfig.from_dict({"num_blocks": 3, "num_reasoning_blocks": 3}).num_blocks == 3

    with pytest.raises(InvalidInput) as refused:
        ModelConfig.from_dict({"num_blocks": 3, "num_reasoning_blocks": 4})

    assert keys_of(refused) == ["num_blocks"]
    assert "num_reasoning_blocks" in str(refused.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        ModelConfig.from_dict(
            {"embedding_dim": 100, "top_k_experts": 9, "vocab_size": "5", "dropout_rate": 1.0, "mamba_d_conv": 0}
            | {"num_block": 3}
        )

    assert sorted(keys_of(refused)) == sorted(
        ["num_heads", "top_k_experts", "vocab_size", "dropout_rate", "mamba_d_conv", "num_block"]
    )
    text = str(refused.value)
    assert "does not divide embedding_dim 100 (got 8). Take 5 heads, or embedding_dim 96 or 104." in text
    assert "top_k_experts: is more than num_moe_experts 8 (got 9). Take at most 8." in text
    assert "dropout_rate: must be below 1 (got 1.0)." in text
    assert "Did you mean num_blocks?" in text


def test_problems_of_both_parts_are_reported_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        Config(model={"embedding_dim": 3.5}, training={"learning_rate": 0}, traning={})  # type: ignore[arg-type, call-arg]

    assert keys_of(refused) == ["model.embedding_dim", "training.learning_rate", "traning"]


def test_part_that_is_not_a_table_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"model: is not a table \(got 3\)\. Write ModelConfig"):
        Config(model=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_heads", True),
        ("embedding_dim", 512.0),
        ("aux_loss_weight", float("nan")),
        ("aux_loss_weight", -0.1),
        ("vocab_size", 0),
        ("max_seq_length", None),
        ("block_pattern", "moe_only"),
        ("block_pattern", "transfomer"),
    ],
)
def test_impossible_configuration_is_refused(key: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        ModelConfig.from_dict({key: value})

    assert keys_of(refused) == [key]


def test_numpy_numbers_are_accepted() -> None:
    config = ModelConfig.from_dict({"embedding_dim": np.int64(64), "dropout_rate": np.float32(0.5)})

    assert (type(config.embedding_dim), type(config.dropout_rate)) == (int, float)


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Config().model.num_heads = 4


def test_flat_parameters_are_split_into_model_and_training() -> None:
    config = Config.from_dict({"num_blocks": 3, "learning_rate": 1e-3, "max_grad_norm": 2.0})

    assert config.model.num_reasoning_blocks == 3
    assert (config.training.learning_rate, config.training.gradient_clip) == (1e-3, 2.0)
    with pytest.raises(InvalidInput, match="Did you mean learning_rate"):
        Config.from_dict({"num_blocks": 3, "learning_rat": 1e-3})


def test_saved_configuration_loads_unchanged(tmp_path: Path) -> None:
    config = Config(model=ModelConfig(num_reasoning_blocks=3), training=TrainingConfig(gradient_clip=None))

    config.save(tmp_path / "new" / "config.json")

    assert Config.load(tmp_path / "new" / "config.json") == config
    assert Config.from_dict(config.to_dict()) == config
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]


def test_mistakes_in_a_file_are_reported_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[model]\nembedding_dim = 0\n")

    with pytest.raises(InvalidInput) as refused:
        Config.load(path)

    assert refused.value.source == str(path)
    assert keys_of(refused) == ["model.embedding_dim"]


def test_overrides_win_under_either_spelling() -> None:
    config = overridden(ModelConfig(num_reasoning_blocks=3), {"num_blocks": 5, "embedding_dim": 64})

    assert (config.num_reasoning_blocks, config.embedding_dim) == (5, 64)


def test_presets_match_the_documentation() -> None:
    shapes = {
        name: (c.embedding_dim, c.num_reasoning_blocks, c.num_moe_experts, c.vocab_size) for name, c in PRESETS.items()
    }

    assert shapes == {
        "small": (512, 4, 4, 32_000),
        "base": (768, 6, 8, 32_000),
        "3b": (2048, 12, 8, 50_000),
        "7b": (3072, 16, 12, 50_000),
        "13b": (4096, 20, 12, 60_000),
        "20b": (4096, 24, 12, 60_000),
    }
    assert preset("highnoon-small") == preset("small")
    with pytest.raises(InvalidInput, match="Did you mean base"):
        preset("highnoon-bsae")


def test_active_parameters_count_only_the_chosen_experts() -> None:
    config = ModelConfig(num_moe_experts=8, top_k_experts=2)
    everything = overridden(config, {"top_k_experts": 8})

    assert active_parameters(config) < count_parameters(config)
    assert active_parameters(everything) == count_parameters(everything) == count_parameters(config)


def test_size_is_counted_of_what_create_model_takes() -> None:
    shape = PRESETS["small"]
    for count in (count_parameters, active_parameters, lambda config: estimate_memory(config, 4, 128)):
        sizes = {count(given) for given in ("small", "highnoon-small", shape, Config(model=shape), shape.to_dict())}
        assert sizes == {count(shape)}
        with pytest.raises(InvalidInput, match="is not a known preset"):
            count("smal")
        with pytest.raises(InvalidInput, match=r"is not a model configuration \(got 7\)"):
            count(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(("batch_size", "seq_len"), [(0, 128), (4, -3), ("4", 128), (4, None), (2.5, True)])
def test_memory_is_forecast_of_whole_batches_only(batch_size: Any, seq_len: Any) -> None:
    with pytest.raises(InvalidInput, match=r"estimate_memory\(\):\n  (batch_size|seq_len): must be"):
        estimate_memory("small", batch_size, seq_len)


def test_configuration_imports_no_tensorflow() -> None:
    code = (
        "import sys; import highnoon.config, highnoon.lm;"
        "import highnoon.lm.models.creation, highnoon.lm.models.size;"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert said.stdout.strip() == "[]"


def test_documentation_lists_every_field_and_the_real_sizes() -> None:
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")

    assert [name for name in ModelConfig.model_fields if f"`{name}`" not in page] == []
    for name, config in PRESETS.items():
        assert f"| {name} | {count_parameters(config):,} | {active_parameters(config):,} |" in page
