"""MLflowLogger: an experiment per study and a run per finished trial, on any tracking server or store of MLflow's."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from highnoon.callbacks.finished_trial import FinishedTrial, TrialLogger
from highnoon.shared.domain.states import TrialState
from highnoon.shared.runtime.extras import require

T = TypeVar("T")

_KEY = "highnoon.trial"
_ENDED_AS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
"""MLflow has no pruned run: a killed one is the nearest. The tag `highnoon.state` has the exact state."""

_PARAMS_AT_ONCE, _METRICS_AT_ONCE = 100, 1000
_LONGEST_TAG = 5000
_NO_NAME = re.compile(r"[^\w/. -]")
"""What no name of a metric or parameter may have there, and ours may."""


class MLflowLogger(TrialLogger):
    """Logs to `tracking_uri`, by default MLflow's own (MLFLOW_TRACKING_URI). Raises UserInputError without MLflow.

    The experiment has the study's name unless another is given. Ending a run is the last step: a run that a killed
    process left open is filled again, and one that has ended is not written again.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        require({"MLflowLogger": ["mlflow"]})
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._client: Any = None
        self._ids: dict[str, str] = {}
        self._runs: dict[str, dict[str, tuple[str, bool]]] = {}

    def _write(self, ended: FinishedTrial) -> None:
        """Nothing when its run has ended."""
        client = self._connected()
        experiment_id = self._id_of(self._experiment or ended.study)
        runs = self._known(experiment_id)
        name = _name(ended)
        run_id, is_whole = runs.get(name, ("", False))
        if is_whole:
            return
        began_ms, ended_ms = ended.span_ms
        if not run_id:
            run_name = f"trial {ended.trial.number}"
            run = client.create_run(experiment_id, start_time=began_ms, tags=_tags(ended), run_name=run_name)
            run_id = run.info.run_id
            runs[name] = run_id, False
        _fill(client, run_id, ended)
        client.set_terminated(run_id, status=_ENDED_AS[ended.trial.state], end_time=ended_ms)
        runs[name] = run_id, True

    def _connected(self) -> Any:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=self._tracking_uri)
        return self._client

    def _id_of(self, experiment: str) -> str:
        """Creates it if needed; of two processes that create it at once, one finds the other's."""
        from mlflow.exceptions import MlflowException

        if experiment not in self._ids:
            found = self._client.get_experiment_by_name(experiment)
            try:
                self._ids[experiment] = found.experiment_id if found else self._client.create_experiment(experiment)
            except MlflowException:
                found = self._client.get_experiment_by_name(experiment)
                if found is None:
                    raise
                self._ids[experiment] = found.experiment_id
        return self._ids[experiment]

    def _known(self, experiment_id: str) -> dict[str, tuple[str, bool]]:
        """Run and whether it has ended, by trial; read once, since one process writes a trial's runs."""
        if experiment_id not in self._runs:
            self._runs[experiment_id] = {
                run.data.tags[_KEY]: (run.info.run_id, run.info.status != "RUNNING")
                for run in self._all_runs(experiment_id)
                if _KEY in run.data.tags
            }
        return self._runs[experiment_id]

    def _all_runs(self, experiment_id: str) -> Iterator[Any]:
        page = self._client.search_runs([experiment_id], max_results=1000)
        yield from page
        while page.token:
            page = self._client.search_runs([experiment_id], max_results=1000, page_token=page.token)
            yield from page


def _name(ended: FinishedTrial) -> str:
    """An experiment may hold several studies."""
    return f"{ended.study}/{ended.key}"


def _tags(ended: FinishedTrial) -> dict[str, str]:
    texts = {
        "study": ended.study,
        "number": str(ended.trial.number),
        "state": str(ended.trial.state),
        "cause": ended.cause,
        "message": ended.message[:_LONGEST_TAG],
    }
    return {_KEY: _name(ended), **{f"highnoon.{name}": text for name, text in texts.items() if text}}


def _fill(client: Any, run_id: str, ended: FinishedTrial) -> None:
    """Parameters and metrics in as few requests as the server takes; the same ones again change nothing."""
    from mlflow.entities import Metric, Param

    at_ms = ended.span_ms[1]
    results = ended.results
    names = _allowed_names(results)
    metrics = [Metric(names[name], float(number), at_ms, 0) for name, number in results.items()]
    metrics += [Metric("report", report.value, at_ms, report.step) for report in ended.trial.reports]
    for some in _in_parts(metrics, _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=some)
    params = ended.trial.params
    names = _allowed_names(params)
    pairs = [Param(names[name], str(value)) for name, value in params.items()]
    for few in _in_parts(pairs, _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=few)


def _allowed_names(names: Iterable[str]) -> dict[str, str]:
    """Each name as MLflow takes it; those that become equal to another one get a number."""
    allowed = {name: _allowed(name) for name in names}
    taken = {name for name in allowed if allowed[name] == name}
    for name, new in allowed.items():
        if new != name:
            numbered = (new, *(f"{new}_{number}" for number in range(2, len(allowed) + 2)))
            allowed[name] = next(free for free in numbered if free not in taken)
            taken.add(allowed[name])
    return allowed


def _allowed(name: str) -> str:
    """MLflow also refuses names that are no plain relative path: `a//b`, `a/`, `/a`, `..`."""
    name = _NO_NAME.sub("_", name)
    is_path = posixpath.normpath(name) == name != "." and not name.startswith(("/", ".."))
    return name if is_path else re.sub(r"/|^\.+", "_", name) or "_"


def _in_parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
