"""The private pipe between a trial process and the process that started it: one JSON object per line, versioned.

    trial -> supervisor   {"event": "hello", "version": 1}
                          {"event": "params", "total": 1200, "active": null}
                          {"event": "report", "step": 3, "value": 0.2}     (a score, as the result's value is)
                          {"event": "progress"}              (instead of a report that is not the study's)
                          {"event": "ask", "id": 1, "question": "should_prune"}
                          {"event": "ask", "id": 2, "question": "suggest", "name": "rate", "domain": "{...}"}
                          {"event": "ask", "id": 3, "question": "relative_params"}
                          {"event": "set", "kind": "user_attr" or "constraint", "key": "size", "value": 3}
                          {"event": "metrics", "history": {"accuracy": [[0, 0.5], [1, 0.7]]}}     (all of it so far)
                          {"event": "file", "file": "3", "name": "model.keras"}   (in its folder; null: its checkpoint)
                          {"event": "result", "outcome": {...}, "interrupted": false}     (value and loss)
    supervisor -> trial   {"event": "assignment", ...}          (the first line, except with isolation "none")
                          {"event": "answer", "id": 1, "answer": true}     (2, 3: {"value": ...} or {"error": ...})
                          {"event": "answer", "id": 4, "answer": false, "safe": {...}}           (a SafeReports)
                          {"event": "stop", "reason": "drain"}  (raises TrialStopped at the next report)
                          {"event": "cancel"}                   (raises TrialCancelled)

A process killed in the middle of a line leaves a torn line, and a torn line is no event. Where something else than
events comes through, the last event is {"event": "fault", "reason": ...}, and nothing more is read.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from typing import Any

from highnoon.shared.domain.errors import TrialCancelled, TrialStopped
from highnoon.shared.domain.trial import MetricHistory, Outcome, Params
from highnoon.shared.objective.held_events import HeldEvents
from highnoon.shared.objective.prune_questions import PruneQuestions
from highnoon.shared.objective.staged_files import SavedFile

PIPE_VERSION = 1

_CHUNK_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 20
Event = dict[str, Any]


class Pipe:
    """One end. Sends whole lines, receives whole lines; `closed` is set when the other end is gone.

    `received_bytes` counts what has come, whole lines or not.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = b""
        self.closed = False
        self.received_bytes = 0

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, *events: Event) -> None:
        """Blocks while the other end does not read. Sets `closed` where the other end is gone."""
        try:
            self._socket.sendall(b"".join(json.dumps(event).encode() + b"\n" for event in events))
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True

    def send_nowait(self, event: Event) -> None:
        """As `send`, but drops the event when the other end's buffer is full: it does not read anyway."""
        line = json.dumps(event).encode() + b"\n"
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._socket.send(line, socket.MSG_DONTWAIT)

    def receive(self, timeout_s: float | None) -> list[Event]:
        """The whole lines that have come, after waiting at most `timeout_s` (None: for ever) for the first.

        Takes no more than the longest line and a chunk, so that no flood holds its reader.
        """
        while not self.closed:
            # `select` itself watches no file beyond the 1,024th. Made for each wait: a fork beside one may report, too.
            readable = select.poll()
            readable.register(self._socket, select.POLLIN)
            if not readable.poll(None if timeout_s is None else timeout_s * 1000):
                return []
            try:
                chunk = self._socket.recv(_CHUNK_BYTES)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                self.closed = True
                break
            self.received_bytes += len(chunk)
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            if lines or len(self._buffer) > _LONGEST_LINE_BYTES:
                return self._events(lines)
        return []

    def _events(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in [*lines, *([self._buffer] if len(self._buffer) > _LONGEST_LINE_BYTES else [])]:
            event = _event(line)
            if event is None:
                self.closed, self._buffer = True, b""
                what = repr(line[:60])
                return [*events, {"event": "fault", "reason": f"{what} ({len(line):,} bytes) is no event"}]
            events.append(event)
        return events

    def close(self) -> None:
        """Gives the descriptor back."""
        self._socket.close()


class PipeChannel:
    """The trial's end as a `shared.objective.trial_context.Channel`. Safe to call from any thread of the trial."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._events = HeldEvents(pipe)
        self._questions = 0
        self._about_pruning = PruneQuestions()
        self._interruption: Event | None = None
        self._interrupted = False

    def hello(self) -> None:
        """The first line of every trial process."""
        self._pipe.send({"event": "hello", "version": PIPE_VERSION})

    def report(self, value: float, step: int) -> None:
        """Sends soon and does not wait: training never waits for the database."""
        self._about_pruning.note(value, step)
        self._send({"event": "report", "step": step, "value": value}, soon=True)

    def report_params(self, total: int, active: int | None = None) -> None:
        """Sends at once, so that the supervisor knows the size of a trial that is killed."""
        self._send({"event": "params", "total": total, "active": active})

    def progress(self) -> None:
        """Sends a sign of life, for the time limit on trials that report nothing."""
        self._send({"event": "progress"}, soon=True)

    def should_prune(self) -> bool:
        """Asks the supervisor and waits, unless the answer is certain; False when it is gone (then so is this process,
        in a moment)."""
        if self._about_pruning.can_skip():
            with self._events.lock:
                self._keep_interruption(self._pipe.receive(0.0))
            self._raise_interruption()
            return False
        reply = self._ask("should_prune")
        self._about_pruning.set_safe_reports(reply.get("safe"))
        return bool(reply.get("answer"))

    def suggest(self, name: str, domain: str) -> float | int:
        """As `defined_trial.SuggestionChannel` describes it; waits for the supervisor, and that for the database."""
        value: float | int = self._value("suggest", name=name, domain=domain)
        return value

    def relative_params(self) -> Params:
        """What the sampler chose jointly."""
        params: Params = self._value("relative_params")
        return params

    def set_attr(self, key: str, value: Any) -> None:
        """Sends and does not wait."""
        self._send({"event": "set", "kind": "user_attr", "key": key, "value": value})

    def set_constraint(self, key: str, value: float) -> None:
        """Sends and does not wait."""
        self._send({"event": "set", "kind": "constraint", "key": key, "value": value})

    def save_file(self, saved: SavedFile) -> None:
        """Sends and does not wait."""
        self._send({"event": "file", "file": saved.file, "name": saved.name})

    def keep_history(self, history: MetricHistory) -> None:
        """Sends and does not wait."""
        self._send({"event": "metrics", "history": history})

    def result(self, outcome: Outcome) -> None:
        """The last line."""
        with self._events.lock:
            self._events.send({"event": "result", "outcome": outcome.to_json(), "interrupted": self._interrupted})

    def _send(self, event: Event, *, soon: bool = False) -> None:
        with self._events.lock:
            if soon:
                self._events.hold(event)
            else:
                self._events.send(event)
            self._keep_interruption(self._pipe.receive(0.0))
        self._raise_interruption()

    def _ask(self, question: str, **more: str) -> Event:
        """The reply; an empty one when the supervisor is gone."""
        with self._events.lock:
            self._questions += 1
            self._events.send({"event": "ask", "id": self._questions, "question": question, **more})
            reply = self._await_reply(self._questions)
        self._raise_interruption()
        return reply

    def _value(self, question: str, **more: str) -> Any:
        answer = self._ask(question, **more).get("answer")
        if not answer:
            raise TrialStopped("the supervisor of this trial is gone")
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]

    def _await_reply(self, question: int) -> Event:
        while not self._pipe.closed:
            events = self._pipe.receive(None)
            self._keep_interruption(events)
            for event in events:
                if event["event"] == "answer" and event["id"] == question:
                    return event
        return {}

    def _keep_interruption(self, events: list[Event]) -> None:
        for event in events:
            if event["event"] in ("stop", "cancel"):
                self._interruption = event

    def _raise_interruption(self) -> None:
        if self._interruption is None:
            return
        self._interrupted = True
        if self._interruption["event"] == "cancel":
            raise TrialCancelled("cancelled by a person")
        raise TrialStopped(self._interruption["reason"])


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
        return event if isinstance(event["event"], str) else None
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None
