"""Where the weights start: variance one over the inputs, less for what is added to the residual stream."""

from __future__ import annotations

from typing import Any

import keras

from highnoon.config import ModelConfig


def fan_in(inputs: int) -> Any:
    """Keeps the variance of `inputs` independent inputs."""
    return keras.initializers.RandomNormal(stddev=inputs**-0.5)


def residual(inputs: int, config: ModelConfig) -> Any:
    """For the last matrix of a branch: all branches together add about as much variance as the embedding has."""
    branches = 2 * config.num_reasoning_blocks
    return keras.initializers.RandomNormal(stddev=(inputs * branches) ** -0.5)
