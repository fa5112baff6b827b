"""The guide's code blocks, found by their heading and run word for word.

`hpo-guide.md` beside this file is the customer's text and is never edited. What a block leaves undefined
(`train_and_evaluate`, an address of a database) is given to it by the test that runs it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).with_name("hpo-guide.md")

_HEADING_OR_BLOCK = re.compile(
    r"^#+ (?P<heading>.+?)$|^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


def blocks(heading: str, language: str = "python") -> list[str]:
    """All blocks in that language right below the heading, in order. Raises LookupError without any."""
    found, current = [], ""
    for match in _HEADING_OR_BLOCK.finditer(GUIDE.read_text(encoding="utf-8")):
        if match["heading"] is not None:
            current = match["heading"]
        elif current == heading and match["language"] == language:
            found.append(match["code"])
    if not found:
        raise LookupError(f"the guide has no {language} block below {heading!r}")
    return found


def run(code: str, **given: Any) -> dict[str, Any]:
    """Executes a block with the names it is given; returns all names that it has afterwards."""
    names = dict(given)
    exec(compile(code, str(GUIDE), "exec"), names)
    return names
