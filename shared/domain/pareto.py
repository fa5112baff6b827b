"""The Pareto front of loss and size: every model that no other beats in both. Pure, and free of any lambda."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One completed trial: what it reached, and with how many parameters."""

    number: int
    loss: float
    params: int


def pareto_front(candidates: Iterable[Candidate], *, maximize: bool = False) -> list[Candidate]:
    """Those that none beats in both, smallest first. Of equals the first trial stands for all."""
    sign = -1.0 if maximize else 1.0
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.params, sign * one.loss, one.number)):
        if not front or sign * candidate.loss < sign * front[-1].loss:
            front.append(candidate)
    return front
