"""What commands have in common."""

from __future__ import annotations

import os
import signal

import pytest
import typer

from highnoon.coordinator.cli.command_io import leaving
from highnoon.shared.runtime.terminal import Exit, open_console


def test_only_within_a_wait_sigterm_is_a_farewell(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as left, leaving("study digits", open_console(stderr=True)):
        os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.exit_code == Exit.INTERRUPTED and "left; study digits goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
