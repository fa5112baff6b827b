"""A command of our command lines, which describes wrong values as every other mistake is described."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from highnoon.shared.domain.errors import InvalidInput


class Command(TyperCommand):
    """Raises InvalidInput for a value of a wrong type or out of range. All else is typer's, with its usage."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            # Only now: the import takes long.
            from pydantic import ValidationError

            from highnoon.shared.domain.validation import problem_of

            wrong, param = error.__cause__, error.param
            if param is None or not isinstance(wrong, ValidationError):
                raise
            key = max(param.opts, key=len) if param.param_type_name == "option" else param.metavar or ""
            problems = [problem_of(dict(detail), (key,), "") for detail in wrong.errors(include_url=False)]
            raise InvalidInput("command line", problems) from None
