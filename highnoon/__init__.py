"""HighNoon HPO, as a scientist imports it: `import highnoon as hn`.

Only the names are here. What stands behind one is imported when it is first used, so that an objective file
that imports this package costs a trial process next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from shared.errors import nearest

if TYPE_CHECKING:
    from highnoon import callbacks as callbacks
    from highnoon.manager import HPOTrialManager as HPOTrialManager
    from highnoon.memory import EnterpriseMemoryManager as EnterpriseMemoryManager
    from highnoon.running import report as report
    from highnoon.running import report_params as report_params
    from highnoon.running import should_prune as should_prune
    from highnoon.spaces import hsmn_search_space as hsmn_search_space
    from shared.errors import TrialPruned as TrialPruned

    __version__: str

__all__ = [
    "EnterpriseMemoryManager",
    "HPOTrialManager",
    "TrialPruned",
    "__version__",
    "callbacks",
    "hsmn_search_space",
    "report",
    "report_params",
    "should_prune",
]

_HOMES = {
    "EnterpriseMemoryManager": "highnoon.memory",
    "HPOTrialManager": "highnoon.manager",
    "TrialPruned": "shared.errors",
    "hsmn_search_space": "highnoon.spaces",
    "report": "highnoon.running",
    "report_params": "highnoon.running",
    "should_prune": "highnoon.running",
}

_MODULES = {"callbacks"}
"""Reached as `hn.callbacks`, and imported then: it needs Keras."""


def __getattr__(name: str) -> object:
    """The public name, from its module. Raises AttributeError with the nearest name there is."""
    if name == "__version__":
        from importlib.metadata import version

        found: object = version("highnoon-hpo")
    elif name in _MODULES:
        found = importlib.import_module(f"highnoon.{name}")
    elif name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        hint = "" if name.startswith("_") else f". {nearest(name, [*_HOMES, *_MODULES])}"
        raise AttributeError(f"module 'highnoon' has no attribute {name!r}{hint}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
