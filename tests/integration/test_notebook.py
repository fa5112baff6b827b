"""A notebook, run by Jupyter's own client: a study on a running `start`, then trials on this machine, 12 of Keras."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from highnoon.shared.runtime.data_dir import attach
from tests.cluster import PERIODS
from tests.support import eventually

nbclient: Any = pytest.importorskip("nbclient")
nbformat: Any = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")

OBJECTIVE = """
    import keras
    import numpy as np
    import highnoon as hn

    UNITS = 4


    def data():
        rng = np.random.default_rng(0)
        x = rng.normal(size=(64, 4)).astype("float32")
        return x, (x.sum(axis=1) > 0).astype("float32")


    def objective(params):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Dense(UNITS, "relu"), keras.layers.Dense(1, "sigmoid")])
        model.compile(keras.optimizers.SGD(params["lr"]), "binary_crossentropy")
        history = model.fit(*data(), epochs=2, verbose=0, callbacks=[hn.callbacks.Report("loss")])
        return history.history["loss"][-1]


    def kept(params):
        loss = objective(params)
        report = hn.checkpoint_dir() / "report.txt"
        report.write_text(f"loss {loss}")
        hn.save_artifact(report)
        return loss
"""
SUBMIT = """
    study = hn.submit(kept, {"lr": ("log_uniform", 1e-3, 1.0)}, name="from-a-notebook", n_trials=4, pruner="none")
    study.wait()
"""
SHOW = "study"
READ = """
    frame = study.trials_dataframe()
    print(len(frame), sorted(frame["state"].unique()), study.best_value == frame["value"].min(), study.best_params)
    print(study.best_trial.metrics.keys())
    print(study.artifact(study.best_trial.number, "report.txt", to=".").read_text() == f"loss {study.best_value}")
"""
LOCAL = """
    import gc, psutil

    hpo = hn.HPOTrialManager("local", n_trials=12, storage="sqlite:///local.db", sampler="random", pruner="none")
    rss = []

    def measure(study, trial):
        gc.collect()
        rss.append(psutil.Process().memory_info().rss)

    hpo.optimize(objective, {"lr": ("log_uniform", 1e-3, 1.0)}, n_jobs=2, callbacks=measure, show_progress=False)
    print(len(hpo.trials), max(rss[4:]) / rss[4])
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Path]:
    """The folder of a `start`, as a person has it beside the notebook."""
    with (tmp_path / "start.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "coordinator", "start", "--workers", "2"],
            env={**os.environ, **PERIODS, "HIGHNOON_PRELOAD": "tensorflow"},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    home = tmp_path / ".highnoon"
    try:
        eventually(
            # Its coordinator has made the ledger by its first tick.
            lambda: (attach(home) and (home / "coordinator.health").exists()) or process.poll() is not None,
            60,
            what="start is ready",
        )
        yield tmp_path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
        print((tmp_path / "start.log").read_text()[-4000:])


def run(folder: Path, *cells: str) -> list[list[dict[str, Any]]]:
    """What each cell has shown."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(dedent(cell).strip()) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}}).execute()
    return [json.loads(json.dumps(cell.outputs)) for cell in notebook.cells]


def printed(outputs: list[dict[str, Any]], name: str = "stdout") -> str:
    return "".join(output["text"] for output in outputs if output.get("name") == name)


def test_a_notebook_from_the_first_cell_to_the_last(start: Path) -> None:
    _, waited, shown, read, local = run(start, OBJECTIVE, SUBMIT, SHOW, READ, LOCAL)

    assert printed(waited, "stderr").count("action=trial study=from-a-notebook") == 4
    bar = next(output["data"]["text/html"] for output in waited if "text/html" in output.get("data", {}))
    assert '<progress value="4" max="4"' in bar and "from-a-notebook: 4 of 4 trials  best 0." in bar
    page = next(output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {}))
    assert "<b>from-a-notebook</b>: finished, 4 of 4 trials" in page and page.count("<tr>") == 5
    assert page.count("<circle") == 4 and "<polyline" in page, "its history"
    lines = printed(read).splitlines()
    assert lines[0].startswith("4 ['COMPLETE'] True {'lr': 0.") and "loss" in lines[1]
    assert lines[2] == "True"
    count, growth = printed(local).split()
    assert count == "12" and float(growth) < 1.01
