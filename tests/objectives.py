"""Objectives that misbehave, each by its name, and two that do not. Loaded by trial processes as a user's file."""

from __future__ import annotations

import atexit
import ctypes
import json
import multiprocessing
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import highnoon as hn


def good(params: dict[str, Any]) -> float:
    """A parabola with its minimum at x = 2; prints what it does."""
    print(f"x = {params['x']}")
    return (float(params["x"]) - 2.0) ** 2


def noop(params: dict[str, Any]) -> float:
    return 0.0


def logs(params: dict[str, Any]) -> dict[str, float]:
    for step, value in enumerate((0.0, 0.5, float("nan"))):
        hn.log(step, accuracy=value)
    return {"loss": 1.0, "f1": 0.5}


def logs_and_dies(params: dict[str, Any]) -> float:
    """Logs for some seconds."""
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        hn.log(accuracy=time.monotonic())
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def noisy(params: dict[str, Any]) -> float:
    return float(params["x"]) + hn.trial_seed() / 2**32


def slow(params: dict[str, Any]) -> float:
    """A fifth of a second, with a report in the middle."""
    time.sleep(0.1)
    hn.report(1.0, 0)
    time.sleep(0.1)
    return (float(params["x"]) - 2.0) ** 2


def slow_unless_held(params: dict[str, Any]) -> float:
    """As `slow`; while a file `<study>.hold` is there, it writes into another file which process waits, and waits."""
    hold = Path(os.environ["TEST_GO_FOLDER"]) / f"{os.environ['HIGHNOON_STUDY']}.hold"
    value = slow(params)
    if hold.exists():
        hold.with_suffix(f".{os.getpgrp()}").touch()
    while hold.exists():
        time.sleep(0.02)
    return value


def patient(params: dict[str, Any]) -> float:
    """Runs until the file `go` appears beside the study; reports all the while."""
    for step in range(100_000):
        if Path(os.environ["TEST_GO_FILE"]).exists():
            return float(params["x"])
        hn.report(float(step), step)
        time.sleep(0.02)
    raise TimeoutError("the test has not let it end")


def patient_by_study(params: dict[str, Any]) -> float:
    """As `patient`, for many studies in one cluster: each waits for a file of its own name."""
    go = Path(os.environ["TEST_GO_FOLDER"]) / os.environ["HIGHNOON_STUDY"]
    print("waiting", flush=True)
    for step in range(100_000):
        if go.exists():
            return float(params["x"])
        hn.report(float(step), step)
        time.sleep(0.02)
    raise TimeoutError("the test has not let it end")


def leaves_slowly(params: dict[str, Any]) -> float:
    """Its `atexit` function runs until the file `go` appears, as an upload would; it makes the file `leaving` first."""
    go = Path(os.environ["TEST_GO_FILE"])

    def upload() -> None:
        go.with_name("leaving").touch()
        while not go.exists():
            time.sleep(0.02)

    atexit.register(upload)
    return float(params["x"])


def leaves_threads(params: dict[str, Any]) -> float:
    """A thread and a pool work until the file `go` appears, and its `atexit` function needs what both have done. Leaves
    a file open."""
    go, done = Path(os.environ["TEST_GO_FILE"]), []
    table = go.with_name("table.csv").open("w")
    table.write("written before the result\n")

    def work(name: str) -> None:
        go.with_name("leaving").touch()
        while not go.exists():
            time.sleep(0.02)
        done.append(name)

    threading.Thread(target=work, args=("thread",)).start()
    ThreadPoolExecutor(1).submit(work, "pool")
    atexit.register(lambda: print("done:", sorted(done), table.name, flush=True))
    return float(params["x"])


def silent_by_study(params: dict[str, Any]) -> float:
    """As `patient_by_study`, and reports nothing."""
    go = Path(os.environ["TEST_GO_FOLDER"]) / os.environ["HIGHNOON_STUDY"]
    while not go.exists():
        time.sleep(0.02)
    return float(params["x"])


def leaks_when_told(params: dict[str, Any]) -> float:
    """Waits for the file `leak`, then takes memory without end; writes down when it has 200 MB."""
    folder = Path(os.environ["TEST_GO_FOLDER"])
    while not (folder / "leak").exists():
        time.sleep(0.02)
    held = []
    while True:
        held.append(b"x" * (10 << 20))
        if len(held) == 20:
            (folder / "full.new").write_text(str(time.monotonic()))
            (folder / "full.new").rename(folder / "full")
        time.sleep(0.02)


def fails_where_broken(params: dict[str, Any]) -> float:
    """Ends at once on a node that has the file `TEST_BROKEN`; on others as `slow`."""
    if Path(os.environ.get("TEST_BROKEN", "/nonexistent")).exists():
        raise OSError("no such device")
    return slow(params)


def fails_for_half(params: dict[str, Any]) -> float:
    if params["x"] < 0:
        raise ValueError("x is negative")
    return float(params["x"])


def wraps_what_stops_it(params: dict[str, Any]) -> float:
    """Reports until it is stopped, and takes our signal for a fault of its own."""
    try:
        for step in range(100_000):
            hn.report(float(step), step)
            time.sleep(0.02)
    except Exception as error:
        raise RuntimeError("training broke") from error
    return 0.0


def makes_a_number_of_what_stops_it(params: dict[str, Any]) -> float:
    """As many objectives do: whatever goes wrong is a bad score."""
    try:
        for step in range(100_000):
            hn.report(float(step), step)
            time.sleep(0.02)
    except Exception:
        return float("inf")
    return 0.0


def leaves_a_thread(params: dict[str, Any]) -> float:
    """Without isolation this thread stays in the supervisor."""
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return 0.0


def kills_its_fork_server(params: dict[str, Any]) -> float:
    os.kill(os.getppid(), signal.SIGKILL)
    return float(signal.pause())  # type: ignore[func-returns-value]


def kills_its_supervisor(params: dict[str, Any]) -> float:
    """The process that has made its pipe, which is its only socket."""
    (pipe,) = [int(path.name) for path in Path("/proc/self/fd").iterdir() if path.is_socket()]
    with socket.socket(fileno=os.dup(pipe)) as ours:
        pid, _, _ = struct.unpack("3i", ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    os.kill(pid, signal.SIGKILL)
    return float(signal.pause())  # type: ignore[func-returns-value]


def reports_and_prunes(params: dict[str, Any]) -> float:
    for step in range(10):
        hn.report(float(params["x"]) + step, step)
        if hn.should_prune():
            raise hn.TrialPruned
    return float(params["x"])


def sized(params: dict[str, Any]) -> float:
    """Reports its size, then its loss twice; both are fixed by x."""
    hn.report_params(500, active_params=200)
    hn.report(float(params["x"]), 0)
    hn.report(float(params["x"]), 1)
    return float(params["x"])


def returns_its_size(params: dict[str, Any]) -> dict[str, Any]:
    return {"loss": float(params["x"]), "params": 500}


def says_its_size_and_dies(params: dict[str, Any]) -> float:
    hn.report_params(500)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def too_large(params: dict[str, Any]) -> float:
    hn.report_params(1500)
    print("training begins")
    return 0.5


def raises(params: dict[str, Any]) -> float:
    print("about to divide")
    return 1 / 0


def returns_none(params: dict[str, Any]) -> None:
    return None


def returns_nan(params: dict[str, Any]) -> float:
    return float("nan")


def returns_text(params: dict[str, Any]) -> str:
    return "0.5"


def returns_tuple(params: dict[str, Any]) -> tuple[float, float]:
    return 0.5, 0.9


def exits(params: dict[str, Any]) -> float:
    sys.exit(3)


def exits_hard(params: dict[str, Any]) -> float:
    print("leaving", flush=True)
    os._exit(3)


def segfaults(params: dict[str, Any]) -> float:
    ctypes.string_at(0)
    return 0.0


def kills_itself(params: dict[str, Any]) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def hangs(params: dict[str, Any]) -> float:
    while True:
        time.sleep(60)


def hangs_in_c(params: dict[str, Any]) -> float:
    """Holds the GIL: no Python code of this process runs any more."""
    ctypes.PyDLL(None).sleep(3600)
    return 0.0


def ignores_sigterm(params: dict[str, Any]) -> float:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def prints_a_million_lines(params: dict[str, Any]) -> float:
    for number in range(1_000_000):
        print(f"line {number}")
    return 0.0


def leaves_children(params: dict[str, Any]) -> float:
    """A child that would outlive it; its pid is printed for the test."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"child {child.pid}", flush=True)
    return 0.0


def uses_multiprocessing(params: dict[str, Any]) -> float:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return float(sum(pool.map(abs, [-1, -2])))


def shows_surroundings(params: dict[str, Any]) -> float:
    """Where it runs, what it can read, and random numbers."""
    print(f"cwd {Path.cwd()}")
    print(f"work {os.environ['HIGHNOON_WORK_DIR']}")
    print(f"tmp {Path(os.environ['TMPDIR']).resolve()}")
    print("secrets " + ",".join(sorted(name for name in os.environ if "URL" in name or "TOKEN" in name)))
    print(f"sockets {_open_sockets()}")
    print(f"session {os.getsid(0) == os.getpid()}")
    print(f"random {random.random()}")
    return 0.0


def shows_descriptors(params: dict[str, Any]) -> float:
    print("TEST_SHOWN", os.environ.get("TEST_SHOWN"))
    for path in Path("/proc/self/fd").iterdir():
        if path.is_symlink():
            print(path.name, path.readlink())
    return 0.0


def shows_its_gpu(params: dict[str, Any]) -> float:
    """Long enough for another slot to take the next trial."""
    print(f"gpu {os.environ.get('CUDA_VISIBLE_DEVICES')} growth {os.environ.get('TF_FORCE_GPU_ALLOW_GROWTH')}")
    time.sleep(0.3)
    return 0.0


def writes_a_file(params: dict[str, Any]) -> float:
    Path(os.environ["HIGHNOON_WORK_DIR"], "weights.txt").write_text("1.0")
    return 0.0


def _open_sockets() -> int:
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(link.startswith("socket:") for link in links)


def shows_memory_policy(params: dict[str, Any]) -> float:
    """The thresholds that a memory guard of this trial works with."""
    manager = hn.EnterpriseMemoryManager()
    print(f"policy {manager.policy.warning_fraction} {manager.policy.grace_steps} {manager.prefetch_buffer_size}")
    return 0.0


def allocates_three_times(params: dict[str, Any]) -> float:
    """Three times the 200 MiB that it may hold, in one call that touches each page; then it is in no hurry."""
    import numpy

    held = numpy.ones(600 << 20, dtype=numpy.uint8)
    time.sleep(30)
    return float(held[0])


def grows_holding_the_gil(params: dict[str, Any]) -> float:
    """100 MB/s, and no Python code of this process runs meanwhile: neither reports nor signals are heard."""
    libc = ctypes.PyDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    for _ in range(100):
        libc.memset(libc.malloc(10_000_000), 1, 10_000_000)
        libc.usleep(100_000)
    return 0.0


def feeds_a_child(params: dict[str, Any]) -> float:
    """The child eats, in a session of its own; this process takes its death for a detail."""
    eater = "held = bytearray()\nwhile True: held.extend(b'x' * 4_000_000)"
    subprocess.run([sys.executable, "-c", eater], start_new_session=True, check=False)
    return 0.0


def fills_up_slowly_and_reports(params: dict[str, Any]) -> float:
    """Comes to rest at some 170 MiB."""
    held = []
    for step in range(10_000):
        if step < 160:
            held.append(b"x" * (1 << 20))
        else:
            hn.report(1.0, step)
            time.sleep(0.02)
    return 0.0


def holds_60_mib(params: dict[str, Any]) -> float:
    """Holds 60 MiB for a moment."""
    held = b"x" * (60 << 20)
    time.sleep(0.2)
    return float(len(held) > 0)


def holds_60_mib_and_waits(params: dict[str, Any]) -> float:
    """Until a file of its study's name is there."""
    held = b"x" * (60 << 20)
    return patient_by_study(params) * len(held) / len(held)


never_freed: list[bytes] = []


def leaks_50_mib(params: dict[str, Any]) -> float:
    """Holds what every trial before it in the same process had held as well."""
    never_freed.append(b"x" * (50 << 20))
    return float(len(never_freed))


def outgrows_its_memory(params: dict[str, Any]) -> float:
    """A gigabyte and a half, all of which it goes on touching."""
    held = [bytearray(b"x" * (10 << 20)) for _ in range(150)]
    while True:
        for block in held:
            block[:: 1 << 12] = b"y" * len(block[:: 1 << 12])


def suggests_one(trial: Any) -> float:
    """Its value is its parameter."""
    return float(trial.suggest_float("x", 0, 1))


def sets_attributes(trial: Any) -> float:
    """One for each of 50 steps."""
    for step in range(50):
        trial.set_user_attr(f"loss_{step}", step)
    return 1.0


def suggests(trial: Any) -> float:
    """Defines its space as it runs; its process or its supervisor is killed at the first attempt of some tickets."""
    loss = abs(trial.suggest_float("x", -5, 5))
    for layer in range(trial.suggest_int("layers", 1, 3)):
        loss += trial.suggest_int(f"units_{layer}", 8, 64, log=True) / 100
    if trial.suggest_categorical("optimizer", ["adam", "sgd", None]) == "sgd":
        loss += trial.suggest_float("momentum", 0, 1)
    ticket, attempt = int(os.environ["HIGHNOON_TICKET"]), int(os.environ["HIGHNOON_ATTEMPT"])
    note = Path(os.environ["TEST_GO_FOLDER"], f"{os.environ['HIGHNOON_STUDY']}-{ticket}-{attempt}.json")
    note.write_text(json.dumps({"number": trial.number, "params": trial.params}))
    if attempt == 1 and ticket % 4 == 0:
        kills_itself({})
    if attempt == 1 and ticket % 10 == 5:
        kills_its_supervisor({})
    trial.set_user_attr("attempt", attempt)
    trial.set_constraint("loss", loss - 100)
    trial.report(loss, 0)
    trial.should_prune()
    trial.set_user_attr("last", True)
    return float(loss + trial.suggest_float("after the report", 0, 1))


def saves_files(params: dict[str, Any]) -> float:
    """A model that is written over, and a plot."""
    folder = Path(os.environ["HIGHNOON_WORK_DIR"])
    model = folder / "model.txt"
    for text in ("early", f"x = {params['x']}"):
        model.write_text(text)
        hn.save_artifact(model)
        hn.report(float(params["x"]), len(text))
    (folder / "plot.txt").write_text(f"plot of {params['x']}")
    hn.save_artifact(folder / "plot.txt")
    return float(params["x"])


STEPS, PAUSE_S = 60, 0.1


def descends(params: dict[str, Any]) -> float:
    """A descent with noise, whose whole state is saved at each step."""
    import numpy as np

    noise, weights, step = np.random.default_rng(7), np.zeros(4), 0
    saved = hn.checkpoint_dir() / "state.json"
    if saved.exists():
        state = json.loads(saved.read_text())
        step, weights = state["step"], np.array(state["weights"])
        noise.bit_generator.state = state["noise"]
    loss = float("inf")
    while step < STEPS:
        step += 1
        weights -= 0.1 * (weights - params["x"] + noise.normal(size=4))
        loss = float(np.sum((weights - params["x"]) ** 2))
        state = {"step": step, "weights": weights.tolist(), "noise": noise.bit_generator.state}
        saved.with_suffix(".new").write_text(json.dumps(state))
        saved.with_suffix(".new").replace(saved)
        print(f"step {step}", flush=True)
        hn.report(loss, step)
        time.sleep(params.get("pause", PAUSE_S))
    return loss


def halves(params: dict[str, Any]) -> float:
    """Halves its loss in each of the epochs that it is to have, 3 unless it is set; saves its state after each."""
    saved = hn.checkpoint_dir() / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"epoch": 0, "loss": float(params["x"])}
    print(f"begins with epoch {state['epoch']}", flush=True)
    while state["epoch"] < hn.trial_settings().get("epochs", 3):
        state = {"epoch": state["epoch"] + 1, "loss": state["loss"] / 2}
        saved.write_text(json.dumps(state))
        hn.report(state["loss"], state["epoch"])
        if params["x"] > 100.0:
            raise hn.TrialPruned
    return float(state["loss"])


def breaks_its_own_constraint(trial: Any) -> float:
    """The lower its value, the less it keeps a constraint that it sets by itself."""
    x = float(trial.suggest_float("x", 0.0, 1.0))
    trial.set_constraint("size", 0.5 - x)
    return x


def goes_on(params: dict[str, Any]) -> float:
    """Twelve epochs, each of which shrinks the loss by the rate; the first attempt of one of them is killed once."""
    saved = hn.checkpoint_dir() / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"epoch": 0, "loss": 1.0}
    print(f"begins with epoch {state['epoch']}", flush=True)
    while state["epoch"] < 12:
        killed = hn.checkpoint_dir() / "killed"
        if state["epoch"] == 6 and params.get("is_killed") and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        state = {"epoch": state["epoch"] + 1, "loss": state["loss"] * (1.0 - params["rate"])}
        saved.write_text(json.dumps(state))
        hn.report(state["loss"], state["epoch"])
        if hn.should_prune():
            raise hn.TrialPruned
    return float(state["loss"])
