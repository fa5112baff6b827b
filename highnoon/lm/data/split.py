"""Holds documents out for validation, and removes their paragraphs from the training text.

Documents are chosen by a digest of seed and text, so that neither their order nor their number in another dataset
moves them. Texts often repeat one another: a paragraph of a held-out document is cut out of every training document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from highnoon.shared.domain.errors import UserInputError

_SHORTEST_LEAK = 40
"""A shorter repeated paragraph, in characters, is not a leak but a heading or a common phrase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Two sides of one dataset that share no document."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def split_documents(documents: Sequence[str], *, share: float, seed: int) -> Split:
    """Holds out about `share` of the text, at least one document. Raises UserInputError for a single document."""
    distinct = sorted(set(documents), key=lambda document: _rank(seed, document))
    if len(distinct) < 2:
        raise UserInputError(
            "it takes two different documents, one to train on and one to validate on, and there is only one"
        )
    target = share * sum(map(len, distinct))
    held_out: set[str] = set()
    size = 0
    for document in distinct[:-1]:
        if size + len(document) <= target:
            held_out.add(document)
            size += len(document)
    held_out = held_out or {min(distinct, key=len)}
    return Split(
        training=tuple(document for document in documents if document not in held_out),
        held_out=tuple(document for document in distinct if document in held_out),
    )


def without_leaks(training: Iterable[str], held_out: Iterable[str]) -> list[str]:
    """The training documents without any paragraph that a held-out document has, white space aside."""
    known = {digest for document in held_out for _, digest in _long_paragraphs(document)}
    cleaned = []
    for document in training:
        kept = document.split("\n\n")
        if leaked := {paragraph for paragraph, digest in _long_paragraphs(document) if digest in known}:
            kept = [paragraph for paragraph in kept if paragraph not in leaked]
        if text := "\n\n".join(kept):
            cleaned.append(text)
    return cleaned


def _long_paragraphs(document: str) -> Iterable[tuple[str, bytes]]:
    for paragraph in document.split("\n\n"):
        words = " ".join(paragraph.split())
        if len(words) >= _SHORTEST_LEAK:
            yield paragraph, blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _rank(seed: int, document: str) -> bytes:
    return blake2b(document.encode("utf-8", "surrogatepass"), digest_size=16, key=str(seed).encode()).digest()
