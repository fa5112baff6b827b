"""The command reproduce: a trial once more, on this machine, and what is another thing than it was."""

from __future__ import annotations

import json as json_format
import subprocess
from typing import Any

import typer

from highnoon.coordinator.cli.command_io import (
    AsJson,
    StudyName,
    TrialNumber,
    environment_with,
    ledger,
    print_json,
)
from highnoon.shared.runtime.terminal import Exit


def reproduce(study: StudyName, trial: TrialNumber, json: AsJson = False) -> None:
    """Run an ended trial again on this machine, and compare.

    The same parameters, seed and code, in a process of its own; nothing is recorded. Exit code 1 when the result is
    another one.

    Example: python -m coordinator reproduce digits 3
    """
    from highnoon.shared.runtime.processes import module_command

    with ledger() as access:
        command = module_command("highnoon.workers", "reproduce", study, str(trial))
        environ = environment_with(access.url)
        done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)
    found = json_format.loads(done.stdout)
    found["is_same"] = is_same(found)
    if json:
        print_json(found)
    else:
        typer.echo("\n".join(_lines(found)))
    if not found["is_same"]:
        raise typer.Exit(Exit.NO_RESULT)


def is_same(found: dict[str, Any]) -> bool:
    """Whether values and ending are the same as before, to the last bit."""
    before, now = found["before"], found["now"]
    return bool(before["ending"] == now["ending"] and before["values"] == now["values"])


def _lines(found: dict[str, Any]) -> list[str]:
    before, now, differs = found["before"], found["now"], found["differs"]
    lines = []
    for when, one in (("before", before), ("now", now)):
        value, loss = ", ".join(map(str, one["values"])) or "-", "-" if one["loss"] is None else one["loss"]
        lines.append(f"{when:7} {one['ending']}  value {value}  loss {loss}")
    pairs = list(zip(before["values"], now["values"], strict=False))
    if found["is_same"]:
        lines.append("the same")
    elif before["ending"] != now["ending"]:
        lines.append("the ending differs")
    elif pairs and not any(isinstance(number, str) for pair in pairs for number in pair):
        lines.append(f"differs by {', '.join(f'{second - first:.3g}' for first, second in pairs)}")
    if found["other_report"] is not None:
        lines.append(f"reports differ from step {found['other_report']} on")
    if now["message"]:
        lines.append(now["message"])
    return [*lines, *(differs or ["nothing else differs: host, code, Python, packages, processor, GPUs, threads"])]
