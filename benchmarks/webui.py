"""How fast the dashboard is at 10,000 trials: server time per page, first paint in a browser, memory that it takes.

    python -m benchmarks.webui [--trials 10000] [--beside PATH/TO/optuna-dashboard]

The study is made up and written in bulk; the dashboard is a process of its own, asked over HTTP as a browser would.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.runtime.data_dir import LOOPBACK, Home
from tests.browser.chromium import browser, installed
from tests.made_up import make_study
from tests.support import eventually

_ROUNDS = 30
_PATIENCE_S = 60.0
"""For the other dashboard's rounds of one page: at 10,000 trials each takes seconds."""
_PATHS = {
    "studies": "/hpo",
    "study": "/hpo/studies/huge",
    "trials": "/hpo/studies/huge/trials",
    "trials, sorted": "/hpo/studies/huge/trials?sort=-params.l2&state=pruned",
    "trial": "/hpo/studies/huge/trials/7",
    "api trials": "/api/hpo/studies/huge/trials?per_page=500",
    "export csv": "/api/hpo/studies/huge/export/trials",
}
_FIGURES = ("history", "slice", "parallel", "contour", "importance", "intermediate", "timeline", "outcomes", "memory")


def main() -> None:
    """Prints one line per page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--beside", metavar="PROGRAM", help="an optuna-dashboard, to be asked for the same study")
    arguments = parser.parse_args()
    trials = arguments.trials
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home") as stack:
        make_study(stack.database_url, "huge", n_trials=trials, done=trials - 4, running=4)
        port = Home(Path(folder)).service("bench").port
        command = [sys.executable, "-m", "highnoon.webui", "--port", str(port)]
        with _running(command, HIGHNOON_DATABASE_URL=stack.database_url) as process:
            _measure(f"http://{LOOPBACK}:{port}", process, trials)
        if arguments.beside:
            _measure_beside(arguments.beside, stack.database_url, port)


@contextmanager
def _running(command: list[str], **environ: str) -> Iterator[psutil.Process]:
    process = psutil.Popen(command, env={**os.environ, **environ})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _measure_beside(program: str, database_url: str, port: int) -> None:
    """What optuna-dashboard's pages ask their server for: all studies, and one study with all its trials."""
    with (
        _running([program, database_url, "--host", LOOPBACK, "--port", str(port)]) as process,
        httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=600) as client,
    ):
        eventually(lambda: _answers(client, "/api/studies"), 60, what="optuna-dashboard answers")
        (study,) = client.get("/api/studies").json()["study_summaries"]
        for name, path in {"studies": "/api/studies", "study": f"/api/studies/{study['study_id']}?after=0"}.items():
            first = _timed(client, path)
            size = len(client.get(path).content)
            rounds = max(5, min(_ROUNDS, int(_PATIENCE_S / first)))
            _show(f"optuna-dashboard, {name}", [_timed(client, path) for _ in range(rounds)], size, first)
        print(f"{'its memory':28} {process.memory_info().rss / 1e6:8.0f} MB")


def _measure(address: str, process: psutil.Process, trials: int) -> None:
    with httpx.Client(base_url=address, timeout=120) as client:
        eventually(lambda: _answers(client), 60, what="the dashboard answers")
        print(
            f"{'first look at ' + format(trials, ',') + ' trials':28} {_timed(client, _PATHS['study']) * 1e3:8.0f} ms"
        )
        _timed(client, "/api/hpo/studies/huge/importance")  # the process has warmed up when this answers
        print(f"{'':28} {'median':>8}    {'p95':>8}    {'kB':>8}")
        for name, path in _PATHS.items():
            _show(name, [_timed(client, path) for _ in range(_ROUNDS)], len(client.get(path).content))
        for kind in _FIGURES:
            path = f"/api/hpo/studies/huge/figures/{kind}?x=learning_rate&y=units"
            first = _timed(client, path)
            _show(
                f"figure {kind}", [_timed(client, path) for _ in range(_ROUNDS)], len(client.get(path).content), first
            )
    print(f"{'memory of the process':28} {process.memory_info().rss / 1e6:8.0f} MB")
    if installed():
        for name in ("studies", "study", "trials"):
            print(f"{'first paint, ' + name:28} {_first_paint(address + _PATHS[name]):8.0f} ms")


def _answers(client: httpx.Client, path: str = "/health") -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.HTTPError:
        return False


def _timed(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    client.get(path, headers={"accept": "text/html"}).raise_for_status()
    return time.perf_counter() - began


def _show(name: str, seconds: list[float], size: int, first: float | None = None) -> None:
    p95 = statistics.quantiles(seconds, n=20)[-1]
    cold = "" if first is None else f"   computed in {first * 1e3:.0f} ms"
    print(f"{name:28} {statistics.median(seconds) * 1e3:8.1f} ms {p95 * 1e3:8.1f} ms {size / 1e3:8.0f}{cold}")


def _first_paint(address: str) -> float:
    script = "JSON.stringify(performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime))"
    with browser() as page:
        page.look(1400)
        page.goto(address)
        page.until(f"{script} !== '[]'")
        return float(json.loads(page.eval(script))[0])


if __name__ == "__main__":
    main()
