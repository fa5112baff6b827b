"""The HSMN language model: embedding, reasoning blocks, norm, head. Strictly causal.

Owns the order of the parts and the model's public methods. Changing token t never changes a logit before t.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from highnoon.config import ModelConfig
from highnoon.lm.models.experts import MixtureOfExperts
from highnoon.lm.models.generation import generate
from highnoon.lm.models.mixers import AttentionMixer, MambaMixer, WaveletMixer, projection
from highnoon.shared.domain.errors import InvalidInput, Problem

_EMBEDDING_STDDEV = 0.02
_NORM_EPSILON = 1e-6
_MIXERS: dict[str, Any] = {"mamba": MambaMixer, "attention": AttentionMixer, "wavelet": WaveletMixer}


class ReasoningBlock(keras.layers.Layer):
    """A mixer, then a mixture of experts, each normalised before, with dropout after, and added to its input."""

    def __init__(self, config: ModelConfig, mixer: str, name: str, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._mixer_norm = keras.layers.LayerNormalization(epsilon=_NORM_EPSILON, name="mixer_norm", dtype=dtype)
        self._mixer = _MIXERS[mixer](config, dtype=dtype)
        self._experts_norm = keras.layers.LayerNormalization(epsilon=_NORM_EPSILON, name="experts_norm", dtype=dtype)
        self._experts = MixtureOfExperts(config, dtype=dtype)
        self._dropout = keras.layers.Dropout(config.dropout_rate, name="dropout", dtype=dtype)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Creates the weights of all parts."""
        for part in (self._mixer_norm, self._mixer, self._experts_norm, self._experts, self._dropout):
            part.build(shape)

    def call(self, tokens: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        """`[batch, seq, embedding_dim]` to the same."""
        tokens += self._dropout(self._mixer(self._mixer_norm(tokens)), training=training)
        return tokens + self._dropout(self._experts(self._experts_norm(tokens), training=training), training=training)


@keras.saving.register_keras_serializable(package="highnoon")
class HSMN(keras.Model):
    """`model(ids, training=False)` gives logits `[batch, seq, vocab_size]` in float32."""

    def __init__(self, config: ModelConfig, name: str = "hsmn", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.supports_jit = False  # see MixtureOfExperts
        self.config = config
        policy = self.dtype_policy
        start = keras.initializers.RandomNormal(stddev=_EMBEDDING_STDDEV)
        self._embedding = keras.layers.Embedding(
            config.vocab_size, config.embedding_dim, embeddings_initializer=start, name="embedding", dtype=policy
        )
        self._blocks = [
            ReasoningBlock(config, mixer, name=f"block_{number}_{mixer}", dtype=policy)
            for number, mixer in enumerate(config.mixers)
        ]
        self._norm = keras.layers.LayerNormalization(epsilon=_NORM_EPSILON, name="final_norm", dtype=policy)
        self._head = None
        if not config.tie_embeddings:
            self._head = projection(config.vocab_size, start, "head", policy)
        self.build((None, None))

    def build(self, ids_shape: tuple[int | None, ...]) -> None:
        """Creates all weights; the constructor calls it."""
        if getattr(self, "built", False):
            return
        tokens_shape = (*ids_shape, self.config.embedding_dim)
        self._embedding.build(ids_shape)
        for part in (*self._blocks, self._norm, *([self._head] if self._head else [])):
            part.build(tokens_shape)
        self.built = True

    def __call__(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Logits. Raises InvalidInput for more than max_seq_length tokens."""
        # Not in `call`: Keras re-raises what is raised there as another error.
        ids = tf.convert_to_tensor(ids) if isinstance(ids, list | tuple) else ids
        self._refuse_too_long(ids)
        return super().__call__(ids, *args, **kwargs)

    def call(self, ids: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        """`[batch, seq]` ids to `[batch, seq, vocab_size]` logits."""
        tokens = self._embedding(ids)
        for block in self._blocks:
            tokens = block(tokens, training=training)
        tokens = self._norm(tokens)
        if self._head is not None:
            logits = self._head(tokens)
        else:
            logits = tf.matmul(tokens, tf.cast(self._embedding.embeddings, tokens.dtype), transpose_b=True)
        return tf.cast(logits, tf.float32)

    def generate(
        self,
        prompt: Sequence[int] | Sequence[Sequence[int]],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> list[Any]:
        """The prompt's ids and `max_new_tokens` more; a list of prompts of one length gives a list of lists.

        Temperature 0 takes the most probable token each time. Raises InvalidInput.
        """
        return generate(self, prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, seed=seed)

    @cached_property
    def logits_at(self) -> Any:
        """Compiled: the logits at one position of each row, `[batch, vocab_size]`, from ids and that position."""

        def at(ids: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
            return self(ids, training=False)[:, position]

        return tf.function(at, autograph=False, reduce_retracing=True)

    @property
    def vocab_size(self) -> int:
        """How many different ids it reads and writes."""
        return self.config.vocab_size

    @property
    def embedding_dim(self) -> int:
        """The width of the residual stream."""
        return self.config.embedding_dim

    @property
    def num_blocks(self) -> int:
        """How many reasoning blocks."""
        return self.config.num_reasoning_blocks

    @property
    def max_seq_length(self) -> int:
        """The longest sequence it accepts."""
        return self.config.max_seq_length

    def get_config(self) -> dict[str, Any]:
        """For Keras: what `from_config` needs."""
        policy = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"config": self.config.to_dict(), "name": self.name, "dtype": policy}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> HSMN:
        """For Keras: a model of this shape with fresh weights."""
        policy = keras.saving.deserialize_keras_object(config["dtype"])
        return cls(ModelConfig.from_dict(config["config"]), name=config["name"], dtype=policy)

    def _refuse_too_long(self, ids: Any) -> None:
        length = ids.shape[-1]
        if length is not None and length > self.max_seq_length:
            message = f"holds {length} tokens in a row, max_seq_length is {self.max_seq_length}"
            raise InvalidInput(self.name, [Problem(key="ids", message=message, hint="Raise it, or cut the sequence.")])
