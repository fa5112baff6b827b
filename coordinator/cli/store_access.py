"""The ledger as commands use it: opened for one command, by the settings of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from highnoon.shared.domain.errors import HighNoonError

if TYPE_CHECKING:
    from highnoon.shared.store.access import Access


@contextmanager
def ledger() -> Iterator[Access]:
    """Raises UnknownStudy when nothing was ever run here, ServiceUnavailable when the database is away."""
    from highnoon.coordinator.cli.access import ledger_access
    from highnoon.shared.runtime.settings import load_settings

    with ledger_access(load_settings()) as access:
        yield access


def study_names(incomplete: str) -> list[str]:
    """For the shell's completion: studies whose name begins so. Starts no database, and no error leaves."""
    from highnoon.coordinator.cli.access import is_served
    from highnoon.shared.runtime.settings import load_settings

    with suppress(HighNoonError):
        if is_served(load_settings()):
            with ledger() as access:
                return [record.name for record in access.studies.all() if record.name.startswith(incomplete)]
    return []
