"""What people write beside a study or a trial: a note and tags. Values and their limits; no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from highnoon.shared.domain.errors import InvalidInput, Problem
from highnoon.shared.domain.scalars import is_storable

LONGEST_NOTE = 10_000
LONGEST_TAG = 40
MOST_TAGS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """`tags` in the order in which they were added; all empty where nothing was written."""

    text: str = ""
    tags: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.tags)

    @property
    def version(self) -> str:
        """Another one for other content: a change can be refused where the content is another one by now."""
        return hashlib.sha256(json.dumps([self.text, self.tags]).encode()).hexdigest()[:16] if self else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteChange:
    """What to change; None leaves text or tags as they are. Raises InvalidInput with every mistake.

    `tags` are to stand there instead of the present ones; `tag` are added, `untag` taken away.
    """

    text: str | None = None
    tag: tuple[str, ...] = ()
    untag: tuple[str, ...] = ()
    tags: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        problems = note_problems(self.text, (*self.tag, *(self.tags or ())))
        if self.text is None and self.tags is None and not self.tag and not self.untag:
            problems.append(Problem(key="note", message="or a tag is needed"))
        if problems:
            raise InvalidInput("note", problems)

    def of(self, before: Note) -> Note:
        """The note afterwards. Raises InvalidInput for too many tags."""
        kept = [tag for tag in before.tags if self.tags is None or tag in self.tags]
        added = (*(self.tags or ()), *self.tag)
        tags = tuple(tag for tag in dict.fromkeys((*kept, *added)) if tag not in self.untag)
        if len(tags) > MOST_TAGS:
            raise InvalidInput.of("note", "tag", f"would be {len(tags)}: at most {MOST_TAGS}")
        return Note(text=before.text if self.text is None else self.text, tags=tags)


def note_problems(text: object, tags: Iterable[object]) -> list[Problem]:
    """Every mistake in what a person would write beside it."""
    return [*_text_problems(text), *_tag_problems(tags)]


def _text_problems(text: object) -> Iterable[Problem]:
    if text is not None and (not isinstance(text, str) or len(text) > LONGEST_NOTE or not is_storable(text)):
        yield Problem(key="note", message=f"must be text of at most {LONGEST_NOTE:,} characters", value=text)


def _tag_problems(tags: Iterable[object]) -> Iterable[Problem]:
    for tag in tags:
        is_text = isinstance(tag, str) and tag == tag.strip() and tag.isprintable() and "," not in tag
        if not is_text or not 0 < len(str(tag)) <= LONGEST_TAG:
            message = f"must be 1 to {LONGEST_TAG} printable characters without a comma and surrounding blanks"
            yield Problem(key="tag", message=message, value=tag)


Notes: TypeAlias = Mapping[int | None, Note]
"""Of a study: by trial number, its own under None; only those that say something."""
