"""Which window is trained on when: a pure function of seed, stage and epoch, so that any step can be found again.

Drawing as many windows as there are, without shares, is seeing every window once. With shares a small dataset may be
seen more than once, in fresh orders.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]


def epoch_order(counts: Sequence[int], shares: Sequence[float] | None, draws: int, seed: Sequence[int]) -> Order:
    """Pairs of dataset and window as `[draws, 2]`; without shares each dataset is drawn from by its size."""
    random = np.random.default_rng(list(seed))
    portions = np.array(counts if shares is None else shares, float)
    chosen = [
        np.stack([np.full(quota, number), _cycled(count, quota, random)], axis=1)
        for number, (count, quota) in enumerate(zip(counts, _quotas(portions, draws), strict=True))
    ]
    return random.permutation(np.concatenate(chosen))


def _quotas(portions: npt.NDArray[np.float64], total: int) -> list[int]:
    """Whole numbers in these proportions that add up to the total: the largest remainders are rounded up."""
    exact = portions / portions.sum() * total
    quotas = np.floor(exact).astype(int)
    quotas[np.argsort(quotas - exact, kind="stable")[: total - quotas.sum()]] += 1
    return [int(quota) for quota in quotas]


def _cycled(count: int, quota: int, random: np.random.Generator) -> Order:
    rounds = [random.permutation(count) for _ in range(-(-quota // count))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])[:quota].astype(np.int64)
