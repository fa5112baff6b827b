"""Which extra of the package brings a module that is not installed: for the message of an import that fails."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from highnoon.shared.domain.errors import MissingExtra

_EXTRA_OF = {
    "celery": "worker",
    "fastapi": "dashboard",
    "flower": "coordinator",
    "fsspec": "fsspec",
    "jinja2": "dashboard",
    "keras": "tensorflow",
    "kombu": "worker",
    "mlflow": "mlflow",
    "plotly": "coordinator",
    "prometheus_client": "worker",
    "pymysql": "mysql",
    "redis": "worker",
    "scipy": "scipy",
    "starlette": "dashboard",
    "tensorboard": "tensorboard",
    "tensorflow": "tensorflow",
    "tokenizers": "tensorflow",
    "torch": "gp",
    "typer": "coordinator",
    "uvicorn": "dashboard",
    "wandb": "wandb",
}
"""One that brings it; a caller with a role of its own names that."""


@contextmanager
def missing_extra_named(what: str, role: str = "") -> Iterator[None]:
    """Raises MissingExtra in place of an import of ours that fails because an extra is not installed.

    `what` needs it, and `role` is the extra of the program that runs. All other errors pass.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRA_OF:
            raise
        extra = _EXTRA_OF[module] if module in ("keras", "pymysql", "tensorflow", "tokenizers") else role
        raise MissingExtra(
            f'{what} needs {module}, which is not installed: pip install "highnoon-hpo[{extra or _EXTRA_OF[module]}]"',
            name=module,
        ) from error


def require(needs: Mapping[str, Iterable[str]]) -> None:
    """Raises MissingExtra for the first module that something needs and that is not installed. Imports nothing."""
    for what, modules in needs.items():
        for module in modules:
            spec = importlib.util.find_spec(module)
            # A folder of that name where the program was started passes for a package without code: wandb leaves one.
            if spec is None or spec.origin is None:
                remedy = f'pip install "highnoon-hpo[{_EXTRA_OF[module]}]"'
                raise MissingExtra(f"{what} needs {module}, which is not installed: {remedy}", name=module)


def run_command(module: str, role: str) -> None:
    """Runs the `main` of a command line. Where the extra of its role is not installed, ends with a message for people.

    By name, so that an entry point depends on nothing that it need not import.
    """
    try:
        with missing_extra_named("this command", role):
            main = importlib.import_module(module).main
    except MissingExtra as error:
        sys.exit(f"error: {error}")
    main()
