"""The process of a plug-in sampler or pruner: the study's own code, one question after the other, and no credential.

Has the study as it was sent, in memory. Each question is a pickle from the process that started this one; each answer
is one line of JSON. What the code raises is an answer too: {"error": ...}. See `search.plugged`.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import select
import signal
import socket
import sys
import traceback
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.errors import HighNoonError, PluginFailed
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.reference import load
from highnoon.shared.objective.seeds import seed_python
from highnoon.shared.runtime.processes import die_with_parent
from highnoon.shared.search.plugged import with_notes
from highnoon.shared.search.presampling import only_what_lasts, reseed

_KINDS: dict[str, type[BaseSampler | BasePruner]] = {"sampler": BaseSampler, "pruner": BasePruner}


def made(kind: str, reference: str, options: Mapping[str, Any], folder: Path | None) -> Any:
    """The sampler or pruner itself: runs the study's code. Raises PluginFailed."""
    try:
        plugin: Any = load(ObjectiveRef.parse(reference), folder)
        if not isinstance(plugin, type) or not issubclass(plugin, _KINDS[kind]):  # nothing else is called
            raise PluginFailed(f"is no class of Optuna's {_KINDS[kind].__name__}")
        return plugin(**options)
    except PluginFailed:
        raise
    except HighNoonError as error:
        raise PluginFailed(str(error).removeprefix("objective: ")) from error
    except (Exception, SystemExit) as error:  # user code
        raise PluginFailed(f"{type(error).__name__}: {error}") from error


def plugins_of(spec: StudySpec, given: Mapping[str, object]) -> dict[str, Any]:
    """The sampler and the pruner of a study in this process: an object as it was given, or made of its class."""
    plugins: dict[str, Any] = {}
    for kind, ref in spec.plugins.items():
        options = getattr(spec, kind).options
        is_made = isinstance(given.get(kind), _KINDS[kind])
        try:
            plugins[kind] = given[kind] if is_made else made(kind, str(ref), options, Path.cwd())
        except PluginFailed as error:
            raise PluginFailed(f"{kind} {ref}: {error}") from error
    return plugins


def serve(descriptor: int, parent: int) -> NoReturn:
    """The main function of the process."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    with suppress(OSError):  # memory that runs out is to end this process, not the node's
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(BaseException), socket.socket(fileno=descriptor) as end, end.makefile("rb") as questions:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        plugin: _Plugin | None = None
        idle_s: float | None = None
        while select.select([end], [], [], idle_s)[0] and len(head := questions.read(8)) == 8:
            question = pickle.loads(questions.read(int.from_bytes(head, "big")))  # noqa: S301 - from its parent
            idle_s = question.get("idle_s", idle_s)
            try:
                answer = {} if plugin is not None else {"ready": True}
                if plugin is None:
                    plugin = _Plugin(question)
                else:
                    answer = plugin.answer(question)
                line = json.dumps(answer, default=_plain)
            except BaseException as error:  # user code: whatever it raises is an answer
                traceback.print_exc()
                text = " ".join(str(error).split())
                is_told = isinstance(error, PluginFailed)
                line = json.dumps({"error": text if is_told else f"{type(error).__name__}: {text}"})
            end.sendall(line.encode() + b"\n")
    sys.stderr.flush()
    os._exit(0)


class _History(InMemoryStorage):
    """The study's trials as they were sent, beside the one that is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[int, FrozenTrial] = {}
        self.order: list[int] = []
        self.asked: FrozenTrial | None = None
        self.noted: dict[str, Any] = {}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Not copied: it is this process's own."""
        trials = [self.sent[trial_id] for trial_id in self.order if trial_id in self.sent]
        return [trial for trial in trials if states is None or trial.state in states]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Raises KeyError."""
        if self.asked is not None and self.asked._trial_id == trial_id:
            return self.asked
        return self.sent[trial_id]

    def get_n_trials(self, study_id: int, state: Any = None) -> int:
        """In these states."""
        states = None if state is None else state if isinstance(state, tuple) else (state,)
        return len(self.get_all_trials(study_id, states=states))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Raises ValueError while there is none."""
        complete = self.get_all_trials(study_id, states=(TrialState.COMPLETE,))
        if not complete:
            raise ValueError("no trial is completed yet")
        sign = -1.0 if self.get_study_directions(study_id)[0] is optuna.study.StudyDirection.MAXIMIZE else 1.0
        return min(complete, key=lambda trial: sign * float(trial.value or 0.0))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Of the trial that is asked about it goes back with the answer."""
        trial = self.get_trial(trial_id)
        trial.system_attrs[key] = value
        if trial is self.asked:
            self.noted[key] = value


class _Plugin:
    def __init__(self, start: Mapping[str, Any]) -> None:
        self._kind = start["kind"]
        folder = None if start["folder"] is None else Path(start["folder"])
        self._plugin: Any = made(self._kind, start["reference"], start["options"], folder)
        self._history = _History()
        self._study = optuna.create_study(
            study_name=start["study"],
            storage=self._history,
            directions=start["directions"],
            **{self._kind: self._plugin},
        )

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Raises what the study's code raises."""
        history, trial = self._history, with_notes(question["trial"])
        history.sent |= {one._trial_id: with_notes(one) for one in question["trials"]}
        history.order, history.asked, history.noted = question["order"], trial, {}
        found: dict[str, Any] = {}
        if question["ask"] == "relative":
            self._reseed(question["seed"])
            self._plugin.before_trial(self._study, trial)
            space = self._plugin.infer_relative_search_space(self._study, trial)
            found["params"] = dict(self._plugin.sample_relative(self._study, trial, space))
        elif question["ask"] == "independent":
            name, domain = question["name"], question["domain"]
            found["value"] = self._plugin.sample_independent(self._study, trial, name, domain)
        else:
            found["prunes"] = bool(self._plugin.prune(self._study, trial))
        return {**found, "attrs": only_what_lasts(history.noted)}

    def _reseed(self, seed: int) -> None:
        """Every generator that it is seen to have: a retry gets the same point."""
        seed_python(seed)
        reseed(self._plugin, seed)
        for value in vars(self._plugin).values():
            if isinstance(value, BaseSampler):
                reseed(value, seed)
            elif isinstance(value, random.Random | numpy.random.RandomState):
                value.seed(seed)


def _plain(value: Any) -> Any:
    """NumPy's numbers."""
    return value.item() if hasattr(value, "item") else str(value)
