"""HPOTrialManager: a study in this process, kept in memory or in any database that Optuna can use.

Owns the guide's signature and its checks. Creating one connects to nothing, so that an objective file may do it at
module level: a worker's trial process has neither database nor credentials. `highnoon.local` runs the trials.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highnoon import current_trial
from highnoon.arguments import (
    NOT_KNOWN_YET,
    callback_problems,
    checked,
    jobs_problems,
    listed_callbacks,
    name_of_plugin,
    place_problems,
    refuse_in_a_workers_trial,
    refuse_lost_plugins,
    refuse_where_an_objective_is_imported,
    sampler_problems,
    storage_problems,
)
from highnoon.local.process import is_trial_process
from highnoon.local.unstored_points import UnstoredPoints, as_point
from highnoon.rehearsal import REHEARSAL_TRIALS, is_rehearsal
from highnoon.results import StudyResults
from highnoon.shared.domain import errors
from highnoon.shared.domain.correction_hints import cut_short
from highnoon.shared.domain.errors import StudyConflict, UserInputError
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Params
from highnoon.shared.domain.trial_environment import read_at_import
from highnoon.shared.objective.defined_trial import takes_trial
from highnoon.shared.objective.reference import objective_problems
from highnoon.shared.runtime.settings import ARTIFACTS, load_settings
from highnoon.shared.runtime.urls import masked

if TYPE_CHECKING:  # Optuna takes half a second to import, and an objective in a trial process needs none of it
    from typing_extensions import Self

    from highnoon.shared.store.optuna_store import OptunaStore
    from highnoon.shared.store.optuna_study import OptunaStudy

logger = logging.getLogger("highnoon")


class HPOTrialManager(StudyResults):
    """A study of `study_name`. Raises InvalidInput with every mistake in its arguments at once.

    Managers that name the same study and storage, in any process or machine, add trials to the same study; with
    `load_if_exists=False` it must be a new one. `sampler` and `pruner` are names, or dicts of a name and options;
    "module:Class" or an object is one of Optuna's, or of your own.
    `early_stop={"patience": 30}` ends a call of `optimize` when so many trials in a row brought no better value.
    `warm_start` names studies of the same storage whose trials the sampler knows too; they are not counted.

    With `repeats` each point is run so often, with a seed each (`hn.trial_seed()`), and its value is the mean.

    With a `param_budget` trials are ranked by loss and size, else by their loss.

    `objectives={"loss": "minimize", "latency_ms": "minimize"}` asks for several: the objective function returns a dict
    with each of them, or a tuple in their order, and the best are `best_trials`. `prune_on` names the one that is
    reported and pruned by. `constraints={"latency_ms": "<= 20"}` are bounds on what is returned or logged: a trial that
    does not keep one is infeasible, and never the best.

    `isolation` is where a trial runs: "none" in this process, "fork" in a copy of it, "spawn" in a new interpreter; a
    process of its own gives back all memory, and survives what kills it. Left out, it is "none" for one job and "fork"
    for several. A "fork" becomes a "spawn" once TensorFlow or CUDA has run in this process.

    `environment` are variables for its trials, which then have processes of their own: a "spawn" where a library reads
    one of them when it is imported (`OMP_NUM_THREADS`, `KERAS_BACKEND`).

    `artifacts` is where files that trials save with `hn.save_artifact` are kept: a folder, or an address of fsspec;
    left out, HIGHNOON_ARTIFACTS_URL or `.highnoon/artifacts`. Only the `keep_best` best trials keep theirs.

    No trial can be trained longer here, as `StudyHandle.extend_trial` does it on a cluster: `hn.checkpoint_dir()` is
    a temporary folder in process, and ends with its trial, or with the call where the sampler is pbt. What a later
    training needs is saved by `hn.save_artifact`.

    `max_failures_in_a_row` ends a call after so many; left out, after 5 before the first success; 0 is never.
    """

    TrialPruned = errors.TrialPruned
    report = staticmethod(current_trial.report)
    should_prune = staticmethod(current_trial.should_prune)
    report_params = staticmethod(current_trial.report_params)

    def __init__(
        self,
        study_name: str,
        n_trials: int = 50,
        direction: str = "minimize",
        storage: str | None = None,
        pruner: str | Mapping[str, Any] | object = "median",
        sampler: str | Mapping[str, Any] | object = "tpe",
        load_if_exists: bool = True,
        seed: int | None = None,
        param_budget: int | None = None,
        lambda_efficiency: float = 0.1,
        param_budget_hard: bool = False,
        memory_warning_pct: float | None = None,
        memory_grace_steps: int | None = None,
        prefetch_buffer_size: int | None = None,
        trial_memory_limit: int | str | None = None,
        max_failures_in_a_row: int | None = None,
        isolation: str | None = None,
        early_stop: Mapping[str, Any] | None = None,
        warm_start: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        objectives: Mapping[str, str] | None = None,
        prune_on: str | None = None,
        constraints: Mapping[str, str] | None = None,
        repeats: int = 1,
        artifacts: str | Path | None = None,
        keep_best: int | None = None,
    ) -> None:
        self._written = {
            "name": study_name,
            "n_trials": n_trials,
            "direction": direction,
            "pruner": name_of_plugin(pruner),
            "sampler": name_of_plugin(sampler),
            "seed": seed,
            "param_budget": param_budget,
            "lambda_efficiency": lambda_efficiency,
            "param_budget_hard": param_budget_hard,
            "memory_warning_pct": memory_warning_pct,
            "memory_grace_steps": memory_grace_steps,
            "prefetch_buffer_size": prefetch_buffer_size,
            "trial_memory_limit": trial_memory_limit,
            "max_failures_in_a_row": max_failures_in_a_row,
            "isolation": "fork" if isolation is None else isolation,
            "early_stop": early_stop,
            "warm_start": warm_start,
            "environment": environment or {},
            "objectives": objectives,
            "prune_on": prune_on,
            "constraints": {} if constraints is None else constraints,
            "repeats": repeats,
            "keep_best": keep_best,
        }
        self._plugins = {"sampler": sampler, "pruner": pruner}
        self._spec = checked(
            "HPOTrialManager",
            {**self._written, **NOT_KNOWN_YET},
            [*storage_problems(storage), *place_problems(artifacts), *sampler_problems(sampler)],
        )
        self._url, self._isolation, self._artifacts = storage, isolation, artifacts
        self._enqueued = UnstoredPoints()
        self._space_is_known = False
        self._pid = os.getpid()
        self._must_be_new = not load_if_exists
        self._leaves_results = False  # in the memory of another process
        self._store: OptunaStore | None = None
        self._study: OptunaStudy | None = None

    def optimize(
        self,
        objective: Callable[[Any], object],
        search_space: Mapping[str, Any] | None = None,
        n_trials: int | None = None,
        callbacks: Iterable[Callable[[Any, Any], object]] | Callable[[Any, Any], object] | None = None,
        n_jobs: int = 1,
        timeout: float | None = None,
        show_progress: bool = True,
        *,
        param_constraints: Sequence[str] = (),
    ) -> Params:
        """Adds trials to the study; returns the best parameters that the study has then.

        With several objectives: the best trial's by the first one; `best_trials` has the others.

        `n_trials` is how many this call adds, by default the manager's (a few in a rehearsal); `n_jobs` how many run at
        a time, -1 for one per core. `timeout` seconds after the call began none is started any more. After each trial
        every callback is called as f(study, trial), with Optuna's own objects; `study.stop()` ends this call, and what
        a callback raises is logged. `show_progress` draws a bar in a terminal, and logs a line for each trial
        elsewhere. A point that breaks one of `param_constraints` ("a <= b") is never run.

        Without a `search_space` the objective takes a `trial`, as Optuna's do, and suggests parameters as it runs.

        Raises InvalidInput with every mistake at once, StudyConflict when the study has another direction or a space
        that may not become this one,
        EveryTrialFailed when all trials failed and the study has no completed one from before (else a warning is
        logged), and NoCompletedTrial when all were pruned.
        """
        refuse_where_an_objective_is_imported("optimize()")
        if search_space is None and callable(objective) and not takes_trial(objective):
            search_space = {}  # is refused, with what to write
        called = [] if callbacks is None else listed_callbacks(callbacks)
        asked = {
            **self._written,
            **NOT_KNOWN_YET,
            "search_space": search_space,
            "param_constraints": param_constraints,
            "timeout": timeout,
        }
        spec = checked(
            "optimize()",
            asked if n_trials is None else {**asked, "n_trials": n_trials},
            [*objective_problems(objective), *callback_problems(called), *jobs_problems(n_jobs, self._isolation)],
        )
        for line in cut_short(search_space or {}, spec.search_space):
            logging.getLogger("highnoon").warning("optimize(): %s", line)
        if is_rehearsal():  # its memory has no other studies
            spec = spec.model_copy(update={"n_trials": min(spec.n_trials, REHEARSAL_TRIALS), "warm_start": ()})
        study = self._joined(spec)
        from highnoon.local.run import RunOptions, run_trials
        from highnoon.shared.memory.cores import usable_cores

        self._enqueued.store(study)
        jobs = usable_cores() if n_jobs == -1 else int(n_jobs)
        isolation = self._isolation or ("none" if jobs == 1 and not spec.environment else "fork")
        if isolation == "fork" and read_at_import(spec.environment):
            isolation = "spawn"
        place = None if is_rehearsal() else (lambda: self._artifacts_place)
        options = RunOptions(isolation=isolation, n_jobs=jobs, show_progress=show_progress, artifacts=place)
        why_over = run_trials(study, spec, objective, called, options)
        try:
            return dict(self.best_trials[0].params)
        except errors.NoCompletedTrial as nothing:
            raise errors.NoCompletedTrial(f"{nothing} ({why_over})" if why_over else str(nothing)) from None

    def enqueue(self, params: Mapping[str, Any]) -> None:
        """A point that the next trial of `optimize` starts with; the sampler chooses what it leaves open.

        Raises InvalidInput for names and values that the search space does not have: at once where `optimize` was
        called before, else when it is called: then none of the points that wait is stored, and all are forgotten.
        Raises StudyConflict for a grid and `brute_force`.
        """
        point = as_point(params)
        if self._spec.sampler.is_exhaustive:
            raise StudyConflict(f"study {self._spec.name!r} tries the points of a grid, and no others")
        if self._study is None or not self._space_is_known:
            self._enqueued.add(point)
        else:
            self._study.enqueue(point)

    @property
    def _artifacts_place(self) -> str | Path:
        settings = load_settings()
        return self._artifacts or settings.artifacts_url or settings.home / ARTIFACTS

    def __repr__(self) -> str:
        """What it is, and how far it is by now once its study was opened; never raises for a database that is away."""
        where = "memory" if self._url is None else masked(self._url)
        known = f"HPOTrialManager({self._spec.name!r}, {' and '.join(self._spec.scoring.directions)}, in {where}"
        if self._study is None or os.getpid() != self._pid:
            return f"{known}, {self._spec.n_trials} trials asked for)"
        try:
            return f"{known}, {self._progress()})"
        except errors.HighNoonError as error:
            return f"{known}, cannot be read: {error})"

    def __getstate__(self) -> dict[str, Any]:
        """For an objective that refers to its manager and goes to another process: without connections."""
        leaves = self._leaves_results or (self._study is not None and self._url is None)
        named = {kind: plugin for kind, plugin in self._plugins.items() if name_of_plugin(plugin) is plugin}
        return {**self.__dict__, "_store": None, "_study": None, "_plugins": named, "_leaves_results": leaves}

    def __copy__(self) -> Self:
        """In this process: with the sampler and the pruner that it was given."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__getstate__(), _plugins=self._plugins)
        return copied

    def _joined(self, spec: StudySpec) -> OptunaStudy:
        """The study, created if it does not exist. Raises StudyConflict.

        Raises UserInputError where a sampler or pruner that it was given is in another process.
        """
        refuse_lost_plugins("optimize()", self._plugins)
        store = self._connected()
        if self._must_be_new and store.exists(spec.name):
            raise StudyConflict(
                f"study {spec.name!r} exists already, and load_if_exists=False asks for a new one. "
                "Choose another study_name, or leave load_if_exists out to add trials to it."
            )
        store.check_warm_start(spec)
        store.create_study(spec.name, spec.direction, spec.scoring, spec.search_space)
        self._must_be_new = False
        from highnoon.shared.store.plugin_process import plugins_of

        self._study = store.open(spec, **plugins_of(spec, self._plugins))
        self._space_is_known = True
        return self._study

    def _results(self) -> OptunaStudy:
        """The study, to read it. Raises UnknownStudy where its storage has none yet; in memory it is made."""
        if is_trial_process() and os.getpid() != self._pid:
            raise UserInputError(
                "results: this trial runs in a process of its own, without any database. Read them where optimize() "
                "was called."
            )
        if self._study is None and self._leaves_results:
            raise UserInputError("results: they are in the memory of another process; give the manager a storage")
        if self._study is None:
            refuse_in_a_workers_trial("results", "Read them where optimize() was called, or by `coordinator best`.")
            store = self._connected()
            if store.url is None:
                store.create_study(self._spec.name, self._spec.direction, self._spec.scoring)
                self._must_be_new = False
            self._study = store.open_to_read(self._spec)
        return self._study

    def _connected(self) -> OptunaStore:
        if self._store is None:
            from highnoon.shared.store.optuna_store import OptunaStore

            if is_rehearsal() and self._url is not None:
                logger.warning(
                    "REHEARSAL: study %s is kept in memory, with %d trials and smaller models; %s is not touched",
                    *(self._spec.name, REHEARSAL_TRIALS, masked(self._url)),
                )
            self._store, self._pid = OptunaStore(None if is_rehearsal() else self._url), os.getpid()
        return self._store
