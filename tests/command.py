"""`python -m coordinator ...` inside the tests' process, where its imports have been paid for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from coordinator.__main__ import main


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
        monkeypatch.setattr(sys, "argv", ["coordinator", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Answer(int(ended.value.code or 0), *capsys.readouterr())

    return call
