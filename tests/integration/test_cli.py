"""The command line as a person meets it: mistakes, services that are away, terminals and pipes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import redis
from typer.main import get_command
from typer.testing import CliRunner

from highnoon.coordinator.cli.main import app
from highnoon.shared.objective.study_file import load_study_file
from highnoon.shared.runtime.terminal import Exit
from highnoon.shared.store.access import opened
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.optuna_store import OptunaStore
from highnoon.shared.store.submission import submit as submit_study
from tests.command import Answer, Terminal, caller, plain
from tests.conftest import driverless

BAD = Path(__file__).parents[1] / "unit" / "bad_studies"
MISTAKES = {
    "bad_syntax.toml": "line 3, column 10: expected '=' after a key in a key/value pair (got 'n_trials 20').",
    "empty_categorical.yaml": "search_space.x: needs a list with at least one choice (got ['categorical', []]). Write",
    "log_from_zero.toml": "search_space.x: a log scale starts above 0, not at 0.0 (got ['log_uniform', 0.0, 0.001]). R",
    "low_above_high.toml": "search_space.x: low 2.0 is above high -2.0 (got ['uniform', 2.0, -2.0]). Swap the two.",
    "no_trials.toml": "n_trials: must be at least 1 (got 0).",
    "objective_not_callable.toml": "objective: RATE in train.py is not callable (got 'train.py:RATE'). Name a function",
    "objective_not_found.toml": "(got 'trian.py:objective'). Did you mean train.py?",
    "step_zero.toml": "search_space.x: step must be above 0, not 0 (got ['int', 1, 9, 0]). Leave it out",
    "studdy.toml": "file: does not exist. Did you mean study.toml?",
    "unknown_key.toml": "n_trails: is not a known key (got 20). Did you mean n_trials?",
    "unknown_sampler.toml": "(got 'tpee'). Did you mean tpe?",
    "wrong_type.json": "n_trials: must be a whole number (got '20'). Write 20 without quotes.",
}
UNREACHABLE = {
    "HIGHNOON_DATABASE_URL": "postgresql://somebody:s3cret@127.0.0.1:1/highnoon",
    "HIGHNOON_REDIS_URL": "redis://:s3cret@127.0.0.1:2/0",
}
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Commands in a folder and a home of their own."""
    monkeypatch.setenv("HIGHNOON_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return caller(monkeypatch, capsys)


def process(*arguments: str, home: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator", *arguments],
        env={**os.environ, "HIGHNOON_HOME": str(home), **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_there_is_a_story_for_every_bad_study_file() -> None:
    assert {path.name for path in BAD.iterdir() if path.suffix != ".py"} - {"study.toml"} == set(MISTAKES) - {
        "studdy.toml"
    }
    assert len(MISTAKES) == 12


@pytest.mark.parametrize("name", MISTAKES)
def test_a_bad_study_file_is_answered_and_leaves_nothing(
    name: str, coordinator: Callable[..., Answer], tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    # Given an empty ledger, an empty Redis, and an unused home
    with opened(postgres_url, create=True) as access, redis.Redis.from_url(redis_url) as client:
        home, cluster = tmp_path / "home", {"HIGHNOON_DATABASE_URL": postgres_url, "HIGHNOON_REDIS_URL": redis_url}

        # When the file is started, and submitted to the cluster
        start = coordinator("start", str(BAD / name))
        submit = coordinator("submit", str(BAD / name), **cluster)

        # Then both say what, where and what else, on one screen
        for answer in (start, submit):
            assert answer.code == Exit.USER_INPUT, answer.err
            assert answer.err.startswith(f"error: {BAD / name}:\n  ") and MISTAKES[name] in answer.err
            assert answer.out == "" and "Traceback" not in answer.err and len(answer.err.splitlines()) <= 5

        # And nothing is left
        assert not home.exists()
        assert access.studies.all() == []
        assert client.dbsize() == 0
        with closing(OptunaStore(postgres_url)) as store:
            assert not store.exists("parabola")


@pytest.mark.parametrize(
    "arguments",
    [
        ["strat"],
        ["start", "--wrokers", "2"],
        ["submit"],
        ["status"],
    ],
)
def test_a_wrong_command_is_a_mistake_with_a_usage(coordinator: Callable[..., Answer], arguments: list[str]) -> None:
    answer = coordinator(*arguments)
    assert answer.code == Exit.USER_INPUT
    assert "Usage: " in answer.err and "Traceback" not in answer.err


def test_a_state_that_no_trial_has_is_answered_with_those_that_there_are(coordinator: Callable[..., Answer]) -> None:
    answer = coordinator("trials", "digits", "--state", "finished")
    assert answer.code == Exit.USER_INPUT
    assert "--state: is no state of a trial (got 'finished'). Valid: waiting, running, complete," in answer.err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_eighty_columns(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}, prog_name="python -m coordinator")
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80
    assert "Options:" in shown.output


def test_the_list_of_commands_cuts_off_no_summary_at_eighty_columns() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}, prog_name="python -m coordinator").output
    assert [line for line in shown.splitlines() if line.endswith("...") and "Usage:" not in line] == []


@pytest.mark.parametrize("arguments", [["list"], ["status", "digits"], ["best", "digits"], ["trials", "digits"]])
def test_an_unused_home_is_a_mistake_not_an_empty_answer(
    coordinator: Callable[..., Answer], arguments: list[str], tmp_path: Path
) -> None:
    answer = coordinator(*arguments)
    assert answer.code == Exit.USER_INPUT
    assert answer.err.startswith(f"error: {tmp_path / 'home'} holds no studies: nothing was started there yet")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("given", UNREACHABLE)
def test_one_address_without_the_other_is_a_mistake(coordinator: Callable[..., Answer], given: str) -> None:
    (missing,) = set(UNREACHABLE) - {given}
    for arguments in (["start"], ["doctor"], ["start", str(BAD / "study.toml"), "--workers", "2"]):
        answer = coordinator(*arguments, **{given: UNREACHABLE[given]})
        assert answer.code == Exit.USER_INPUT
        assert f"{missing}: is not set, but the other address is." in answer.err


def test_redis_alone_does_not_lead_to_the_ledger_of_this_folder(coordinator: Callable[..., Answer]) -> None:
    answer = coordinator("list", HIGHNOON_REDIS_URL=UNREACHABLE["HIGHNOON_REDIS_URL"])
    assert answer.code == Exit.USER_INPUT and "HIGHNOON_DATABASE_URL: is not set" in answer.err


def test_a_cluster_gets_no_workers_from_start(coordinator: Callable[..., Answer]) -> None:
    answer = coordinator("start", "--workers", "2", **UNREACHABLE)
    assert answer.code == Exit.USER_INPUT and "python -m workers start" in answer.err


def test_a_number_of_trials_needs_a_study_file(coordinator: Callable[..., Answer]) -> None:
    # One address alone: should it start, then not for long.
    answer = coordinator("start", "--n-trials", "5", HIGHNOON_DATABASE_URL=UNREACHABLE["HIGHNOON_DATABASE_URL"])
    assert answer.code == Exit.USER_INPUT and "--n-trials: needs a STUDY_FILE" in answer.err


@pytest.mark.parametrize("arguments", [["list"], ["status", "digits"], ["submit", str(BAD / "study.toml")]])
def test_a_database_that_is_away_is_named_without_its_password(
    coordinator: Callable[..., Answer], arguments: list[str]
) -> None:
    answer = coordinator(*arguments, **UNREACHABLE)
    assert answer.code == Exit.SERVICE
    assert answer.err.startswith("error: database postgresql+psycopg2://somebody:***@127.0.0.1:1/highnoon: ")
    assert "refused" in answer.err and "s3cret" not in answer.err


def test_doctor_names_the_service_that_is_away(coordinator: Callable[..., Answer], tmp_path: Path) -> None:
    home = str(tmp_path / "none" / "of" / "these" / "exists")
    answer = coordinator("doctor", **UNREACHABLE, HIGHNOON_HOME=home)
    assert answer.code == Exit.SERVICE
    problems = [line for line in answer.out.splitlines() if line.startswith("problem")]
    assert any("database: database postgresql+psycopg2://somebody:***@127.0.0.1:1" in line for line in problems)
    assert any("redis: Redis redis://:***@127.0.0.1:2/0" in line for line in problems)
    assert "s3cret" not in answer.out
    assert all(line == line.rstrip() for line in answer.out.splitlines())


def test_doctor_finds_what_start_would_run_on_this_machine(coordinator: Callable[..., Answer]) -> None:
    answer = coordinator("doctor", HIGHNOON_PRELOAD="json")
    assert answer.code == Exit.OK
    assert re.search(r"^ok +postgres: /.*/bin$", answer.out, re.MULTILINE)
    assert re.search(r"^ok +redis-server: /", answer.out, re.MULTILINE)


def test_doctor_finds_a_cluster_healthy_only_with_a_coordinator_and_a_worker(
    coordinator: Callable[..., Answer], postgres_url: str, redis_url: str
) -> None:
    cluster = {"HIGHNOON_DATABASE_URL": postgres_url, "HIGHNOON_REDIS_URL": redis_url, "HIGHNOON_PRELOAD": "json"}
    with opened(postgres_url, create=True) as access:
        nodes = Nodes(access.database)

        answer = coordinator("doctor", **cluster)
        assert answer.code == Exit.SERVICE
        assert "problem  coordinator: no coordinator runs, so nothing starts; python -m coordinator start" in answer.out
        assert "problem  workers: none is there; python -m workers start" in answer.out

        nodes.lead("c1", ttl_s=600)
        assert coordinator("doctor").code == Exit.SERVICE

        nodes.enter("w1", host="node-a", pid=7, slots=2, queues=("cpu",))
        answer = coordinator("doctor")
        assert answer.code == Exit.OK
        assert "ok       coordinator: leads\nok       workers: node-a (2 slots, active)" in answer.out


def test_doctor_lets_a_long_address_break_no_other_line(coordinator: Callable[..., Answer]) -> None:
    address = f"postgresql://highnoon@{'a' * 40}.example.com:5432/highnoon"
    answer = coordinator("doctor", **UNREACHABLE | {"HIGHNOON_DATABASE_URL": address})
    assert answer.out.splitlines()[0].index("source") < 60


def test_a_coordinator_waits_for_a_service_that_is_away_and_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    waiting = process("start", home=tmp_path, **UNREACHABLE)
    assert waiting.stdout is not None
    line = waiting.stdout.readline()
    assert line.startswith("waiting: database postgresql+psycopg2://somebody:***@127.0.0.1:1/highnoon: ")
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=200)
    assert waiting.returncode == Exit.INTERRUPTED, err


@pytest.mark.parametrize("arguments", [["watch", "parabola"], ["submit", str(BAD / "study.toml"), "--wait"]])
def test_a_wait_without_a_coordinator_names_it_and_ends_in_order_on_sigterm(
    arguments: list[str], postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    with opened(postgres_url, create=True) as access:
        submit_study(load_study_file(BAD / "study.toml"), access)
        cluster = {"HIGHNOON_DATABASE_URL": postgres_url, "HIGHNOON_REDIS_URL": redis_url}
        waiting = process(*arguments, home=tmp_path, **cluster)
        assert waiting.stdout is not None
        lines = list(iter(waiting.stdout.readline, "parabola  0/20  nothing runs yet: waiting for a free worker\n"))
        assert "no coordinator runs, so nothing starts" in lines[-1], lines
        waiting.send_signal(signal.SIGTERM)
        out, err = waiting.communicate(timeout=200)
    assert waiting.returncode == Exit.INTERRUPTED and out.endswith("left; study parabola goes on\n"), err


def test_wait_is_refused_while_no_coordinator_runs(coordinator: Callable[..., Answer]) -> None:
    answer = coordinator("submit", str(BAD / "study.toml"), "--wait")
    assert answer.code == Exit.SERVICE
    assert "python -m coordinator start" in answer.err


def test_an_unknown_study_is_answered_with_the_nearest(
    coordinator: Callable[..., Answer], postgres_url: str, redis_url: str
) -> None:
    cluster = {"HIGHNOON_DATABASE_URL": postgres_url, "HIGHNOON_REDIS_URL": redis_url}
    with opened(postgres_url, create=True) as access:
        assert coordinator("list", **cluster).out.startswith("no studies yet; begin one: ")
        assert "There is none yet." in coordinator("status", "parabola").err
        waits = "it waits: no coordinator runs, so nothing starts; python -m coordinator start runs one\n"
        assert coordinator("submit", str(BAD / "study.toml")).out == f"study parabola: 20 trials\n{waits}"
        Nodes(access.database).lead("c1", ttl_s=600)
        assert coordinator("submit", str(BAD / "study.toml")).out.endswith("none added\n")
        answer = coordinator("pause", "paraobla")
        assert answer.code == Exit.USER_INPUT and answer.err.endswith("Did you mean parabola?\n")
        answer = coordinator("logs", "parabola", "3")
        assert (
            answer.code == Exit.USER_INPUT
            and "TRIAL: no attempt of study parabola has this number (got 3)." in answer.err
        )
        assert coordinator("best", "parabola").code == Exit.NO_RESULT
        assert coordinator("audit", "\udcff").code == Exit.USER_INPUT


@pytest.mark.parametrize("way", ["HIGHNOON_DATABASE_PASSWORD_FILE", "HIGHNOON_DB_URL"])
def test_a_program_has_the_address_however_it_was_given(
    way: str, coordinator: Callable[..., Answer], tmp_path: Path, postgres_url: str
) -> None:
    user, password, place = re.fullmatch(r"(.*):(.*)@(.*)", postgres_url).groups()  # type: ignore[union-attr]
    (tmp_path / "password").write_text(password)
    given = {
        "HIGHNOON_DATABASE_PASSWORD_FILE": {
            way: str(tmp_path / "password"),
            "HIGHNOON_DATABASE_URL": f"{user}@{place}",
        },
        "HIGHNOON_DB_URL": {way: driverless(postgres_url)},
    }[way]
    code = (
        "from highnoon.shared.runtime.settings import load_settings;"
        f"assert load_settings().database_url == {postgres_url!r}"
    )
    with opened(postgres_url, create=True):
        assert coordinator("exec", sys.executable, "-c", code, **given).code == Exit.OK


def test_ctrl_c_is_for_the_program_alone(coordinator: Callable[..., Answer], tmp_path: Path, postgres_url: str) -> None:
    code = (
        "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(0.5); open('done', 'x');"
        "signal.raise_signal(signal.SIGINT)"
    )
    with opened(postgres_url, create=True):
        answer = coordinator("exec", sys.executable, "-c", code, HIGHNOON_DATABASE_URL=postgres_url)
    assert (tmp_path / "done").exists() and answer.code == Exit.INTERRUPTED


@pytest.mark.parametrize("colours", [True, False])
def test_a_terminal_gets_colour_and_a_hanging_indent(tmp_path: Path, colours: bool) -> None:
    for name in ("low_above_high.toml", "train.py"):
        shutil.copy(BAD / name, tmp_path)
    environ = {"TERM": "xterm-256color", "COLUMNS": "60", "NO_COLOR": "" if colours else "1"}

    terminal = Terminal("start", "low_above_high.toml", folder=tmp_path, **environ)
    assert terminal.read_to_the_end() == Exit.USER_INPUT
    shown = terminal.shown

    assert shown.startswith("\x1b[1;31merror:" if colours else "\x1b[1merror:")
    assert plain(shown).splitlines() == [
        "error: low_above_high.toml:",
        "  search_space.x: low 2.0 is above high -2.0 (got",
        "      ['uniform', 2.0, -2.0]). Swap the two.",
    ]
    assert not (tmp_path / ".highnoon").exists()
