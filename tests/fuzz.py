"""Hostile input: JSON of all kinds, and documents in which parts are cut, repeated or replaced.

A test of it takes a second or two; FUZZ_EXAMPLES=5000 makes it a long run of other examples.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

bounded = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    # The first finding is worth more than the smallest one: shrinking takes minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

_NASTY_TEXT = st.sampled_from(
    ["", "\0", "\ud800", "../..", "/etc/passwd", "nan", "-1", "1e999", "9" * 5000, "<b>", "'; --", "\u202e", "a" * 3000]
)
_NASTY_NUMBERS = st.sampled_from(
    [0, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, float("inf"), float("nan"), 5e-324]
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | _NASTY_TEXT | _NASTY_NUMBERS
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | _NASTY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def damaged_bytes(document: bytes) -> st.SearchStrategy[bytes]:
    """The document with a few parts cut out, written twice, or replaced by other bytes."""
    places = st.integers(0, len(document))
    part = st.tuples(places, places, st.binary(max_size=12) | st.sampled_from([b"\n", b'"', b"[" * 3000, b"{", b"\0"]))

    def edited(parts: list[tuple[int, int, bytes]]) -> bytes:
        changed = document
        for one, other, new in parts:
            begin, end = sorted((one, other))
            changed = changed[:begin] + new + changed[min(end, begin + 40) if len(new) % 2 else begin :]
        return changed

    return st.lists(part, min_size=1, max_size=4).map(edited)


@st.composite
def damaged_table(draw: st.DrawFn, table: dict[str, Any]) -> dict[str, Any]:
    """The table with some of its values, at any depth, replaced, taken out or added."""
    changed: dict[str, Any] = {**table}
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(changed) or ["name"]) | st.text(max_size=8))
        match draw(st.integers(0, 3)):
            case 0:
                changed.pop(key, None)
            case 1 if isinstance(changed.get(key), dict):
                changed[key] = draw(damaged_table(changed[key]))
            case 2 if isinstance(changed.get(key), list):
                place = draw(st.integers(0, len(changed[key])))
                changed[key] = [*changed[key][:place], draw(json_values), *changed[key][place + 1 :]]
            case _:
                changed[key] = draw(json_values)
    return changed
