"""The environment of an attempt for people: its facts, and what differs between two. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from highnoon.shared.runtime.environment_record import packages_digest

_NAMES = {"python": "Python", "system": "system", "cpu": "processor"}
_MOST_PACKAGES = 20


def environment_facts(content: Mapping[str, Any]) -> dict[str, str]:
    """What a page shows of it."""
    facts = {label[:1].upper() + label[1:]: str(content.get(name) or "unknown") for name, label in _NAMES.items()}
    packages = content.get("packages") or {}
    gpus = ", ".join(map(str, content.get("gpus") or ())) or "none"
    return {**facts, "GPUs": gpus, "Packages": f"{len(packages)}, digest {packages_digest(content)}"}


def environment_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each thing that is another one now."""
    lines = [
        f"{label}: {before.get(name)}, now {now.get(name)}"
        for name, label in {**_NAMES, "gpus": "GPUs", "threads": "threads"}.items()
        if before.get(name) != now.get(name)
    ]
    packages = list(_package_lines(before.get("packages") or {}, now.get("packages") or {}))
    more = len(packages) - _MOST_PACKAGES
    return [*lines, *packages[:_MOST_PACKAGES], *([f"and {more} more packages"] if more > 0 else [])]


def _package_lines(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield f"{name}: {before.get(name, 'not installed')}, now {now.get(name, 'not installed')}"
