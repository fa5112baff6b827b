"""Whether the package behind a logger is installed, asked without importing it."""

from __future__ import annotations

from importlib.util import find_spec

from highnoon.shared.domain.errors import UserInputError


def require(module: str, *, extra: str) -> None:
    """Raises UserInputError with the command that installs what is missing."""
    spec = find_spec(module)
    # A folder of that name where the program was started passes for a package without code: wandb leaves one.
    if spec is None or spec.origin is None:
        raise UserInputError(f"{module} is not installed. Install it with: pip install 'highnoon-hpo[{extra}]'")
