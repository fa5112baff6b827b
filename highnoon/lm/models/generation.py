"""Sampling: a prompt of ids, continued token by token.

Each step runs the model over everything so far; there is no cache of states. Lengths are padded on the right to a
few sizes, so that the model is traced once for each: it is causal, so what stands behind a token cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from highnoon.shared.domain.errors import InvalidInput, Problem

_BUCKET = 64


def generate(
    model: Any,
    prompt: Sequence[int] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int | None,
) -> list[Any]:
    """The ids of the prompt and of what follows. Raises InvalidInput with all problems."""
    ids, problems = _read_prompt(prompt, model.vocab_size)
    problems += _option_problems(max_new_tokens, temperature, top_k)
    if problems:
        raise InvalidInput("generate", problems)
    random = np.random.default_rng(seed)
    for _ in range(max_new_tokens):
        chosen = [_sampled(logits, temperature, top_k, random) for logits in _next_logits(model, ids)]
        ids = np.concatenate([ids, np.array(chosen, ids.dtype)[:, None]], axis=1)
    rows: list[Any] = ids.tolist()
    return rows if np.ndim(prompt) > 1 else rows[0]


def _next_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    """The logits behind the last id of each row, from as many ids as fit into the model."""
    seen = ids[:, -model.max_seq_length :]
    length = seen.shape[1]
    size = min(-(-length // _BUCKET) * _BUCKET, model.max_seq_length)
    padded = np.pad(seen, [(0, 0), (0, size - length)])
    logits: np.ndarray = model.logits_at(tf.constant(padded), tf.constant(length - 1)).numpy()
    return logits


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


def _option_problems(max_new_tokens: int, temperature: float, top_k: int | None) -> list[Problem]:
    problems = []
    if max_new_tokens < 0:
        problems.append(Problem(key="max_new_tokens", message="must be at least 0", value=max_new_tokens))
    if not 0 <= temperature < float("inf"):
        problems.append(Problem(key="temperature", message="must be 0 or above", value=temperature))
    if top_k is not None and top_k < 1:
        problems.append(Problem(key="top_k", message="must be at least 1, or None for all", value=top_k))
    return problems
