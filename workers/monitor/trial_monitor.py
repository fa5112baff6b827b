"""Watching one trial process: events in, an Outcome out. The only place that decides how an attempt ended.

Owns time limits, the ladder from a polite request to SIGKILL, and the reading of exit statuses. What must be
asked or told outside (pruning, renewal, drain) comes in as `Duties`, what the trial holds as `TrialMemory`; this file
knows no database.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import Protocol

from highnoon.shared.domain.lease import Wish
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.trial import Outcome, ParamCount, Report
from highnoon.shared.memory.guard import Kind, Verdict
from highnoon.workers.monitor.memory_policy import stopped
from highnoon.workers.monitor.trial_memory import TrialMemory
from highnoon.workers.trial.launch import Exit, Running, now_s, wait_any
from highnoon.workers.trial.output import Output
from highnoon.workers.trial.pipe import PIPE_VERSION, Event, count_of, report_of

_OWN_FAULT = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
)
"""Signals that a process brings upon itself. The others came from outside."""

_COMES_OF_OUR_ASKING = frozenset({Ending.STOPPED, Ending.CANCELLED, Ending.FAILED})
"""What a trial may say that was asked to end, if only by SIGTERM."""

_DECIDED_BY_PEOPLE = frozenset({Ending.CANCELLED, Ending.RELEASED})

_LOOK_S = 0.5
"""How often drain and deadlines are looked at."""

_RENEW_AGAIN_S = 1.0
"""After an outage holders must be quicker than the reaper, which waits for a whole lease."""


class Duties(Protocol):
    """What the supervisor does for the trial while it runs. May raise LeaseLost: the trial is killed."""

    def take_report(self, report: Report) -> None:
        """Keeps one intermediate value."""

    def should_prune(self) -> bool:
        """The pruner's answer for the reports so far."""

    def renew(self) -> Wish | None:
        """Renews the lease; says what study and node want. None while the database is away."""

    def must_hand_back(self) -> bool:
        """True when the node drains and its time is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds; None means none."""

    trial_timeout_s: float | None
    stall_timeout_s: float | None
    renew_s: float
    kill_grace_s: float


class Watch:
    """One attempt, from its launch to the Outcome."""

    def __init__(
        self, running: Running, output: Output, duties: Duties, limits: Limits, memory: TrialMemory | None = None
    ) -> None:
        self._running = running
        self._output = output
        self._duties = duties
        self._limits = limits
        # None where memory cannot be told apart from the supervisor's own: isolation "none".
        self._memory = memory
        self._began_at = self._progress_at = now_s()
        self._renew_at = self._began_at + limits.renew_s
        self._count: ParamCount | None = None
        self._result: Outcome | None = None
        # True when our signal was raised in the objective: whatever it made of it, also a number, comes of that.
        self._interrupted = False
        # Set once the supervisor wants the trial to end: the Outcome if the trial has none of its own.
        self._verdict: Outcome | None = None
        self._verdict_at = 0.0
        self._terminated = False
        # A request that no signal follows: the trial may be over before it hears of it, and then its result stands.
        self._asked: Verdict | None = None
        self._is_killed = False

    def run(self) -> Outcome:
        """Waits for the end of the trial. Raises what `duties` raises; the caller cleans up in any case."""
        while True:
            ended = self._running.poll() is not None
            self._take_events(self._wait(0.0 if ended else self._next_duty_s()))
            if ended:
                self._take_the_rest()
            if ended or self._result is not None or self._is_beyond_reach():
                return self._conclude()
            self._judge_memory()
            self._renew_if_due()
            self._judge_time()
            self._climb_the_ladder()

    def _wait(self, timeout_s: float) -> list[Event]:
        pipe = self._running.pipe
        descriptors = [*self._running.wakers(), *([] if pipe.closed else [pipe.fileno()])]
        if not self._output.ended:
            descriptors.append(self._output.fileno())
        wait_any(descriptors, timeout_s)
        self._output.drain()
        return pipe.receive(0.0)

    def _take_events(self, events: list[Event]) -> None:
        for event in events:
            match event["event"]:
                case "report":
                    self._progress_at = now_s()
                    self._duties.take_report(report_of(event))
                case "params":
                    self._count = count_of(event)
                case "ask":
                    answer = self._duties.should_prune()
                    self._running.pipe.send_nowait({"event": "answer", "id": event["id"], "answer": answer})
                case "result":
                    self._result = Outcome.from_json(event["outcome"])
                    self._interrupted = event["interrupted"]
                case "hello" if event["version"] != PIPE_VERSION:
                    message = f"trial process speaks pipe version {event['version']}, supervisor {PIPE_VERSION}"
                    self._end(Outcome(ending=Ending.FAILED, cause="version", message=message))

    def _take_the_rest(self) -> None:
        """What a dead trial had still written; a torn last line is dropped by the pipe."""
        while events := self._running.pipe.receive(0.0):
            self._take_events(events)
        self._output.drain()

    def _next_duty_s(self) -> float:
        look_s = _LOOK_S if self._memory is None or self._is_killed else self._memory.due_in_s()
        return min(_LOOK_S, look_s, self._renew_at - now_s())

    def _judge_memory(self) -> None:
        """Before everything that may wait for a database: memory does not."""
        if self._memory is None or self._is_killed or self._memory.due_in_s() > 0:
            return
        verdict = self._memory.look()
        if verdict.kind is Kind.KILL:
            self._is_killed = True
            self._end(self._stopped(verdict, self._memory))
            self._memory.kill()
            self._running.kill(signal.SIGKILL)
        elif verdict.kind is Kind.STOP and self._asked is None:
            self._asked = verdict
            self._running.pipe.send_nowait({"event": "stop", "reason": verdict.message})

    def _stopped(self, verdict: Verdict, memory: TrialMemory) -> Outcome:
        return stopped(
            verdict.cause, verdict.message, peak_bytes=memory.peak_bytes, limit_bytes=memory.limits.hard_bytes
        )

    def _renew_if_due(self) -> None:
        if now_s() < self._renew_at:
            return
        wish = self._duties.renew()
        self._renew_at = now_s() + (self._limits.renew_s if wish is not None else _RENEW_AGAIN_S)
        if wish is Wish.CANCEL:
            self._end(Outcome(ending=Ending.CANCELLED, cause="cancelled", message="cancelled by a person"))

    def _judge_time(self) -> None:
        limits, now = self._limits, now_s()
        if self._duties.must_hand_back():
            self._end(
                Outcome(ending=Ending.RELEASED, cause="drain", message="handed back: the worker is shutting down")
            )
        elif limits.trial_timeout_s is not None and now - self._began_at > limits.trial_timeout_s:
            message = f"over trial_timeout ({limits.trial_timeout_s:g} s)"
            self._end(Outcome(ending=Ending.TIMED_OUT, cause="timeout", message=message))
        elif limits.stall_timeout_s is not None and now - self._progress_at > limits.stall_timeout_s:
            message = f"no report for stall_timeout ({limits.stall_timeout_s:g} s)"
            self._end(Outcome(ending=Ending.TIMED_OUT, cause="stalled", message=message))

    def _end(self, verdict: Outcome) -> None:
        """Asks the trial to stop at its next report. The first verdict stands."""
        if self._verdict is not None:
            return
        self._verdict, self._verdict_at = verdict, now_s()
        event = "cancel" if verdict.ending is Ending.CANCELLED else "stop"
        self._running.pipe.send_nowait({"event": event, "reason": verdict.message})

    def _climb_the_ladder(self) -> None:
        if self._verdict is None:
            return
        asked_for_s, grace_s = now_s() - self._verdict_at, self._limits.kill_grace_s
        if asked_for_s > 2 * grace_s:
            self._running.kill(signal.SIGKILL)
        elif asked_for_s > grace_s and not self._terminated:
            self._terminated = True
            self._running.kill(signal.SIGTERM)

    def _is_beyond_reach(self) -> bool:
        """Only isolation "none" can outlive SIGKILL."""
        return self._verdict is not None and now_s() - self._verdict_at > 3 * self._limits.kill_grace_s

    def _conclude(self) -> Outcome:
        exit_ = self._await_exit()
        return replace(
            self._sized(self._remembered(self._ending(exit_), exit_)),
            exit_status=exit_.status,
            signal=None if exit_.signum is None else signal.Signals(exit_.signum).name,
            peak_rss_bytes=exit_.peak_rss_bytes,
            duration_s=now_s() - self._began_at,
            log_tail=self._output.tail(),
        )

    def _await_exit(self) -> Exit:
        """After its result a trial leaves at once; one that does not is killed, and the result stands."""
        deadline = now_s() + self._limits.kill_grace_s
        while (exit_ := self._running.poll()) is None and now_s() < deadline:
            wait_any(self._running.wakers(), min(0.01, self._limits.kill_grace_s))
            self._output.drain()
        self._output.drain()
        if exit_ is None:
            self._running.kill(signal.SIGKILL)
        return exit_ or Exit()

    def _sized(self, outcome: Outcome) -> Outcome:
        """With the size that a trial said before it was killed."""
        if self._count is None or outcome.params_count is not None:
            return outcome
        return replace(outcome, params_count=self._count.total, active_params=self._count.active)

    def _ending(self, exit_: Exit) -> Outcome:
        result, verdict = self._result, self._verdict
        if verdict is not None and (result is None or self._interrupted or result.ending in _COMES_OF_OUR_ASKING):
            return verdict
        if result is not None and self._interrupted and self._asked is not None and self._memory is not None:
            # The trial has the last report, also where it took our signal for a fault of its own.
            asked = self._stopped(self._asked, self._memory)
            return replace(asked, value=result.value if result.ending is Ending.STOPPED else None, loss=result.loss)
        return result or ending_of(exit_)

    def _remembered(self, outcome: Outcome, exit_: Exit) -> Outcome:
        """With what memory was seen to be; and what it ended without a word of ours."""
        memory = self._memory
        if memory is None:
            return outcome
        killed_by = exit_.signum if self._result is None and self._verdict is None else None
        found = memory.explain(killed_by, exit_.peak_rss_bytes)
        if found is not None and outcome.ending not in _DECIDED_BY_PEOPLE:
            outcome = replace(found, loss=outcome.loss)
        return replace(outcome, memory=memory.trace())


def ending_of(exit_: Exit) -> Outcome:
    """The Outcome of a trial process that ended without a result and without our asking."""
    if exit_.signum is None:
        message = f"the trial process exited with status {exit_.status} before the objective returned"
        return Outcome(ending=Ending.FAILED, cause="exited", message=message)
    name = signal.Signals(exit_.signum).name
    if exit_.signum in _OWN_FAULT:
        return Outcome(ending=Ending.FAILED, cause="crashed", message=f"the trial process crashed with {name}")
    return Outcome(ending=Ending.KILLED, cause="signal", message=f"the trial process was killed by {name}")
