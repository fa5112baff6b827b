"""Samplers and pruners of a study's own code, behind Optuna's interface: each runs in a process of its own.

That process is a new interpreter without any credential (`store.plugin_process`). It gets the trials that are new since
the last question as a pickle; its answers are JSON, and values are checked against their domains: whatever its code
does, nothing of it runs here. An answer has a time limit. A process that does not keep it, dies or answers nonsense is
killed, the question raises PluginFailed (a pruner: lets the trial go on), and the next question starts another process.
One that is not asked for some minutes ends: its study may be over, or goes on elsewhere.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from highnoon.shared.domain.errors import PluginFailed

_ANSWER_S = 10.0
"""Below the time of a lease: a supervisor renews its lease in the thread that may wait here."""

_START_S = 25.0
"""With the imports of the study's code, before there is a lease."""

_IDLE_S = 300.0
"""Without a question for so long a process ends itself. We end it a little earlier, so that no question is lost."""

_MOST_BYTES = 1 << 20
"""Of an answer."""

NOTED = "plugin:"
"""How the attributes of trials begin that it wanted remembered."""

_running: set[int] = set()
"""The processes of this process's samplers and pruners."""

_starting = threading.Lock()

_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from highnoon.shared.store.plugin_process import serve; serve({descriptor}, {parent})"
)


@contextmanager
def plugin_processes() -> Iterator[frozenset[int]]:
    """Gives the process ids of plug-ins, for a caller that ends all other children; none is started meanwhile."""
    with _starting:
        yield frozenset(_running)


class PluginProcess:
    """Answers the questions to one sampler or pruner. Safe to use from several threads."""

    def __init__(self, kind: str, reference: str, options: Mapping[str, Any]) -> None:
        self._what = f"{kind} {reference}"
        self._start: dict[str, Any] = {"kind": kind, "reference": reference, "options": dict(options)}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._sent: dict[int, tuple[Any, ...]] = {}
        self._asked_at = 0.0
        self.is_allowed = False
        self.fault: str | None = None
        """Why the last question had no answer."""

    def take_fault(self) -> str | None:
        """`fault`, once."""
        fault, self.fault = self.fault, None
        return fault

    def allow(self, folder: Path | None) -> None:
        """From now on it may be started, from the code in this folder."""
        self._start["folder"] = None if folder is None else str(folder)
        self.is_allowed = True

    def begin(self, study: Study) -> None:
        """Starts the process unless it runs, with more time than within a question. Raises PluginFailed."""
        self.close_if_idle()
        with self._lock, self._guarded():
            if self._process is None and self.is_allowed:
                self._begin(study, _START_S)

    def ask(self, study: Study, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one question about a study. Raises PluginFailed."""
        self.close_if_idle()
        with self._lock, self._guarded():
            if self._process is None:
                self._begin(study, _ANSWER_S)
            trials = study.get_trials(deepcopy=False)
            new = [trial for trial in trials if self._sent.get(trial._trial_id) != _version_of(trial)]
            order = [trial._trial_id for trial in trials]
            answer = self._exchange({**question, "trials": new, "order": order}, _ANSWER_S)
            self._sent |= {trial._trial_id: _version_of(trial) for trial in new}
            self.fault = None
            return answer

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Raises PluginFailed; the process is gone then, and the next question starts another one."""
        try:
            yield
        except (OSError, ValueError, RuntimeError, PluginFailed) as error:  # JSON that is nested too deeply, too
            self.close()
            self.fault = f"{self._what}: {error}"
            raise PluginFailed(self.fault) from None

    def close_if_idle(self) -> None:
        """Ends the process if it was not asked in the last minutes, or has died; the next question starts another."""
        with self._lock:
            if self._process is None:
                return
            if self._process.poll() is not None or time.monotonic() - self._asked_at > 0.9 * _IDLE_S:
                self.close()

    def close(self) -> None:
        """Ends the process, and what it has started."""
        process, self._process = self._process, None
        self._sent.clear()
        if self._socket is not None:
            self._socket.close()
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            _running.discard(process.pid)

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def _begin(self, study: Study, limit_s: float) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        program = _PROGRAM.format(descriptor=theirs.fileno(), parent=os.getpid())
        with theirs, _starting:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=2,  # its prints belong into the log
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd=self._start["folder"] if self._start["folder"] and Path(self._start["folder"]).is_dir() else None,
            )
            _running.add(self._process.pid)
        directions = [direction.name.lower() for direction in study.directions]
        about = {"study": study.study_name, "directions": directions, "idle_s": _IDLE_S}
        self._exchange({**self._start, **about}, limit_s)

    def _exchange(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        assert self._socket is not None
        sent = pickle.dumps(question)
        give_up_at = time.monotonic() + limit_s
        self._socket.settimeout(limit_s)
        try:
            self._socket.sendall(len(sent).to_bytes(8, "big") + sent)
            answer = json.loads(self._line(give_up_at))
        except TimeoutError:
            raise PluginFailed(f"gave no answer in {limit_s:g} s") from None
        except (BrokenPipeError, ConnectionResetError):
            raise PluginFailed("its process has ended") from None
        if not isinstance(answer, dict):
            raise PluginFailed(f"answered {str(answer)[:100]}")
        if "error" in answer:
            raise PluginFailed(str(answer["error"])[:300])
        self._asked_at = time.monotonic()
        return answer

    def _line(self, give_up_at: float) -> bytes:
        assert self._socket is not None
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._socket], [], [], max(0.0, give_up_at - time.monotonic()))[0]:
                raise TimeoutError
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise PluginFailed("its process has ended")
            line += chunk
            if len(line) > _MOST_BYTES:
                raise PluginFailed(f"answered more than {_MOST_BYTES:,} bytes")
        return line


class PluggedSampler(BaseSampler):
    """A sampler of the study's own code. While it is not allowed, points are drawn at random: they are never run."""

    def __init__(self, reference: str, options: Mapping[str, Any]) -> None:
        self.process = PluginProcess("sampler", reference, options)
        self.seed = 0
        self._random_sampler = RandomSampler()

    def __deepcopy__(self, memo: object) -> PluggedSampler:
        return self

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Known to the process alone."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What it chooses jointly. Raises PluginFailed."""
        if not self.process.is_allowed:
            return {}
        params = self._asked(study, trial, {"ask": "relative", "seed": self.seed}).get("params")
        return params if isinstance(params, dict) else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One value. Raises PluginFailed, also for one outside of its domain."""
        if not self.process.is_allowed:
            return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)
        question = {"ask": "independent", "name": param_name, "domain": param_distribution}
        value = self._asked(study, trial, question).get("value")
        if not holds(param_distribution, value):
            self.process.fault = f"sampler gave {param_name} = {value!r}, outside of {param_distribution}"
            raise PluginFailed(self.process.fault)
        return value

    def _asked(self, study: Study, trial: FrozenTrial, question: dict[str, Any]) -> dict[str, Any]:
        answer = self.process.ask(study, {**question, "trial": trial})
        _note(study, trial, answer)
        return answer


class PluggedPruner(BasePruner):
    """A pruner of the study's own code. Where it fails, the trial goes on."""

    def __init__(self, reference: str, options: Mapping[str, Any]) -> None:
        self.process = PluginProcess("pruner", reference, options)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether it would end the trial now; never raises for its code."""
        if not self.process.is_allowed:
            return False
        try:
            answer = self.process.ask(study, {"ask": "prune", "trial": trial})
        except PluginFailed:
            return False
        _note(study, trial, answer)
        return answer.get("prunes") is True


def holds(domain: BaseDistribution, value: Any) -> bool:
    """Whether the domain has this value; False for anything else that a sampler may give."""
    try:
        return bool(domain._contains(domain.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def _note(study: Study, trial: FrozenTrial, answer: Mapping[str, Any]) -> None:
    """Keeps what it wants remembered with the trial, under names of its own: CMA-ES unpickles what has its names."""
    attrs = answer.get("attrs")
    for key, value in attrs.items() if isinstance(attrs, dict) else ():
        study._storage.set_trial_system_attr(trial._trial_id, f"{NOTED}{key}", value)


def with_notes(trial: FrozenTrial) -> FrozenTrial:
    """In its process: the trial with the attributes that it wanted remembered, by its own names."""
    own = {key.removeprefix(NOTED): value for key, value in trial.system_attrs.items() if key.startswith(NOTED)}
    trial.system_attrs = {**trial.system_attrs, **own}
    return trial


def _version_of(trial: FrozenTrial) -> tuple[Any, ...]:
    """Changes with the trial: one that has ended is sent once."""
    if trial.state.is_finished():
        return (trial.state,)
    attrs = len(trial.system_attrs) + len(trial.user_attrs)
    return TrialState(trial.state), len(trial.params), len(trial.intermediate_values), attrs
