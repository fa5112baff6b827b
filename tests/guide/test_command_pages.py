"""docs/cli.md shows what its commands say, and README shows commands that there are.

Each `console` block of the page runs, in the page's order, on made-up studies that are the same every time; its text is
compared line by line, with times taken out. After a change on purpose, WRITE_DOCS=1 writes the page again.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from highnoon.coordinator.cli.main import app
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.terminal import Exit
from highnoon.shared.store.access import opened
from highnoon.shared.store.nodes import Nodes
from tests.command import Answer, Terminal, caller, plain
from tests.conftest import empty_database
from tests.made_up import make_study

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BOARD = re.compile(r"^digits ━.*?Ctrl-C leaves", re.MULTILINE | re.DOTALL)
_BOARD_BLOCK = re.compile(r"^```text\n(digits.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (?:\.venv/bin/)?python -m coordinator (.*?)(?:\s+#.*)?$", re.MULTILINE)
_TIME = re.compile(r"\b\d+:\d\d(?::\d\d)?\b|\b\d+\.\d s\b")
_RUNS_SOMETHING = {"start", "submit", "init-deploy"}
"""What these do is tested where it belongs: test_start, test_lifecycle, test_examples, test_init_deploy."""

_MADE_BY_READERS = {"first", "quickstart"}
"""Studies that a reader makes on the page."""

Call = Callable[..., Answer]


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    """The studies that the page is about. What changes them comes last."""
    with empty_database(stack) as url:
        make_study(url, "digits", n_trials=60, done=50, running=3)
        make_study(url, "digits-wide", n_trials=40, sampler="random")
        with opened(url) as access:
            Nodes(access.database).lead("a coordinator", ttl_s=3600.0)
        yield url


@pytest.fixture
def call(
    url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """A terminal of 80 columns without colours, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    here = {"HIGHNOON_DATABASE_URL": url, "HIGHNOON_REDIS_URL": redis_url, "HIGHNOON_PRESENCE_S": "600"}
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "80", "NO_COLOR": "1"}
    for name, value in {**here, **terminal, "HIGHNOON_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return caller(monkeypatch, capsys)


def shown(call: Call, command: str) -> str:
    answer = call(*shlex.split(command))
    assert answer.code in (Exit.OK, Exit.USER_INPUT), answer.err
    lines = plain(answer.out + answer.err).rstrip().splitlines()
    return "\n".join([f"$ python -m coordinator {command}", *(line.rstrip() for line in lines)])


def ran(call: Call, block: str) -> str:
    """A block with what its commands say now."""
    return "\n\n".join(shown(call, command) for command in _COMMAND.findall(block))


def settled(text: str) -> list[list[str]]:
    """Words, so that a longer time may move a column."""
    return [_TIME.sub("TIME", line).split() for line in text.strip().splitlines()]


def test_page_shows_what_the_user_reads(call: Call, tmp_path: Path) -> None:
    terminal = Terminal("watch", "digits", folder=tmp_path, HIGHNOON_PRESENCE_S="600")
    terminal.read_until("Ctrl-C leaves")
    terminal.process.send_signal(signal.SIGINT)
    terminal.read_to_the_end()
    board = "\n".join(line.rstrip() for line in _BOARD.findall(plain(terminal.shown))[0].splitlines())
    (block,) = _BOARD_BLOCK.findall(PAGE.read_text())
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(PAGE.read_text().replace(f"```text\n{block}", f"```text\n{board}\n"))
    else:
        assert settled(block) == settled(board)


def test_every_command_of_another_page_is_one(call: Call) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    pages = [path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if path != PAGE]
    commands_found = [shlex.split(words) for path in pages for words in _COMMAND.findall(path.read_text())]
    assert len(commands_found) >= 5
    for words in commands_found:
        if words[0] in _RUNS_SOMETHING:
            commands[words[0]].make_context(words[0], words[1:])
        else:
            known = ["digits" if word in _MADE_BY_READERS else word for word in words]
            assert call(*known).code == Exit.OK, words


def test_the_page_shows_what_its_commands_say(call: Call) -> None:
    text = PAGE.read_text()
    blocks = {block: ran(call, block) for block in _BLOCK.findall(text)}
    assert len(blocks) >= 5
    if os.environ.get("WRITE_DOCS"):
        for before, after in blocks.items():
            text = text.replace(f"```console\n{before}```", f"```console\n{after}\n```")
        PAGE.write_text(text)
        return
    for before, after in blocks.items():
        assert settled(before) == settled(after)
        assert max(map(len, after.splitlines())) <= 80
