"""docs/cli.md agrees with the code: every command and exit code."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from highnoon.coordinator.cli.analyse import KINDS
from highnoon.coordinator.cli.main import PROGRAM, app
from highnoon.shared.runtime.terminal import Exit

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def rows_of(section: str) -> list[list[str]]:
    """The body of the section's table, cells without their backticks."""
    body = TEXT.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in body.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def test_every_exit_code_is_documented() -> None:
    assert {(int(code), name) for code, name, _ in rows_of("Exit codes")} == {(code.value, code.name) for code in Exit}


def test_every_command_is_documented_with_an_example_that_its_parser_accepts() -> None:
    commands = {name: command for name, command in get_command(app).commands.items() if not command.hidden}  # type: ignore[attr-defined]
    documented = {name: example for name, _, example in rows_of("Commands")}
    assert set(documented) == set(commands)
    for name, example in documented.items():
        words = re.fullmatch(rf"python -m coordinator {name}(.*)", example)
        assert words, f"{example} is no example of {name}"
        commands[name].make_context(name, words[1].split())


def test_every_kind_of_plot_is_documented() -> None:
    listed = TEXT.split("\nThe kinds are ", 1)[1].split(": the figures", 1)[0]
    listed = re.sub(r" \(.*?\)\)?", "", listed.replace("\n", " "))
    assert re.fullmatch(r"(`\w+`, )+`\w+`( \([^`]*)? and `\w+`", listed), listed
    assert set(re.findall(r"`(\w+)`", listed)) == set(KINDS)


def test_completion_is_for_the_program_that_the_script_names() -> None:
    section = TEXT.split("### Completion\n", 1)[1].split("\n## ", 1)[0]
    assert f"$ {PROGRAM} --install-completion" in section and f"{PROGRAM}-" not in section
