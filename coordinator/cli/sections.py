"""How `--help` lists the commands: by what they are for, in the order in which a person meets them."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Sections(TyperGroup):
    """A group whose commands stand below the headings that `rich_help_panel` gives them."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        width = max(map(len, shown))
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in shown.items():
            summary = command.get_short_help_str(formatter.width - width - 6)
            sections.setdefault(str(getattr(command, "rich_help_panel", "Commands")), []).append(
                (name.ljust(width), summary)
            )
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """As it is written: examples lose their sense when they are filled like a paragraph."""
        formatter.write_paragraph()
        for line in (self.epilog or "").splitlines():
            formatter.write(f"{line}\n")
