"""`python -m coordinator ...` inside the tests' process, where its imports have been paid for, and in a terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from highnoon.coordinator.cli.main import main


@dataclass(frozen=True)
class Answer:
    """What one command said, and its exit code."""

    code: int
    out: str
    err: str


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """`call("list", "--json", HIGHNOON_HOME=...)`: the whole way of a command, but for the start of a process."""

    def call(*arguments: str, **environ: str) -> Answer:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return Answer(_code_of(arguments), *capsys.readouterr())

    return call


def answer_to(*arguments: str) -> Answer:
    """The same without either fixture, with the present environment and folder."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = _code_of(arguments)
    return Answer(code, out.getvalue(), err.getvalue())


def _code_of(arguments: tuple[str, ...]) -> int:
    imported = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["coordinator", *arguments])
        patch.setattr(sys, "path", [*sys.path])
        main()
    # A person's code, which a command has imported, is gone with the process of a command.
    for name in set(sys.modules) - imported:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(tempfile.gettempdir()):
            del sys.modules[name]
    return int(ended.value.code or 0)


class Terminal:
    """A command in a terminal of its own, 80 columns wide: what it shows, as it shows it."""

    def __init__(self, *arguments: str, folder: Path, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coordinator", *arguments],
            env={**os.environ, "COLUMNS": "80", "LINES": "30", **environ},
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def read_until(self, text: str) -> None:
        """Reads on until this was shown since the last call. Raises AssertionError when the command ends before."""
        seen = ""
        while text not in seen:
            chunk = self._read()
            assert chunk, f"{text!r} was never shown, but {self.shown}"
            seen += chunk

    def read_to_the_end(self) -> int:
        """Everything else; the exit code."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(timeout=120)

    def _read(self) -> str:
        try:
            chunk = os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # Linux: the other end is closed
            return ""
        self.shown += chunk
        return chunk


def plain(shown: str) -> str:
    """Without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")
