"""The command line starts fast, and its lists equal the lists of what it calls."""

from __future__ import annotations

import subprocess
import sys

from highnoon.coordinator.cli.analyse import KINDS, SUFFIXES
from highnoon.coordinator.cli.read import _FORMATS
from highnoon.shared.views.best_config import BEST
from highnoon.shared.views.charts import FIGURES, TITLES

SLOW = ("optuna", "sqlalchemy", "plotly", "pydantic", "redis", "numpy")


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from highnoon.coordinator.cli.main import app; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        f"print(*[name for name in {SLOW} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []


def test_names_that_are_written_twice_are_the_same() -> None:
    # The command line has lists of its own, so that help imports neither the figures nor YAML.
    assert set(KINDS) == set(FIGURES) == set(TITLES)
    assert set(_FORMATS) == set(BEST)
    assert all(suffix.startswith(".") for suffix in SUFFIXES)
