"""The one life cycle of an embedded service: start, url, stop; what differs is what a subclass answers.

A start waits until the service really answers, gets out of the way of an earlier owner's process, and tries again when
the port was taken in between. A second `start` of the same object revives a dead service at its old address.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

from typing_extensions import Self

from highnoon.coordinator.local.owned_process import Command, OwnedProcess, end_leftover, wait_until
from highnoon.shared.domain.errors import EmbeddedServiceError, InvariantBroken
from highnoon.shared.runtime.data_dir import Home, ServiceState
from highnoon.shared.runtime.logs import event

_PAUSES_S = (0.0, 0.2, 0.5, 1.0)
"""Before each try. PostgreSQL needs them when its postmaster was killed and a backend is still ending a statement."""

logger = logging.getLogger(__name__)


class Service(ABC):
    """A server of ours on loopback. The holder of the home's lock starts it, from its main thread."""

    name: ClassVar[str]
    patience_s: ClassVar[float]
    """How long a start may take while the process runs; recovery after a crash is included."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._process: OwnedProcess | None = None
        self._address: ServiceState | None = None

    @property
    def url(self) -> str:
        """Its address with the password. Raises InvariantBroken before the first start."""
        if self._address is None:
            raise InvariantBroken(f"{self.name} has no address before it is started")
        return self.url_at(self._address)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Returns when the service answers. Raises EmbeddedServiceError with the end of its log when it will not."""
        if self.is_alive:
            return
        began = time.monotonic()
        self._end_leftover()
        self._prepare()
        for tries, pause_s in enumerate(_PAUSES_S):
            time.sleep(pause_s)
            address = self._address or self.home.service(self.name)
            if tries:
                self._prepare_again()
            if self._runs(address):
                self._address = address
                event(logger, f"{self.name}_ready", port=address.port, seconds=time.monotonic() - began)
                return
        raise self._failure()

    def stop(self) -> None:
        """Ends it in order: what it accepted is on the disk afterwards. Harmless when it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @staticmethod
    @abstractmethod
    def url_at(address: ServiceState) -> str:
        """The address as its clients spell it, with the password."""

    @abstractmethod
    def _prepare(self) -> None:
        """Makes what the service needs on the disk. Raises EmbeddedServiceError when it cannot be made."""

    @abstractmethod
    def _command(self, address: ServiceState) -> Command:
        """How to run it at `address`."""

    @abstractmethod
    def _answers(self, address: ServiceState) -> bool:
        """True when it serves requests."""

    def _prepare_again(self) -> None:  # noqa: B027 - most services need nothing
        """What may help after a try that failed."""

    def _end_leftover(self) -> None:
        last = self.home.load().services.get(self.name)
        if last and last.process:
            end_leftover(last.process)

    def _runs(self, address: ServiceState) -> bool:
        """One try: True when it answers; False when it ended by itself. A process that hangs is ended, and raises."""
        command = self._command(address)
        try:
            process = self._process = OwnedProcess(command)
        except OSError as error:
            raise EmbeddedServiceError(f"cannot run {command.argv[0]} ({error.strerror})") from error
        self.home.remember(self.name, replace(address, process=process.identity()))
        if wait_until(lambda: self._answers(address) or not process.is_alive, self.patience_s):
            return process.is_alive
        failure = self._failure(f"does not answer within {self.patience_s:g} s")
        self.stop()
        raise failure

    def _failure(self, what: str | None = None) -> EmbeddedServiceError:
        assert self._process is not None
        what = what or f"ended by itself (exit status {self._process.exit_status})"
        return EmbeddedServiceError(f"{self.name} {what}. The end of its log:\n{self._process.last_lines()}")
