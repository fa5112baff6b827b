"""Objectives that work against their supervisor, by mistake or on purpose. Loaded as a user's file."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import highnoon as hn


def _pipe() -> socket.socket:
    """The trial's own pipe: its only socket."""
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                return socket.socket(fileno=os.dup(number))
        except OSError:
            continue
    raise LookupError("no pipe")


def _wait(seconds: float = 60.0) -> float:
    time.sleep(seconds)
    return 0.0


def writes_garbage(params: dict[str, Any]) -> float:
    _pipe().sendall(b"\x00\xff hello\n")
    return _wait()


def writes_a_list(params: dict[str, Any]) -> float:
    _pipe().sendall(b"[1, 2]\n")
    return _wait()


def writes_a_line_without_end(params: dict[str, Any]) -> float:
    while True:
        _pipe().sendall(b"x" * 65536)


def sends_a_huge_line(params: dict[str, Any]) -> float:
    _pipe().sendall(b'{"event": "report", "step": 1, "value": 1.0, "more": "' + b"x" * 10_000_000 + b'"}\n')
    return _wait()


def sends_half_a_report(params: dict[str, Any]) -> float:
    _pipe().sendall(b'{"event": "report", "step": 1}\n')
    return _wait()


def sends_a_huge_step(params: dict[str, Any]) -> float:
    _pipe().sendall(b'{"event": "report", "step": 2147483648, "value": 1.0}\n')
    return _wait()


def sends_a_wrong_result(params: dict[str, Any]) -> float:
    _pipe().sendall(b'{"event": "result", "outcome": {"ending": "released"}, "interrupted": false}\n')
    return _wait()


def sends_a_result_of_wrong_types(params: dict[str, Any]) -> float:
    outcome = b'{"ending": "completed", "value": 1.0, "message": 5, "params_count": "many"}'
    _pipe().sendall(b'{"event": "result", "outcome": ' + outcome + b', "interrupted": false}\n')
    return _wait()


def asks_without_waiting(params: dict[str, Any]) -> float:
    question = b'{"event": "ask", "id": 1, "question": "suggest", "name": "x", "domain": "{}"}\n'
    _pipe().sendall(question * 100_000)
    return _wait()


def sets_a_huge_attribute(params: dict[str, Any]) -> float:
    _pipe().sendall(b'{"event": "set", "kind": "user_attr", "key": "k", "value": "' + b"x" * 600_000 + b'"}\n')
    return _wait()


def reports_a_huge_step(params: dict[str, Any]) -> float:
    hn.report(1.0, time.time_ns())
    return 1.0


def reports_without_end(params: dict[str, Any]) -> float:
    """As fast as it can, as a loop over single samples would."""
    for step in range(int(params["x"])):
        hn.report(float(step), step)
    return 1.0


def reports_10_mb_at_once(params: dict[str, Any]) -> float:
    lines = [b'{"event": "report", "step": %d, "value": 0.5}\n' % step for step in range(200_000)]
    _pipe().sendall(b"".join(lines))
    return 1.0


def leaves_a_child_with_its_pipe(params: dict[str, Any]) -> float:
    """The child writes reports and output for ever."""
    if os.fork() == 0:
        os.setsid()
        pipe = _pipe()
        while True:
            pipe.sendall(b'{"event": "report", "step": 1, "value": 0.5}\n')
            os.write(1, b"child\n")
    if params["x"] < 0:
        os._exit(3)
    return 1.0


def stops_its_parent(params: dict[str, Any]) -> float:
    os.kill(os.getppid(), signal.SIGSTOP)
    return 1.0 if params["x"] > 0 else _wait()


def leaves_daemons(params: dict[str, Any]) -> float:
    """Each in a session of its own; half of them are orphans at once."""
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    for _ in range(4):
        print("daemon", subprocess.Popen(sleep, start_new_session=True).pid, flush=True)
        orphan = f"import subprocess, sys; print('daemon', subprocess.Popen({sleep!r}, start_new_session=True).pid)"
        subprocess.run([sys.executable, "-c", orphan], check=True)
    if params["x"] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    go = os.environ.get("TEST_GO_FILE")
    while go is not None and not Path(go).exists():
        time.sleep(0.02)
    return 1.0


def ends_by_a_real_time_signal(params: dict[str, Any]) -> float:
    os.kill(os.getpid(), signal.SIGRTMIN + 3)
    return _wait()
