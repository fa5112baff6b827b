"""The HSMN language model: embedding, reasoning blocks, norm, head; and sampling from it. Strictly causal.

Owns the order of the parts and the model's public methods. Changing token t never changes a logit before t.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from highnoon.config import AtLeast0, Count, ModelConfig, Natural, Section, checked
from highnoon.lm.models.experts import MixtureOfExperts
from highnoon.lm.models.mixers import AttentionMixer, MambaMixer, WaveletMixer, projection
from highnoon.shared.domain.errors import InvalidInput, Problem

_EMBEDDING_STDDEV = 0.02
_LENGTH_STEP = 64
"""Sampling pads to multiples of it, so that the model is traced once for each of a few lengths."""

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

        Temperature 0 takes the most probable token each time. Each step runs the model over everything so far; no
        states are cached. Raises InvalidInput with all problems.
        """
        ids, problems = _read_prompt(prompt, self.vocab_size)
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k}
        problems += checked(_Sampling, options)[1]
        if problems:
            raise InvalidInput("generate", problems)
        random = np.random.default_rng(seed)
        for _ in range(max_new_tokens):
            chosen = [_sampled(logits, temperature, top_k, random) for logits in self._next_logits(ids)]
            ids = np.concatenate([ids, np.array(chosen, ids.dtype)[:, None]], axis=1)
        rows: list[Any] = ids.tolist()
        return rows if np.ndim(prompt) > 1 else rows[0]

    def _next_logits(self, ids: np.ndarray) -> np.ndarray:
        """The logits after the last id of each row, from as many ids as fit into the model.

        The padding is on the right, where a causal model does not read it.
        """
        recent = ids[:, -self.max_seq_length :]
        length = recent.shape[1]
        size = min(-(-length // _LENGTH_STEP) * _LENGTH_STEP, self.max_seq_length)
        padded = np.pad(recent, [(0, 0), (0, size - length)])
        logits: np.ndarray = self.logits_at(tf.constant(padded), tf.constant(length - 1)).numpy()
        return logits

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
            raise InvalidInput.of(self.name, "ids", message, hint="Raise it, or cut the sequence.")


class _Sampling(Section):
    max_new_tokens: Natural
    temperature: AtLeast0
    top_k: Count | None


def _sampled(logits: np.ndarray, temperature: float, top_k: int | None, random: np.random.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / temperature
    if top_k is not None and top_k < scaled.size:
        scaled[np.argsort(-scaled, kind="stable")[top_k:]] = -np.inf
    weights = np.exp(scaled - scaled.max())
    return int(random.choice(scaled.size, p=weights / weights.sum()))


def _read_prompt(prompt: Any, vocab_size: int) -> tuple[np.ndarray, list[Problem]]:
    try:
        ids = np.atleast_2d(np.asarray(prompt))
    except ValueError:  # rows of several lengths
        return np.zeros((1, 1), np.int32), [_prompt_problem("rows must have one length", "Call generate for each.")]
    if ids.size == 0 or ids.ndim > 2 or not np.issubdtype(ids.dtype, np.integer):
        return ids, [_prompt_problem("must be one or more token ids, not text", "Encode it with the tokenizer.")]
    if ids.min() < 0 or ids.max() >= vocab_size:
        return ids, [_prompt_problem(f"holds an id outside 0 to {vocab_size - 1}, the model's vocabulary", "")]
    return ids.astype(np.int32), []


def _prompt_problem(message: str, hint: str) -> Problem:
    return Problem(key="prompt", message=message, hint=hint)
