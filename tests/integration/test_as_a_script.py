"""A trial finds what a script would find: its own modules, file name, data and log format, in every isolation.

One cluster, started in a folder that has modules of the same names, runs all studies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from highnoon.coordinator.local.stack import Stack
from highnoon.shared.domain.states import Ending
from highnoon.shared.store.attempt_records import AttemptRecord
from tests.cluster import Cluster, running_cluster

ISOLATIONS = ["fork", "spawn", "none"]


@pytest.fixture(scope="module")
def cluster(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("where-start-was-typed")
    for name in ("helpers", "json", "random", "rich", "redis", "shared", "train"):
        (folder / f"{name}.py").write_text("raise SystemExit('a module of the folder where start was typed')")
    (folder / "only_where_start_was_typed.py").touch()
    # One slot, so that studies without isolation follow one another in one process.
    with running_cluster(stack, folder, slots=1) as cluster:
        yield cluster


def attempts_of(cluster: Cluster, folder: Path, *, name: str, n_trials: int = 1, **keys: object) -> list[AttemptRecord]:
    cluster.submit_here(f"{keys.pop('file', 'train.py')}:objective", n_trials, name=name, code_dir=str(folder), **keys)
    with cluster.books() as books:
        books.wait_until_over(name)
        return books.attempts(name)


def completed(attempts: list[AttemptRecord]) -> list[str]:
    """The outputs of attempts that have all completed."""
    assert {attempt.ending for attempt in attempts} == {Ending.COMPLETED}, [
        (attempt.message, attempt.log_tail) for attempt in attempts
    ]
    return [attempt.log_tail for attempt in attempts]


def project(folder: Path, **sources: str) -> Path:
    """A study's folder with these modules; `package.module` lies in a package."""
    for name, source in sources.items():
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))
    return folder


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_two_projects_import_their_own_helpers(cluster: Cluster, tmp_path: Path, isolation: str) -> None:
    for who in ("a", "b"):
        project(
            tmp_path / who,
            train="""
                import sys
                from pathlib import Path
                import helpers, shared.part, workers

                def objective(params):
                    try:
                        import only_where_start_was_typed
                    except ImportError:
                        print(helpers.WHO, shared.part.WHO, workers.WHO, Path(sys.argv[0]).name, Path(sys.path[0]).name)
                    return params["x"]
            """,
            helpers=f"WHO = {who!r}",
            workers=f"WHO = {who!r}",
            **{"shared.__init__": "", "shared.part": f"WHO = {who!r}"},
        )
    for who, turn in (("a", 1), ("b", 1), ("a", 2), ("b", 2)):
        name = f"projects-{isolation}-{who}-{turn}"
        printed = completed(attempts_of(cluster, tmp_path / who, name=name, isolation=isolation))
        assert printed == [f"{who} {who} {who} train.py {who}\n"]


NAMED_AS_THE_LIBRARY = {
    "train": """
        import json, random
        import highnoon as hn

        def objective(params):
            hn.report(1.0, 0)
            print(json.MINE, random.MINE)
            return params["x"]
    """,
    "json": "MINE = 'json'",
    "random": "MINE = 'random'",
}


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_modules_named_as_the_librarys_are_the_studys_and_hurt_nothing_of_ours(
    cluster: Cluster, tmp_path: Path, isolation: str
) -> None:
    folder = project(tmp_path, **NAMED_AS_THE_LIBRARY)
    assert completed(attempts_of(cluster, folder, name=f"named-{isolation}", isolation=isolation)) == ["json random\n"]


def test_without_isolation_a_name_in_use_is_refused_with_the_remedy(cluster: Cluster, tmp_path: Path) -> None:
    folder = project(tmp_path, **NAMED_AS_THE_LIBRARY)
    (attempt,) = attempts_of(cluster, folder, name="named-none", isolation="none")
    assert attempt.ending is Ending.FAILED
    assert "json, random of the study's folder would replace another module" in attempt.message
    assert 'write isolation = "fork"' in attempt.message
    # Then the next study in this process is not affected
    folder = project(tmp_path / "other", train="import json\ndef objective(params): return float(json.loads('1'))")
    completed(attempts_of(cluster, folder, name="named-none-after", isolation="none"))


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_child_processes_of_every_kind_find_the_objectives_functions(
    cluster: Cluster, tmp_path: Path, isolation: str
) -> None:
    (tmp_path / "my-train.py").write_text(
        dedent("""
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            def square(number):
                return number * number

            def objective(params):
                if params["how"] == "loky":
                    from joblib import Parallel, delayed
                    return float(sum(Parallel(n_jobs=2)(delayed(square)(number) for number in range(5))))
                if params["how"] == "executor":
                    with ProcessPoolExecutor(2) as pool:
                        return float(sum(pool.map(square, range(5))))
                with multiprocessing.get_context(params["how"]).Pool(2) as pool:
                    return float(sum(pool.map(square, range(5))))
        """)
    )
    ways = ["fork", "spawn", "forkserver", "executor", "loky"]
    attempts = attempts_of(
        cluster,
        tmp_path,
        name=f"children-{isolation}",
        n_trials=len(ways),
        file="my-train.py",
        isolation=isolation,
        sampler="grid",
        search_space={"how": ["categorical", ways]},
    )
    completed(attempts)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_data_beside_the_objective_is_found_by_a_relative_path(
    cluster: Cluster, tmp_path: Path, isolation: str
) -> None:
    folder = project(tmp_path, train="def objective(params): return float(open('data.csv').read()) * params['x']")
    (tmp_path / "data.csv").write_text("3")
    completed(attempts_of(cluster, folder, name=f"data-{isolation}", n_trials=2, isolation=isolation))


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_scratch_files_are_the_trials_own_and_gone_with_it(cluster: Cluster, tmp_path: Path, isolation: str) -> None:
    source = """
        import highnoon as hn

        def objective(params):
            (hn.scratch_dir() / "file").write_text("x")
            print(hn.scratch_dir(), end="")
            return 0.0
    """
    folder = project(tmp_path, train=source)
    outputs = completed(attempts_of(cluster, folder, name=f"scratch-{isolation}", n_trials=2, isolation=isolation))
    assert len(set(outputs)) == 2 and not any(Path(output).exists() for output in outputs)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_the_objective_decides_the_format_and_the_level_of_its_log(
    cluster: Cluster, tmp_path: Path, isolation: str
) -> None:
    folder = project(
        tmp_path,
        train="""
            import logging, warnings
            logging.basicConfig(level=logging.INFO, format="MINE %(levelname)s %(message)s")

            def objective(params):
                logging.getLogger("mine").info("from a logger of mine")
                logging.getLogger("mine").debug("never shown")
                logging.warning("from the root logger")
                warnings.simplefilter("always")
                warnings.warn("printed as in a script")
                return params["x"]
        """,
    )
    tails = completed(attempts_of(cluster, folder, name=f"log-{isolation}", n_trials=2, isolation=isolation))
    for tail in tails:
        assert tail.startswith("MINE INFO from a logger of mine\nMINE WARNING from the root logger\n/")
        assert "UserWarning: printed as in a script\n" in tail and tail.count("MINE") == 2


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_exit_functions_run_and_files_that_were_left_open_are_flushed(
    cluster: Cluster, tmp_path: Path, isolation: str
) -> None:
    folder = project(
        tmp_path,
        train="""
            import atexit, csv
            out = open("left_open.csv", "w")
            atexit.register(lambda: print("at exit", flush=True))

            def objective(params):
                csv.writer(out).writerow(["epoch", 1])
                return params["x"]
        """,
    )
    (printed,) = completed(attempts_of(cluster, folder, name=f"exit-{isolation}", isolation=isolation))
    assert printed == "at exit\n"
    assert (tmp_path / "left_open.csv").read_text().strip() == "epoch,1"


def test_a_file_that_makes_settings_for_its_imports_gets_a_new_interpreter(cluster: Cluster, tmp_path: Path) -> None:
    source = """
        import os
        os.environ["{name}"] = "1"
        import sys

        def objective(params):
            print("forked" if "celery" in sys.modules else "new", os.environ.get("{name}"))
            return params["x"]
    """
    for name, printed in (("KERAS_BACKEND", "new 1\n"), ("TF_CPP_MIN_LOG_LEVEL", "forked 1\n")):
        folder = project(tmp_path / name, train=dedent(source).format(name=name))
        assert completed(attempts_of(cluster, folder, name=name)) == [printed]
    assert "action=isolation study=KERAS_BACKEND" in cluster.logs() and "sets KERAS_BACKEND for" in cluster.logs()


def test_the_environment_of_a_study_is_set_before_anything_is_imported(cluster: Cluster, tmp_path: Path) -> None:
    source = """
        import os, sys

        at_import = os.environ.get("KERAS_BACKEND"), os.environ.get("DATA")

        def objective(params):
            print("forked" if "celery" in sys.modules else "new", *at_import)
            return params["x"]
    """
    folder = project(tmp_path, train=dedent(source))
    for name, environment, printed in (
        ("read-at-import", {"KERAS_BACKEND": "numpy"}, "new numpy None\n"),
        ("read-later", {"DATA": "/data"}, "forked None /data\n"),
    ):
        assert completed(attempts_of(cluster, folder, name=name, environment=environment)) == [printed]
    assert "the study's environment sets KERAS_BACKEND for its imports" in cluster.logs()


def test_steps_beyond_the_tables_fail_their_trials_alone(cluster: Cluster, tmp_path: Path) -> None:
    steps = {"ok": 2_000_000_000, "tokens": 3_000_000_000, "huge": 2**70}
    folder = project(
        tmp_path,
        train=f"""
            import highnoon as hn

            def objective(params):
                hn.report(1.0, {steps}[params["step"]])
                return float(hn.should_prune())
        """,
    )
    space = {"step": ["categorical", list(steps)]}
    attempts = attempts_of(cluster, folder, name="steps", n_trials=3, sampler="grid", search_space=space)
    assert [attempt.ending for attempt in attempts] == [Ending.COMPLETED, Ending.FAILED, Ending.FAILED]
    assert all("step: must be at most 2147483647" in (attempt.message or "") for attempt in attempts[1:])
