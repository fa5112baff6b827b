"""What commands have in common."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest
import typer

from highnoon.coordinator.cli.command_io import leaving
from highnoon.coordinator.cli.main import main as coordinator
from highnoon.shared.runtime.terminal import Exit, open_console
from highnoon.webui.__main__ import main as webui
from highnoon.workers.cli import main as workers


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (coordinator, "start study.toml --workers 0", "--workers: must be at least 1 (got '0')."),
        (coordinator, "start study.toml --workers two", "--workers: must be a whole number (got 'two')."),
        (coordinator, "trials digits -n -1", "--limit: must be at least 1 (got '-1')."),
        (coordinator, "logs digits first", "TRIAL: must be a whole number (got 'first')."),
        (coordinator, "retry digits 3 x", "TRIAL: must be a whole number (got 'x')."),
        (coordinator, "audit -n 99999999999999999999", "--limit: must be at most"),
        (workers, "start --slots 0", "--slots: must be at least 1 (got '0')."),
        (webui, "--port 99999", "--port: must be at most 65,535 (got '99999')."),
    ],
)
def test_a_wrong_value_is_described_as_in_a_study_file(
    main: Callable[[], None],
    words: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == Exit.USER_INPUT
    assert capsys.readouterr().err.startswith(f"error: command line:\n  {message}")


def test_only_within_a_wait_sigterm_is_a_farewell(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as left, leaving("study digits", open_console(stderr=True)):
        os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.exit_code == Exit.INTERRUPTED and "left; study digits goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
