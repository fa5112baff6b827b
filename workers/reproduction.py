"""A trial that has ended, run once more on this machine: the same parameters, seed and code, and nothing is recorded.

`python -m coordinator reproduce` runs it as a process of its own and prints what it finds. The trial asks as in a
worker: it gets the values that it had, and a pruned one is pruned at the same step. Its memory is not limited.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from highnoon.shared.domain.errors import UserInputError
from highnoon.shared.domain.extension import Extension
from highnoon.shared.domain.states import Ending, TrialState
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome, Report, Trial, json_number
from highnoon.shared.memory.gpu import Gpus
from highnoon.shared.objective.seeds import trial_seed
from highnoon.shared.objective.trial_pipe import Event
from highnoon.shared.objective.trial_task import TrialTask
from highnoon.shared.runtime.environment_record import EnvironmentRecord
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.access import Access, opened
from highnoon.shared.store.attempt_records import AttemptRecord
from highnoon.shared.store.bundles import Bundles
from highnoon.shared.store.environments import Environments
from highnoon.shared.views.environments import environment_differences
from highnoon.shared.views.trials import has_ended, trial_object
from highnoon.workers.code.code_gate import Code, CodeGate
from highnoon.workers.monitor.services import Answer
from highnoon.workers.monitor.time_limits import TimeLimits
from highnoon.workers.monitor.trial_monitor import TrialMonitor
from highnoon.workers.trial.launch import launch
from highnoon.workers.trial.output import Output
from highnoon.workers.trial.process import Assignment


def reproduce(settings: Settings, study: str, number: int) -> dict[str, Any]:
    """JSON: the trial `before` and `now`, what `differs` around it. Raises UserInputError where it cannot be run."""
    with opened(str(settings.database_url)) as access:
        access.database.check_schema()
        record = access.studies.get(study)
        spec, attempt, before = StudySpec.from_json(record.spec), *_ended(access, study, number)
        was = Environments(access.database).find(attempt.environment)
        extension = access.optuna(record).extension(number)
        code = CodeGate(settings, Bundles(access.database)).pass_or_refuse(spec)
    if code.refusal is not None:
        raise UserInputError(code.refusal.message)
    os.environ.update((was or {}).get("threads") or {})
    now = EnvironmentRecord.here(device.name for device in Gpus().devices())
    differs = ["its environment was not recorded"] if was is None else environment_differences(was, now.content)
    if attempt.host != socket.gethostname():
        differs.insert(0, f"host: {attempt.host}, now {socket.gethostname()}")
    if attempt.code != code.digest:
        differs.insert(0, f"code: digest {str(attempt.code)[:12]}, now {str(code.digest)[:12]}")
    if extension is not None:
        differs.insert(0, f"it went on from the checkpoint of trial {extension.of}, now it begins at its beginning")
    replay = Replay(before)
    outcome = _run(settings, spec, before, attempt.ordinal, code, replay, extension)
    return {
        "study": study,
        "before": {
            **{key: trial_object(before)[key] for key in ("number", "state", "ending", "loss", "params")},
            "values": _numbers(before.values, before.value),
        },
        "now": {
            **{key: getattr(outcome, key) for key in ("ending", "cause", "message", "duration_s", "log_tail")},
            "loss": json_number(outcome.loss),
            "values": _numbers(outcome.values, _value_of(outcome, replay.reports)),
        },
        "other_report": _first_other(before.reports, replay.reports),
        "differs": differs,
    }


class Replay:
    """Answers a trial as it was answered before. Implements the protocols of `monitor.services`."""

    def __init__(self, before: Trial) -> None:
        self.wakeup_fd = os.eventfd(0)
        self.reports: list[Report] = []
        self._params = before.params
        self._question: Event = {}
        is_pruned = before.state is TrialState.PRUNED and before.reports
        self._pruned_at = before.reports[-1].step if is_pruned else None

    @property
    def suggestions(self) -> Replay:
        """Itself."""
        return self

    @property
    def files(self) -> Replay:
        """Itself."""
        return self

    def take_report(self, report: Report) -> bool:
        """Keeps all of them."""
        self.reports.append(report)
        return True

    def take_history(self, history: object) -> None:
        """Nothing of it is recorded."""

    def ask_should_prune(self) -> None:
        """Its answer is known."""

    def prune_answer(self) -> bool:
        """True from the last step of a pruned trial on."""
        return self._pruned_at is not None and bool(self.reports) and self.reports[-1].step >= self._pruned_at

    def safe_reports(self) -> None:
        """Each report is compared with the last step."""

    def interruption(self) -> None:
        """Ctrl-C ends this process, and the trial with it."""

    def ask(self, question: Event) -> None:
        """Keeps it for `answer`."""
        self._question = question

    def answer(self) -> Answer:
        """The value that the parameter had; of choices the index."""
        if self._question["question"] == "relative_params":
            return {"value": {}}
        name, domain = self._question["name"], json.loads(self._question["domain"])
        if name not in self._params:
            return {"error": f"the trial had no parameter {name!r}: its code has changed, or it is not deterministic"}
        value = self._params[name]
        if domain["name"] != "CategoricalDistribution":
            return {"value": value}
        written = [json.dumps(choice) for choice in domain["attributes"]["choices"]]
        if json.dumps(value) not in written:
            return {"error": f"{name!r} has no choice {value!r} any more"}
        return {"value": written.index(json.dumps(value))}

    def take(self, given: object) -> Any:
        """Attributes and files are not recorded a second time; none is left out."""
        return True


def _ended(access: Access, study: str, number: int) -> tuple[AttemptRecord, Trial]:
    record = access.studies.get(study)
    attempts = access.studies.attempts(record.id, trial_number=number)
    if not attempts:
        raise UserInputError(f"no attempt of study {study} has the trial number {number}")
    trial = access.optuna(record).trial(number)
    if not has_ended(trial):
        raise UserInputError(f"trial {number} of study {study} has not ended: it is {trial.state}")
    return attempts[-1], trial


def _run(
    settings: Settings,
    spec: StudySpec,
    before: Trial,
    ordinal: int,
    code: Code,
    replay: Replay,
    extension: Extension | None,
) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="highnoon-reproduce-") as folder:
        output = Output(
            Path(folder, "trial.log"), limit_bytes=settings.log_limit_bytes, tail_bytes=settings.log_tail_bytes
        )
        limits = TimeLimits(
            trial_timeout_s=spec.trial_timeout, stall_timeout_s=spec.stall_timeout, kill_grace_s=settings.kill_grace_s
        )
        assignment = Assignment(
            task=TrialTask.of(
                spec,
                number=before.number,
                params=dict(before.params),
                seed=trial_seed(spec.seed or 0, ordinal),
                saved=Path(folder, "saved"),
                checkpoints=Path(folder, "checkpoints"),
                extension=extension,
            ),
            ticket=0,
            attempt=1,
            objective=spec.objective,
            code_dir=code.folder,
            work_dir=str(Path(folder, "work")),
        )
        with closing(output):
            trial = launch("spawn", assignment, output, None)
            try:
                return TrialMonitor(trial, output, replay, limits, scoring=spec.scoring).run()
            finally:
                trial.clean_up(settings.kill_grace_s)


def _numbers(values: tuple[float, ...], value: float | None) -> list[float | str | None]:
    """One for each objective; none of a trial that has none."""
    return list(map(json_number, values or (() if value is None else (value,))))


def _value_of(outcome: Outcome, reports: list[Report]) -> float | None:
    """A pruned trial has the value of its last report, as in Optuna."""
    is_pruned = outcome.ending is Ending.PRUNED and outcome.value is None and reports
    return reports[-1].value if is_pruned else outcome.value


def _first_other(before: tuple[Report, ...], now: list[Report]) -> int | None:
    """The first step that was reported with another value than before, None where all are the same."""
    first = {report.step: report.value for report in reversed(now)}
    return next((report.step for report in before if first.get(report.step) != report.value), None)
