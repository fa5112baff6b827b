"""Commands that read, on one made-up study: for people, for programs, in order, in files, and with mistakes."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from rich.console import Console
from sqlalchemy import Engine, event, text, update
from typer.testing import CliRunner

from highnoon.coordinator.cli.analyse import KINDS
from highnoon.coordinator.cli.command_io import study_names
from highnoon.coordinator.cli.failures import report_end
from highnoon.coordinator.cli.main import app
from highnoon.coordinator.cli.progress import watch
from highnoon.coordinator.cli.reading import Reader
from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import WorkerState
from highnoon.shared.runtime.terminal import Exit
from highnoon.shared.store.access import opened
from highnoon.shared.store.control import Control
from highnoon.shared.store.nodes import Nodes
from highnoon.shared.store.schema import studies, tickets
from highnoon.shared.store.submission import submit
from tests.command import Answer, caller
from tests.conftest import empty_database
from tests.made_up import make_study, spec_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Call = Callable[..., Answer]
MISTAKES = {
    "trials digits --state failed": "--state: is no state of a trial (got 'failed'). Did you mean fail?",
    "trials digits --sort scor": "is no column, parameter or metric (got 'scor'). Did you mean score?",
    "best digits --format tml": "is no format of a best configuration (got 'tml'). Did you mean toml?",
    "plot digits --kind histroy": "--kind: is no figure (got 'histroy'). Did you mean history?",
    "plot digits -k slice -p unit": "is no parameter of study digits (got 'unit'). Did you mean units?",
    "plot digits -o x.gif": "--output: has no suffix of a figure's format (got 'x.gif').",
    "plot digits -o no/x.html": "--output: lies in a folder that does not exist (got 'no/x.html').",
    "backup digits -o no/x.jsonl": "--output: lies in a folder that does not exist (got 'no/x.jsonl').",
    "compare digits digits-wid": "no study named 'digits-wid'. Did you mean digits-wide?",
    "logs digits 77": "no attempt of study digits has this number (got 77). It has trials 0 to 52.",
    "audit digit": "no study named 'digit'. Did you mean digits?",
    "watch digit": "no study named 'digit'. Did you mean digits?",
    "importance dgits": "Did you mean digits?",
    "drain node-b": "WORKER: is no node that is there (got 'node-b'). Did you mean node-a?",
}


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with empty_database(stack) as url:
        make_study(url, "digits", n_trials=60, done=50, running=3)
        make_study(url, "digits-wide", n_trials=40)
        with opened(url) as access:
            submit(spec_of("new", n_trials=5), access)
        yield url


@pytest.fixture
def call(
    url: str, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Commands in a folder of their own, on the module's database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIGHNOON_DATABASE_URL", url)
    monkeypatch.setenv("HIGHNOON_REDIS_URL", stack.redis_url)
    monkeypatch.setenv("HIGHNOON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HIGHNOON_PRESENCE_S", "600")
    return caller(monkeypatch, capsys)


def numbers(answer: Answer) -> list[int]:
    assert answer.code == Exit.OK, answer.err
    return [int(line.split()[0]) for line in answer.out.splitlines()[1:]]


def test_commands_that_read_the_ledger_alone_import_no_optuna(call: Call, tmp_path: Path) -> None:
    commands = ["list", "status digits", "workers", "logs digits 0", "pause new", "resume new", "audit"]
    code = (
        "import sys; from highnoon.coordinator.cli.main import app; from typer.testing import CliRunner;"
        f"answers = [CliRunner().invoke(app, words.split()) for words in {commands}];"
        "print([answer.exit_code for answer in answers], 'sqlalchemy' in sys.modules, 'optuna' in sys.modules)"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.split("] ")[1].split() == ["True", "False"], shown.stderr
    assert json.loads(shown.stdout.split("] ")[0] + "]") == [0] * len(commands)


def test_trials_are_sorted_chosen_and_limited(call: Call) -> None:
    everything = {trial["number"]: trial for trial in json.loads(call("trials", "digits", "--json").out)}
    assert len(everything) == 53
    assert everything[0]["host"] == "node-a" and everything[0]["attrs"]["highnoon:ticket"]

    best = numbers(call("trials", "digits", "--sort", "score", "--state", "complete"))
    values = [everything[number]["value"] for number in best]
    assert values == sorted(values) and all(everything[number]["state"] == "COMPLETE" for number in best)

    longest = numbers(call("trials", "digits", "--sort", "duration", "--reverse", "--state", "pruned", "--limit", "3"))
    durations = [trial["duration_s"] for trial in everything.values() if trial["state"] == "PRUNED"]
    assert [everything[number]["duration_s"] for number in longest] == sorted(durations, reverse=True)[:3]

    limited = call("trials", "digits", "--sort", "units", "-n", "2")
    assert len(numbers(limited)) == 2 and limited.err == "2 of 53 trials\n"
    result = json.loads(call("trials", "digits", "--sort", "score", "-n", "1", "--state", "complete", "--json").out)
    assert [trial["number"] for trial in result] == best[:1]


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_answered_with_the_nearest(call: Call, words: str) -> None:
    answer = call(*words.split())
    assert answer.code == Exit.USER_INPUT
    assert MISTAKES[words] in answer.err and answer.out == "" and "Traceback" not in answer.err


@pytest.mark.parametrize("arguments", [["best"], ["importance"], ["plot"], ["trials"]])
def test_a_study_without_results_is_answered_with_the_next_step(call: Call, arguments: list[str]) -> None:
    answer = call(*arguments, "new")
    assert answer.code == (Exit.OK if arguments == ["trials"] else Exit.NO_RESULT)
    assert "watch new" in answer.out + answer.err or "wait for more" in answer.err


def test_the_best_is_written_in_each_format(call: Call) -> None:
    best = json.loads(call("best", "digits", "--json").out)
    toml = tomllib.loads(call("best", "digits", "--format", "toml").out)
    assert toml["params"] == best["params"] and toml["trial"] == best["number"]
    assert json.loads(call("best", "digits", "--format", "json").out)["params"] == best["params"]
    compile(call("best", "digits", "--format", "python").out, "best.py", "exec")
    for other in ("yaml", "env"):
        assert str(best["params"]["units"]) in call("best", "digits", "--format", other).out


def test_importances_add_up(call: Call) -> None:
    shares = json.loads(call("importance", "digits", "--json").out)
    assert sum(shares.values()) == pytest.approx(1.0) and len(shares) == 6
    shown = call("importance", "digits").out.splitlines()
    assert [line.split()[0] for line in shown[1:]] == list(shares)


@pytest.mark.parametrize("kind", KINDS)
def test_each_figure_is_drawn(call: Call, kind: str, tmp_path: Path) -> None:
    answer = call("plot", "digits", "--kind", kind, "-o", f"{kind}.json")
    missing = {"pareto": "no trial has reported its model's size", "hypervolume": "the study has one objective"}
    if kind in missing:
        assert answer.code == Exit.USER_INPUT and f"--kind: {missing[kind]}" in answer.err
        assert f"(got '{kind}')." in answer.err and "python -m coordinator" not in answer.err
        return
    assert (answer.code, answer.out) == (Exit.OK, f"wrote {kind}.json\n"), answer.err
    figure = json.loads((tmp_path / f"{kind}.json").read_text())
    assert figure["data"] and figure["layout"]["title"]["text"].startswith("digits: ")


def test_the_older_name_of_importance_is_taken(call: Call) -> None:
    assert call("plot", "digits", "--kind", "importances", "-o", "old.json").out == "wrote old.json\n"


def test_a_contour_of_one_parameter_has_the_one_that_matters_most_beside_it(call: Call) -> None:
    most = next(iter(json.loads(call("importance", "digits", "--json").out)))
    other = "units" if most != "units" else "l2"
    layout = json.loads(call("plot", "digits", "-k", "contour", "-p", other, "--json").out)["layout"]
    assert [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == [other, most]


def test_a_page_needs_no_network(call: Call, tmp_path: Path) -> None:
    assert call("plot", "digits", "-k", "slice", "-p", "units").out == "wrote digits-slice.html\n"
    page = (tmp_path / "digits-slice.html").read_text()
    assert "$accent" not in page, "colours are a light page's"
    assert len(page) > 1_000_000 and '<script src="http' not in page and "units" in page


@pytest.mark.skipif(importlib.util.find_spec("kaleido") is not None, reason="kaleido is installed")
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_names_the_package_that_it_needs(call: Call, suffix: str, tmp_path: Path) -> None:
    answer = call("plot", "digits", "-o", f"x.{suffix}")
    assert answer.code == Exit.USER_INPUT
    assert "needs the package kaleido" in answer.err and "pip install kaleido" in answer.err and "x.html" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_two_studies_are_compared(call: Call) -> None:
    shown = call("compare", "digits", "digits-wide").out.splitlines()
    assert shown[0].split() == ["digits", "digits-wide"]
    assert ["n_trials", "60", "40"] in [line.split() for line in shown]
    result = json.loads(call("compare", "digits", "digits-wide", "--json").out)
    assert shown[-1].startswith(f"{result['better']} is better by ") and result["differs"]["n_trials"] == [60, 40]


def test_time_of_a_study_that_went_on_counts_from_its_first_attempt(call: Call, url: str) -> None:
    def took() -> float:
        compared = json.loads(call("compare", "digits", "digits-wide", "--json").out)
        return float(compared["studies"]["digits-wide"]["time_s"])

    before = took()
    with opened(url) as access:
        access.database.changed(text("update hn_studies set started_at = null where name = 'digits-wide'"))  # type: ignore[arg-type]
    assert before == pytest.approx(took(), abs=30)


def test_nodes_are_listed_with_what_they_run(call: Call) -> None:
    (node,) = json.loads(call("workers", "--json").out)
    assert node["host"] == "node-a" and len(node["running"]) == 3
    lines = call("workers").out.splitlines()
    assert lines[1].split()[:5] == ["w1", "node-a", "cpu", "3/4", "active"]
    assert [line.split()[2] for line in lines[2:]] == ["digits"] * 3


def test_a_node_is_drained_by_its_name(call: Call, url: str) -> None:
    answer = call("drain", "node-a")
    assert answer.out == "worker w1 on node-a drains: 3 trials run there, then it ends\n", answer.err
    with opened(url) as access:
        nodes = Nodes(access.database)
        assert [worker.state for worker in nodes.workers(silent_for_s=600)] == [WorkerState.DRAINING]
        again = call("drain", "node-a")
        nodes.mark("w1", WorkerState.ACTIVE)
    refusal = "the worker on node-a is draining, and only one that is active or in quarantine can drain"
    assert (again.code, again.out) == (2, "") and refusal in again.err


def test_a_study_that_is_over_without_a_result_is_not_watched(call: Call, stack: Stack) -> None:
    with empty_database(stack) as url:
        with opened(url, create=True) as access:
            submit(spec_of("failed", n_trials=5), access)
        assert "has no completed trial yet; python -m coordinator watch failed" in in_words(url, call, "best")
        with opened(url) as access, access.database.transaction() as connection:
            connection.execute(update(studies).values(state="finished"))
            connection.execute(update(tickets).values(attempt=1))
        assert in_words(url, call, "best").startswith("study failed is finished without a completed trial; ")
        for command in ("best", "importance", "plot"):
            assert in_words(url, call, command).endswith("; python -m coordinator trials failed shows how they ended\n")
        assert call("trials", "failed").out == "study failed has no trial\n"


def test_a_study_that_found_no_point_says_why_it_ended(call: Call, stack: Stack) -> None:
    lines = io.StringIO()
    with empty_database(stack) as url:
        with opened(url, create=True) as access:
            submit(spec_of("failed", n_trials=5, param_constraints=["units > 1000"]), access)
            with access.database.transaction() as connection:
                connection.execute(update(studies).values(state="finished", stop_reason="exhausted"))
            report_end(Reader(access).study("failed"), access, Console(file=lines, width=200))
        best, status = in_words(url, call, "best"), call("status", "failed", HIGHNOON_DATABASE_URL=url).out
    why = "exhausted: no further point of its search space was found that keeps units > 1000\n"
    assert best == f"study failed is finished without a completed trial; {why}"
    assert status.endswith(f"\n{why}") and f"\n{why}" in lines.getvalue()


def in_words(url: str, call: Call, command: str) -> str:
    answer = call(command, "failed", HIGHNOON_DATABASE_URL=url)
    assert answer.code == Exit.NO_RESULT
    return answer.err


def test_a_log_of_another_host_is_read_from_the_ledger(call: Call) -> None:
    answer = call("logs", "digits", "7", "-n", "1")
    assert answer.out.splitlines()[0] == "trial 7, attempt 1 on host node-a: pruned"
    assert answer.out.splitlines()[1:] == ["log logs/digits/trial-00007.log, its last lines:", "  | epoch 2 loss=0.7"]
    result = json.loads(call("logs", "digits", "7", "--json").out)
    assert result["host"] == "node-a" and result["lines"][-1] == "epoch 2 loss=0.7"


def test_shells_complete_commands_and_studies(call: Call) -> None:
    assert study_names("digits-") == ["digits-wide"]
    asked = {"_HIGHNOON_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    shown = CliRunner().invoke(app, env={**asked, "COMP_WORDS": "highnoon wat"}, prog_name="highnoon")
    assert shown.output.split() == ["watch"]
    asked["COMP_CWORD"] = "2"
    shown = CliRunner().invoke(app, env={**asked, "COMP_WORDS": "highnoon best digits-w"}, prog_name="highnoon")
    assert shown.output.split() == ["digits-wide"]


def test_without_a_ledger_a_shell_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIGHNOON_HOME", str(tmp_path / "home"))
    assert study_names("") == []
    assert not (tmp_path / "home").exists()


def test_a_point_is_enqueued_in_the_words_that_tables_show(call: Call) -> None:
    assert call("enqueue", "new", "learning_rate=0.01", "optimizer=adam").out.startswith("study new: one more trial")
    assert call("status", "new").out.splitlines()[1].split()[2] == "0/6"
    wrong = call("enqueue", "new", "learning_rat=0.01", "optimizer", "units=32")
    assert wrong.code == Exit.USER_INPUT
    assert "learning_rat: is no parameter of this study. Did you mean learning_rate?" in wrong.err
    assert "optimizer: is not of the form NAME=VALUE." in wrong.err
    assert "learning_rate: is outside of [" in call("enqueue", "new", "learning_rate=1000").err


def test_notes_and_tags(call: Call) -> None:
    assert call("note", "digits-wide").code == Exit.NO_RESULT
    assert call("note", "digits-wide", "the wide one", "--tag", "baseline").out == "tags: baseline\nthe wide one\n"
    call("note", "digits-wide", "looks odd", "--trial", "3")
    assert json.loads(call("note", "digits-wide", "--trial", "3", "--json").out) == {"note": "looks odd", "tags": []}
    assert "baseline" in call("list").out.splitlines()[-2] + call("list").out.splitlines()[-1]
    assert "the wide one" in call("status", "digits-wide").out
    assert "looks odd" in call("trials", "digits-wide").out
    assert call("export", "digits-wide").out.splitlines()[0].endswith(",tags,note")
    assert "tags" not in call("export", "digits").out.splitlines()[0]
    assert "study digits-wide has no trial 99" in call("note", "digits-wide", "x", "--trial", "99").err
    call("note", "digits-wide", "", "--untag", "baseline")
    assert call("note", "digits-wide").code == Exit.NO_RESULT


def test_status_states_whether_a_fault_holds_the_study_up(call: Call, url: str) -> None:
    with opened(url) as access:
        control, study_id = Control(access.database), access.studies.get("new").id
        control.record_declined(study_id, "ValueError: unreadable")
        declined = call("status", "new").out
        control.record_plugin_fault(study_id, "sampler: it has ended")
        held = call("status", "new").out
        control.record_fault(study_id, None)
    assert "\nA worker cannot start its trials: ValueError: unreadable\n" in declined and "until" not in declined
    assert "\nNothing of this study is started for a minute; then this is tried again: plug-in sampler: it has" in held


def test_who_waits_for_a_study_is_shown_its_fault_once(url: str) -> None:
    lines, looks = io.StringIO(), iter([True, True, False])
    with opened(url) as access:
        control, study_id = Control(access.database), access.studies.get("new").id
        control.record_declined(study_id, "ValueError: unreadable")
        watch("new", access, Console(file=lines, width=200), go_on=lambda _: next(looks))
        control.record_fault(study_id, None)
    progress, *others = lines.getvalue().splitlines()
    assert progress.endswith("  nothing runs yet")
    assert others == ["A worker cannot start its trials: ValueError: unreadable"]


def test_a_running_trial_is_stopped_alone(call: Call) -> None:
    running = [line.split()[0] for line in call("trials", "digits", "--state", "running").out.splitlines()[1:]]
    assert call("stop-trial", "digits", running[0]).out == f"trial {running[0]} of study digits is being stopped\n"
    refused = call("stop-trial", "digits", "0")
    assert refused.code == Exit.USER_INPUT and f"these run: {', '.join(running)}" in refused.err


def test_a_study_is_deleted_only_when_it_is_over_and_after_a_question(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(url) as access:
        submit(spec_of("old", n_trials=2), access)
    assert "only one that is over can be deleted: cancel it first" in call("delete", "old", "--yes").err
    with opened(url) as access:
        access.studies.cancel(access.studies.get("old").id)
        access.database.changed(text("update hn_studies set state = 'cancelled' where name = 'old'"))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert call("delete", "old").code == Exit.NO_RESULT and call("status", "old").code == Exit.OK
    assert call("delete", "old", "--yes").out == "study old is deleted\n"
    assert call("status", "old").code == Exit.USER_INPUT


def test_says_that_no_coordinator_runs_and_lists_what_other_programs_made(call: Call, url: str) -> None:
    assert "no coordinator runs, so nothing starts" in call("status", "new").out
    assert "no coordinator runs, so nothing starts" in call("list").err
    assert json.loads(call("list", "--json").out)
    optuna.create_study(storage=url, study_name="foreign")
    assert "external" in call("list").out and call("status", "foreign").code == Exit.OK
    optuna.delete_study(storage=url, study_name="foreign")


def test_the_version_is_that_of_the_package(call: Call) -> None:
    assert call("--version").out.startswith("highnoon-hpo ")


def test_lists_of_trials_read_no_log(call: Call) -> None:
    read: list[str] = []

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        read.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        shown = call("trials", "digits").out, call("trials", "digits", "--json").out
        exported = call("export", "digits").out
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert all("node-a" in text for text in (shown[1], exported)) and "exception" in shown[0]
    of_attempts = [statement for statement in read if "FROM hn_attempts" in statement]
    assert len(of_attempts) == 3
    assert not [text for text in of_attempts if "log_tail" in text or "memory" in text]
