"""The cluster that Python hands studies to: by argument, by the settings, or the data folder of a running `start`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from highnoon.shared.domain.errors import InvalidInput, ServiceUnavailable
from highnoon.shared.runtime.data_dir import attach
from highnoon.shared.runtime.settings import Settings, load_settings
from highnoon.shared.store.access import Access, opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where studies run: a database, or the data folder (`settings.home`) of a `start` on this machine."""

    settings: Settings

    @property
    def is_embedded(self) -> bool:
        """True for what `start` runs on this machine without addresses."""
        return self.settings.database_url is None

    @property
    def url(self) -> str:
        """The database's address now. Raises ServiceUnavailable when no `start` runs."""
        if self.settings.database_url is not None:
            return self.settings.database_url
        running = attach(self.settings.home)
        if running is None:
            raise ServiceUnavailable(
                f"no coordinator runs in {self.settings.home}; python -m coordinator start runs one. "
                "For a cluster set HIGHNOON_DATABASE_URL, or give its address"
            )
        return running.database_url

    @contextmanager
    def opened(self) -> Iterator[Access]:
        """Connections for a moment. Raises ServiceUnavailable, SchemaMismatch."""
        with opened(self.url) as access:
            access.database.check_schema()
            yield access


def found_cluster(cluster: str | Path | None) -> Cluster:
    """The cluster by argument (an address or a data folder), else by the settings. Raises InvalidInput."""
    if cluster is None:
        return Cluster(settings=load_settings())
    if isinstance(cluster, str) and "://" in cluster:
        return Cluster(settings=load_settings(database_url=cluster))
    if isinstance(cluster, str | Path) and Path(cluster).expanduser().is_dir():
        settings = load_settings(home=Path(cluster))
        return Cluster(settings=settings.model_copy(update={"database_url": None}))
    message = "must be the address of its database, or the data folder of a running start"
    if isinstance(cluster, str | Path):
        message = f"there is no folder {Path(cluster).expanduser().absolute()}"
    hint = (
        'Write an address such as "postgresql://user:password@host/db", or the folder .highnoon in the directory '
        "where python -m coordinator start was started."
    )
    raise InvalidInput.of("cluster", "cluster", message, value=cluster, hint=hint)
