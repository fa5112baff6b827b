"""Access to the ledger for commands: the cluster's database, or the embedded one of this home.

Owns the choice between the two, and whether one is there, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from highnoon.coordinator.cli.deployment_mode import is_embedded
from highnoon.coordinator.cli.report import near
from highnoon.coordinator.local.stack import serving_database
from highnoon.shared.domain.errors import ServiceUnavailable
from highnoon.shared.runtime.embedded import attach
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.access import Access, opened


def is_served(settings: Settings) -> bool:
    """True when the ledger can be read without starting a database for it. Connects to nobody."""
    return settings.database_url is not None or attach(settings.home) is not None


def why_nobody_coordinates(settings: Settings) -> str:
    """Empty when somebody may: only of the embedded stack is it known without asking."""
    if is_served(settings):
        return ""
    return f"no coordinator runs in {near(settings.home)} now; python -m coordinator start runs one"


@contextmanager
def ledger_access(settings: Settings) -> Iterator[Access]:
    """The ledger as it is now. Raises UnknownStudy when nothing was ever run here, ServiceUnavailable when away.

    Reading needs no Redis, so that the database's address alone is enough.
    """
    if settings.database_url is not None:
        with opened(settings.database_url) as access:
            access.database.check_schema()
            yield access
        return
    is_embedded(settings)  # refuses when only Redis is named: that person means another ledger than this home's
    with serving_database(settings.home) as url, opened(url) as access:
        try:
            access.database.check_schema()
        except ServiceUnavailable:  # a start that was ended too early has left it empty, or an older version
            access.create()
        yield access
