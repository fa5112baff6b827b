"""The command line starts fast, and says the same as what it calls."""

from __future__ import annotations

import subprocess
import sys

from highnoon.coordinator.cli.analyse import KINDS
from highnoon.coordinator.cli.plot_export import SUFFIXES
from highnoon.coordinator.cli.read import _FORMATS
from highnoon.shared.store.figures import KINDS as FIGURES
from highnoon.shared.views.best_config import BEST

SLOW = ("optuna", "sqlalchemy", "plotly", "pydantic", "redis", "numpy")


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from highnoon.coordinator.cli.main import app; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        f"print(*[name for name in {SLOW} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []


def test_names_that_are_spelled_twice_are_the_same() -> None:
    # The command line spells them itself, so that help needs neither Optuna nor YAML.
    assert set(KINDS) == set(FIGURES)
    assert set(_FORMATS) == set(BEST)
    assert all(suffix.startswith(".") for suffix in SUFFIXES)
