"""Objectives that work against their supervisor, by mistake or on purpose. Loaded as a user's file."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
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


def logs_without_end(params: dict[str, Any]) -> float:
    """A million calls, thousands of names, and what is no finite number."""
    for step in range(int(params["x"])):
        hn.log(step, loss=(1e308, float("nan"), float("-inf"), 5e-324)[step % 4])
    for _ in range(2):
        hn.log(2**31 - 1, **{f"metric {number}": float("inf") for number in range(3000)})
    return 1.0


def sends_too_many_curves(params: dict[str, Any]) -> float:
    _pipe().sendall(b'{"event": "metrics", "history": {"a": [' + b", ".join([b"[0, 1.0]"] * 1000) + b"]}}\n")
    return _wait()


def sends_a_curve_without_values(params: dict[str, Any]) -> float:
    _pipe().sendall(b'{"event": "metrics", "history": {"a": [[0, null]]}}\n')
    return _wait()


def sends_curves_without_end(params: dict[str, Any]) -> float:
    """Curves as large as a line may be, `x` times."""
    points = b", ".join(b"[%d, 0.%0120d]" % (step, step) for step in range(200))
    line = b'{"event": "metrics", "history": {%s}}\n' % b", ".join(b'"m%d": [%s]' % (n, points) for n in range(30))
    pipe = _pipe()
    for _ in range(int(params["x"])):
        pipe.sendall(line)
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


def reaches_what_it_must_not(params: dict[str, Any]) -> float:
    """Returns how much of it: files, the services by every way to a TCP port, other processes. Prints what."""
    supervisor, secret = int(os.environ.get("TEST_SUPERVISOR") or os.getppid()), Path(os.environ["TEST_SECRET"])
    own = Path(os.environ["HIGHNOON_WORK_DIR"])
    ports = [int(port) for port in os.environ["TEST_PORTS"].split(",")]
    attempts: dict[str, Any] = {
        "a secret file": secret.read_text,
        "a secret file by another path": lambda: Path("/proc/self/root", *secret.parts[1:]).read_text(),
        "a secret file by a link": lambda: _linked(own / "link", secret).read_text(),
        "a secret file by a program": lambda: subprocess.run(["cat", secret], check=True, capture_output=True),
        "a secret file by a rename": lambda: secret.rename(own / "moved"),
        "another study": lambda: [*own.parent.parent.iterdir()],
        "the study's code": lambda: Path(__file__).with_name("written.tmp").write_text(""),
        "a folder beyond": lambda: Path(tempfile.mkdtemp(dir="/tmp")).rmdir(),
        "the supervisor's memory": lambda: os.close(os.open(f"/proc/{supervisor}/mem", os.O_RDONLY)),
        "the supervisor's environment": lambda: Path(f"/proc/{supervisor}/environ").read_bytes(),
        "the supervisor by a signal": lambda: os.kill(supervisor, 0),
        "io_uring": _io_uring,
        "raw packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    }
    for port in ports:
        attempts |= {
            f"port {port}": lambda port=port: socket.create_connection(("127.0.0.1", port), 5),
            f"port {port} by IPv6": lambda port=port: _connected(port, socket.AF_INET6, 0, "::ffff:127.0.0.1"),
            f"port {port} by Multipath TCP": lambda port=port: _connected(port, socket.AF_INET, 262),
            f"port {port} by SMC": lambda port=port: _connected(port, 43, 0),
            f"port {port} by Fast Open": lambda port=port: socket.socket().sendto(b"", 1 << 29, ("127.0.0.1", port)),
            f"port {port} by a message": lambda port=port: socket.socket().sendmsg(
                [b""], (), 1 << 29, ("127.0.0.1", port)
            ),
        }
    reached = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, subprocess.CalledProcessError):
            continue
        reached.append(name)
    print("reached:", ", ".join(reached), flush=True)
    return float(len(reached))


def _linked(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


def _connected(port: int, family: int, protocol: int, address: str = "127.0.0.1") -> None:
    with socket.socket(family, socket.SOCK_STREAM, protocol) as client:
        client.connect((address, port))


def _io_uring() -> None:
    parameters = ctypes.create_string_buffer(120)
    if ctypes.CDLL(None, use_errno=True).syscall(425, 1, parameters) < 0:
        raise OSError(ctypes.get_errno(), "io_uring")


def works_as_usual(params: dict[str, Any]) -> float:
    """What trials do: files of their own, processes of three kinds, a data set, a port that is allowed, signals."""
    for folder in ("HIGHNOON_WORK_DIR", "HIGHNOON_CHECKPOINT_DIR", "TMPDIR", "TEST_DATA"):
        path = Path(os.environ[folder], "written")
        path.write_text("x")
        path.rename(path.with_name("renamed"))
    with tempfile.NamedTemporaryFile("w") as file, Path(os.devnull).open("w") as null:
        file.write("x")
        null.write("x")
    Path(__file__).read_text()
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
    with multiprocessing.Manager() as manager:
        manager.dict()["x"] = 1
    child = subprocess.Popen([sys.executable, "-c", "import ssl, json, time; time.sleep(60)"])
    child.terminate()
    assert child.wait() == -signal.SIGTERM
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as own:
        own.settimeout(5)
        try:
            own.connect(server.getsockname())
        except PermissionError:
            print("its own port is refused")
    socket.create_connection(("127.0.0.1", int(os.environ["TEST_OPEN_PORT"])), 5).close()
    socket.getaddrinfo("localhost", 80)
    return 1.0
