"""bfloat16 arithmetic where the device has it; weights, losses and the optimizer stay float32.

bfloat16 has the range of float32, so that no loss needs scaling, as float16 would.
"""

from __future__ import annotations

from typing import Any

_FIRST_WITH_BFLOAT16 = (8, 0)
"""The compute capability of the first NVIDIA devices that multiply bfloat16 in hardware."""


def apply_precision(model: Any, wanted: bool | None) -> None:
    """Switches the model's layers to mixed bfloat16 when wanted, or by itself when the device gains from it.

    A layer that was given a policy of its own, other than plain float32, keeps it.
    """
    import keras

    if not (device_has_bfloat16() if wanted is None else wanted):
        return
    policy = keras.DTypePolicy("mixed_bfloat16")
    for layer in model._flatten_layers():
        if layer.dtype_policy.name == "float32":
            layer.dtype_policy = policy


def device_has_bfloat16() -> bool:
    """True when every GPU multiplies bfloat16 in hardware; False without one."""
    import tensorflow as tf

    devices = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return bool(devices) and all(
        (details.get("compute_capability") or (0, 0)) >= _FIRST_WITH_BFLOAT16 for details in devices
    )
