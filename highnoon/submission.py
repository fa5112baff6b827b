"""`hn.submit`: a study for a running cluster, from a script, a notebook or a study file; and the studies that it has.

A function of a file that workers can import goes by its name, as in a study file. One of a notebook or of the script
that runs (`__main__`) goes by its source, in a signed bundle with what it uses of it and with the modules beside it.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highnoon.arguments import GUARD, refuse_in_a_workers_trial
from highnoon.cluster import Cluster, found_cluster
from highnoon.handle import StudyHandle
from highnoon.rehearsal import is_rehearsal
from highnoon.shared.domain.errors import InvalidInput, UserInputError
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.objective.reference import objective_problems
from highnoon.shared.objective.source_slice import source_needed_by
from highnoon.shared.objective.study_file import build_spec, load_study_file
from highnoon.shared.store.code_upload import packed, upload_code

_STUDY_FILES = (".toml", ".json", ".yaml", ".yml")


def submit(
    objective: Callable[[dict[str, Any]], object] | str | Path,
    search_space: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    n_trials: int | None = None,
    cluster: str | Path | None = None,
    bundle: str | Path | None = None,
    **keys: Any,
) -> StudyHandle:
    """Hands a study to a running cluster; returns at once. `submit("study.toml")` takes it from a study file.

    `objective` is a function of one argument, the dict of parameters, or "path/file.py:function". Other `keys` are
    the keys of a study file (`direction`, `sampler`, `trial_timeout`, ...). `bundle` is a folder to send as the code.
    `cluster` is the address of its database or the data folder of a running `start`; left out, it is
    HIGHNOON_DATABASE_URL, or what runs in HIGHNOON_HOME. A study of that name gets more trials up to `n_trials`.

    Raises InvalidInput with every mistake at once, StudyConflict when the name asks another question,
    ServiceUnavailable when no cluster runs.
    """
    refuse_in_a_workers_trial("submit()", GUARD)
    if is_rehearsal():
        raise UserInputError("submit(): a rehearsal stores nothing; use HPOTrialManager, or unset HIGHNOON_REHEARSAL")
    given = {"name": name, "n_trials": n_trials, "search_space": search_space, **keys}
    given = {key: value for key, value in given.items() if value is not None}
    found = found_cluster(cluster)
    with _code_of(objective, found.settings.bundle_limit_bytes) as code:
        folder = Path(bundle).resolve() if bundle is not None else code.bundled
        if folder is not None and not folder.is_dir():
            raise InvalidInput.of("submit()", "bundle", "is no folder", value=str(folder))
        spec = code.spec({**given, **({} if folder is None else {"code_dir": str(folder)})})
        return _submitted(spec, folder, found)


def study(name: str, *, cluster: str | Path | None = None) -> StudyHandle:
    """A study of the cluster by its name. Raises UnknownStudy with the nearest one, ServiceUnavailable."""
    handle = StudyHandle(name, found_cluster(cluster))
    handle.access.studies.get(name)
    return handle


def studies(*, cluster: str | Path | None = None) -> list[StudyHandle]:
    """All studies of the cluster, oldest first. Raises ServiceUnavailable."""
    found = found_cluster(cluster)
    with found.opened() as access:
        return [StudyHandle(record.name, found) for record in access.studies.all()]


def _submitted(spec: StudySpec, folder: Path | None, cluster: Cluster) -> StudyHandle:
    from highnoon.shared.store.submission import submit as submit_study
    from highnoon.shared.store.submission import with_git

    archive = None
    if folder is not None:
        spec, archive = packed(spec, folder, cluster.settings, key="bundle")
    handle = StudyHandle(spec.name, cluster)
    upload_code(spec, archive, handle.access, cluster.settings, is_embedded=cluster.is_embedded)
    submit_study(with_git(spec), handle.access)
    return handle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Code:
    """Where a study's objective is. `bundled` is a folder that must be sent along."""

    file: Path | None = None
    """A study file."""
    objective: str = ""
    code_dir: Path | None = None
    bundled: Path | None = None

    def spec(self, given: Mapping[str, Any]) -> StudySpec:
        """The study. Raises InvalidInput."""
        if self.file is not None:
            return load_study_file(self.file, given)
        return build_spec({"objective": self.objective, **given}, source="submit()", code_dir=self.code_dir)


@contextmanager
def _code_of(objective: object, limit_bytes: int) -> Iterator[_Code]:
    """The code meanwhile: what was written for a bundle is removed afterwards. Raises InvalidInput."""
    if isinstance(objective, Path) or (isinstance(objective, str) and objective.endswith(_STUDY_FILES)):
        yield _Code(file=Path(objective))
        return
    if isinstance(objective, str):
        yield _Code(objective=objective, code_dir=Path.cwd())
        return
    if problems := objective_problems(objective):
        raise InvalidInput("submit()", problems)
    name = _name_at_top_level(objective)
    if objective.__module__ != "__main__":
        yield _importable(sys.modules[objective.__module__], name)
        return
    source, file = _source_of_main()
    needed = source_needed_by(name, source, where=file.name)
    with tempfile.TemporaryDirectory(prefix="highnoon-bundle-") as folder:
        bundled = Path(folder).resolve()
        (bundled / file.name).write_text(needed, encoding="utf-8")
        _copy_modules(needed.encode(), beside=file.parent, into=bundled, copy=_LimitedCopy(limit_bytes))
        yield _Code(objective=f"{file.name}:{name}", code_dir=bundled, bundled=bundled)


def _importable(module: Any, function: str) -> _Code:
    """By its file; a module of a package by its name, from the folder that the package is in."""
    levels = module.__name__.count(".")
    if module.__file__ is None or not levels:
        return _Code(objective=f"{module.__file__}:{function}", code_dir=Path(module.__file__ or ".").parent)
    top = Path(module.__file__).resolve().parents[levels + (Path(module.__file__).stem == "__init__")]
    return _Code(objective=f"{module.__name__}:{function}", code_dir=top)


def _name_at_top_level(objective: Any) -> str:
    """The name by which its module has it. Raises InvalidInput for closures, methods and lambdas without a name."""
    module = sys.modules.get(getattr(objective, "__module__", None) or "")
    names = [name for name, value in vars(module).items() if value is objective] if module else []
    own = getattr(objective, "__name__", "")
    if inspect.isfunction(objective) and names:
        return own if own in names else names[0]
    message = "is not a function at the top level of a file or notebook, so that workers cannot find it by its name"
    hint = "Define it with def outside of every function and class."
    raise InvalidInput.of("submit()", "objective", message, value=objective, hint=hint)


def _source_of_main() -> tuple[str, Path]:
    """The source of the script or notebook that runs, and its file, which for a notebook is only a name."""
    main = sys.modules["__main__"]
    shell = vars(main).get("get_ipython")
    if shell is not None:
        transform = shell().input_transformer_manager.transform_cell
        cells = [transform(cell) for cell in vars(main).get("In", []) if isinstance(cell, str)]
        return "\n\n".join(filter(_is_python, cells)), Path.cwd() / "notebook.py"
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        message, hint = "has no source that could travel", "Put it into a file, or use a notebook."
        raise InvalidInput.of("submit()", "objective", message, hint=hint)
    return Path(file).read_text(encoding="utf-8"), Path(file).resolve().with_suffix(".py")


def _is_python(cell: str) -> bool:
    """A cell that was refused when it was run binds nothing."""
    try:
        ast.parse(cell)
    except SyntaxError:
        return False
    return True


class _LimitedCopy:
    """Copies files, up to so many bytes in all. Raises InvalidInput beyond, before the disk is full of them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = self._left_bytes = limit_bytes

    def __call__(self, source: str | Path, target: str | Path) -> None:
        """One more file."""
        self._left_bytes -= Path(source).stat().st_size
        if self._left_bytes < 0:
            message = f"imports modules beside it that hold more than {self._limit_bytes:,} bytes, {source} with them"
            hint = "Move data out of their folder, or raise HIGHNOON_BUNDLE_LIMIT_BYTES here and on the workers."
            raise InvalidInput.of("submit()", "objective", message, hint=hint)
        shutil.copy(source, target)


def _copy_modules(source: bytes, *, beside: Path, into: Path, copy: _LimitedCopy) -> None:
    """The modules and packages of the script's folder that the source imports, and what they import of it."""
    for name in _imported(source):
        for found in (beside / f"{name}.py", beside / name):
            target = into / found.name
            if target.exists() or not found.exists() or not _is_import_of(name, beside):
                continue
            if found.is_dir():
                shutil.copytree(found, target, ignore=_left_out, copy_function=copy)
            else:
                copy(found, target)
            for file in [target] if target.is_file() else target.rglob("*.py"):
                _copy_modules(file.read_bytes(), beside=beside, into=into, copy=copy)


def _left_out(folder: str, names: list[str]) -> set[str]:
    """What is not copied of a folder: hidden files, caches, and what no import reads, such as a link to nothing."""
    return {
        name for name in names if name.startswith(".") or name == "__pycache__" or not _is_copied(Path(folder, name))
    }


def _is_copied(path: Path) -> bool:
    return path.is_file() or path.is_dir()


def _imported(source: bytes) -> Iterator[str]:
    """The first part of each module that it imports anywhere; none of what is no Python of now: no trial imports it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _is_import_of(name: str, folder: Path) -> bool:
    """True when an import here takes the module from that folder."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    places = [spec.origin] if spec and spec.origin else list(spec.submodule_search_locations or ()) if spec else []
    return any(Path(place).resolve().is_relative_to(folder) for place in places)
