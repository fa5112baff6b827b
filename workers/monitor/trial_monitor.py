"""Monitors one trial process: events in, an Outcome out. The only place that decides how an attempt ended.

Owns time limits, the escalation from a polite request to SIGKILL, and the reading of exit statuses. It never waits for
a database: what it needs from there (pruning, renewal, drain) comes through `Services`, whose methods do not wait.
"""

from __future__ import annotations

import signal
from dataclasses import replace

from highnoon.shared.domain.score import UNSCORED, Scoring
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.tracebacks import shortened, storable
from highnoon.shared.domain.trial import MetricHistory, Outcome, ParamCount
from highnoon.shared.memory.guard import Kind, Verdict
from highnoon.shared.objective.exit_outcome import outcome_of_exit
from highnoon.shared.objective.staged_files import saved_of
from highnoon.shared.objective.trial_events import (
    WRONG_EVENT,
    count_of,
    history_of,
    outcome_of,
    question_of,
    report_of,
    setting_of,
)
from highnoon.shared.objective.trial_pipe import PIPE_VERSION, Event
from highnoon.shared.runtime.processes import signal_name
from highnoon.workers.monitor.event_reader import EventReader
from highnoon.workers.monitor.services import Answer, Services
from highnoon.workers.monitor.time_limits import TimeLimits
from highnoon.workers.monitor.trial_exit import await_exit
from highnoon.workers.monitor.trial_memory import TrialMemory
from highnoon.workers.trial.launch import ExitStatus, TrialHandle, now_s, wait_any
from highnoon.workers.trial.output import Output

_FOLLOWS_OUR_REQUEST = frozenset({Ending.STOPPED, Ending.CANCELLED, Ending.FAILED})
"""Results that a trial may send because it was asked to end, also only by SIGTERM."""

_DECIDED_BY_PEOPLE = frozenset({Ending.CANCELLED, Ending.RELEASED})

_LOOK_S = 0.5
"""How often drain and deadlines are checked."""

_QUESTION_LOOK_S = 0.1
"""The same while the trial waits for an answer."""

_REST_CHUNKS = 16
"""More than a pipe holds. A child of the trial that is left may write for ever."""


class TrialMonitor:
    """Monitors one attempt, from its launch to the Outcome."""

    def __init__(
        self,
        trial: TrialHandle,
        output: Output,
        services: Services,
        limits: TimeLimits,
        memory: TrialMemory | None = None,
        scoring: Scoring = UNSCORED,
    ) -> None:
        self._trial = trial
        self._output = output
        self._services = services
        self._limits = limits
        # None where its memory cannot be distinguished from the supervisor's own: isolation "none".
        self._memory = memory
        self._scoring = scoring
        self._began_at = self._progress_at = now_s()
        self._count: ParamCount | None = None
        self._history: MetricHistory = {}
        self._result: Outcome | None = None
        # True when our request was raised in the objective: whatever result followed, also a number, is caused by it.
        self._interrupted = False
        self._events = EventReader(trial.pipe)
        self._has_begun = False
        self._left_out: set[str] = set()
        # The id of the question that the trial waits for.
        self._question: int | None = None
        self._asks_sampler = False
        # Set once the supervisor wants the trial to end: the Outcome if the trial has none of its own.
        self._verdict: Outcome | None = None
        self._verdict_at = 0.0
        self._terminated = False
        # A request that no signal follows: the trial may end before it reads the request, and then its result stands.
        self._asked: Verdict | None = None
        self._is_killed = False
        self.has_left_late = False
        """Set by `run`: the trial was killed after its result, since it did not end."""

    def run(self) -> Outcome:
        """Waits for the end of the trial. Raises what `services` raise; the caller cleans up in any case."""
        while True:
            ended = self._trial.poll() is not None
            self._take_events(self._wait(0.0 if ended else self._pause_s()))
            if ended:
                self._take_rest()
            if ended or self._result is not None or self._is_beyond_reach():
                return self._conclude()
            self._judge_memory()
            self._judge_interruption()
            self._judge_time()
            self._answer_question()
            self._escalate()

    def _wait(self, timeout_s: float) -> list[Event]:
        pipe = self._trial.pipe
        descriptors = [self._services.wakeup_fd, *self._trial.exit_fds(), *([] if pipe.closed else [pipe.fileno()])]
        if not self._output.ended:
            descriptors.append(self._output.fileno())
        wait_any(descriptors, timeout_s)
        self._output.drain()
        return self._events.read(is_asking=self._question is not None)

    def _take_events(self, events: list[Event]) -> None:
        for event in events:
            try:
                self._take(event)
            except WRONG_EVENT as error:
                self._trial.pipe.closed = True
                self._fail(f"a wrong {event['event']}: {' '.join(str(error).split())}")
                return

    def _take(self, event: Event) -> None:
        match event["event"]:
            case "report":
                self._progress_at = now_s()
                if not self._services.take_report(report_of(event)):
                    self._note_left_out("reports")
            case "progress":
                self._progress_at = now_s()
            case "metrics" if self._events.takes_curves():
                self._history = history_of(event)
                self._services.take_history(self._history)
            case "params":
                self._count = count_of(event)
            case "ask" if self._question is not None:
                raise ValueError("a second question before the answer to the first one")
            case "ask":
                self._question, self._asks_sampler = event["id"], event["question"] != "should_prune"
                if self._asks_sampler:
                    self._services.suggestions.ask(question_of(event))
                else:
                    self._services.ask_should_prune()
            case "set":
                if not self._services.suggestions.take(setting_of(event)):
                    self._note_left_out("attributes")
            case "file":
                self._services.files.take(saved_of(event))
            case "result":
                self._result, self._interrupted = outcome_of(event, self._scoring), bool(event["interrupted"])
                self._history = self._result.metric_history
            case "hello" if event["version"] == PIPE_VERSION:
                self._has_begun = True
            case "hello":
                message = f"the trial process has pipe version {event['version']}, the supervisor {PIPE_VERSION}"
                self._end(Outcome(ending=Ending.FAILED, cause=Cause.VERSION, message=message))
            case "fault":
                self._fail(str(event["reason"]))

    def _note_left_out(self, what: str) -> None:
        if what not in self._left_out:
            self._left_out.add(what)
            self._output.add(f"highnoon: {what} come faster than they are stored, or are too many: some are left out\n")

    def _fail(self, reason: str) -> None:
        message = shortened(storable(f"the trial wrote into the pipe to its supervisor: {reason}"), 500)
        self._end(Outcome(ending=Ending.FAILED, cause=Cause.PROTOCOL, message=message))

    def _take_rest(self) -> None:
        """Takes what a dead trial had still written; the pipe drops a torn last line."""
        pipe = self._trial.pipe
        for _ in range(_REST_CHUNKS):
            if pipe.closed or not wait_any([pipe.fileno()], 0.0):
                break
            self._take_events(pipe.receive(0.0))
        self._output.drain()

    def _pause_s(self) -> float:
        look_s = _LOOK_S if self._question is None else _QUESTION_LOOK_S
        return look_s if self._memory is None or self._is_killed else min(look_s, self._memory.due_in_s())

    def _judge_memory(self) -> None:
        if self._memory is None or self._is_killed or self._memory.due_in_s() > 0:
            return
        verdict = self._memory.look()
        if verdict.kind is Kind.KILL:
            self._is_killed = True
            self._end(self._memory.ended_by(verdict))
            self._memory.kill()
            self._trial.kill(signal.SIGKILL)
        elif verdict.kind is Kind.STOP and self._asked is None:
            self._asked = verdict
            self._trial.pipe.send_nowait({"event": "stop", "reason": verdict.message})

    def _judge_interruption(self) -> None:
        outcome = self._services.interruption()
        if outcome is not None:
            self._end(outcome)

    def _answer_question(self) -> None:
        if self._question is None:
            return
        # A trial that must end is not kept waiting: it reads the request with its answer.
        must_end = self._verdict is not None or self._asked is not None
        answer: Answer | bool | None = False
        if not must_end:
            answer = self._services.suggestions.answer() if self._asks_sampler else self._services.prune_answer()
        if answer is None:
            return
        reply: Event = {"event": "answer", "id": self._question, "answer": answer}
        if answer is False and not must_end and (safe := self._services.safe_reports()) is not None:
            reply["safe"] = safe.to_json()
        self._trial.pipe.send_nowait(reply)
        self._question = None

    def _judge_time(self) -> None:
        now = now_s()
        if self._question is not None and self._asks_sampler:
            # It waits for us, and for the database where that is away.
            self._progress_at = now
        outcome = self._limits.exceeded(ran_s=now - self._began_at, silent_s=now - self._progress_at)
        if outcome is not None:
            self._end(outcome)

    def _end(self, verdict: Outcome) -> None:
        """Asks the trial to stop at its next report. The first verdict stands."""
        if self._verdict is not None:
            return
        self._verdict, self._verdict_at = verdict, now_s()
        event = "cancel" if verdict.ending is Ending.CANCELLED else "stop"
        self._trial.pipe.send_nowait({"event": event, "reason": verdict.message})

    def _escalate(self) -> None:
        if self._verdict is None:
            return
        asked_for_s, grace_s = now_s() - self._verdict_at, self._limits.kill_grace_s
        if asked_for_s > 2 * grace_s:
            self._trial.kill(signal.SIGKILL)
        elif asked_for_s > grace_s and not self._terminated:
            self._terminated = True
            self._trial.kill(signal.SIGTERM)

    def _is_beyond_reach(self) -> bool:
        """SIGKILL ends neither a thread (isolation "none") nor a process that hangs in the kernel (state D)."""
        return self._verdict is not None and now_s() - self._verdict_at > 3 * self._limits.kill_grace_s

    def _conclude(self) -> Outcome:
        wait_s = 0.0 if self._is_beyond_reach() else self._limits.kill_grace_s
        exit_, is_late = await_exit(self._trial, self._output, self._services, wait_s)
        self.has_left_late = is_late and self._result is not None
        if self.has_left_late:
            self._output.add(
                f"highnoon: killed {wait_s:g} s after its result (HIGHNOON_KILL_GRACE_S): a thread, an executor or an "
                "atexit function had not ended; atexit functions that had not run are skipped\n"
            )
        return replace(
            self._with_size(self._with_memory(self._ending(exit_), exit_)),
            exit_status=exit_.status,
            signal=None if exit_.signum is None else signal_name(exit_.signum),
            peak_rss_bytes=exit_.peak_rss_bytes,
            duration_s=now_s() - self._began_at,
            log_tail=self._output.tail(),
            metric_history=self._history,
        )

    def _with_size(self, outcome: Outcome) -> Outcome:
        """With the size that the trial sent before it was killed."""
        if self._count is None or outcome.params_count is not None:
            return outcome
        return replace(outcome, params_count=self._count.total, active_params=self._count.active)

    def _ending(self, exit_: ExitStatus) -> Outcome:
        result, verdict = self._result, self._verdict
        if verdict is not None and (result is None or self._interrupted or result.ending in _FOLLOWS_OUR_REQUEST):
            return verdict
        if result is not None and self._interrupted and self._asked is not None and self._memory is not None:
            # The trial has the last report, also where it took our request for an error of its own.
            asked = self._memory.ended_by(self._asked)
            return replace(asked, value=result.value if result.ending is Ending.STOPPED else None, loss=result.loss)
        return result or outcome_of_exit(exit_.returncode, has_begun=self._has_begun)

    def _with_memory(self, outcome: Outcome, exit_: ExitStatus) -> Outcome:
        """With the memory that was seen; decides the ending when memory ended the trial without our asking."""
        memory = self._memory
        if memory is None:
            return outcome
        killed_by = exit_.signum if self._result is None and self._verdict is None else None
        found = memory.explain(killed_by, exit_.peak_rss_bytes)
        # A result is worth more than another try, though the kernel has killed a part of the trial for a neighbour.
        has_result = outcome.ending in (Ending.COMPLETED, Ending.PRUNED)
        is_kept = outcome.ending in _DECIDED_BY_PEOPLE or (has_result and found and found.ending is Ending.KILLED)
        if found is not None and not is_kept:
            outcome = replace(found, loss=outcome.loss)
        return replace(outcome, memory=memory.trace())
