"""The user's objective by name: where it is, whether it can work, and the function itself.

Two acts that must never be confused. `check` reads the source and runs nothing: its caller may hold credentials.
`load` imports it, and is called only where user code may run: in a trial process, or in process.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

from highnoon.shared.domain.errors import InvalidInput, ObjectiveError, Problem, did_you_mean, nearest
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.domain.trial import Params
from highnoon.shared.objective.defined_trial import is_trial
from highnoon.shared.objective.source import first_argument, flaw_in


def check(ref: ObjectiveRef, code_dir: Path | None) -> Problem | None:
    """What keeps the objective from working, as far as its source shows; runs no user code and never raises."""
    try:
        path = _file(ref, code_dir) if ref.is_file else _source(_found(ref, _roots(code_dir)), ref)
    except InvalidInput as invalid:
        return invalid.problems[0]
    flaw = flaw_in(path, ref.function, as_script=ref.is_file) if path else None
    return _problem(str(ref), flaw.message, flaw.hint) if flaw else None


def objective_problems(objective: object) -> list[Problem]:
    """Why this value cannot be called as objective(params); what has no signature counts as right. Calls nothing."""
    if not callable(objective):
        return [_problem(objective, "must be callable")]
    name = getattr(objective, "__name__", type(objective).__name__)
    if inspect.iscoroutinefunction(objective):
        return [_problem(objective, "is an async function", f"Write def {name}(params) without async.")]
    try:
        inspect.signature(objective).bind({})
    except TypeError as error:
        hint = f"It is called as {name}(params), with the dict of parameters."
        return [_problem(objective, f"cannot be called with one argument ({error})", hint)]
    except ValueError:  # a function of an extension module
        return []
    return []


def takes_no_trial(ref: ObjectiveRef, code_dir: Path | None) -> bool:
    """Whether its source shows that the objective takes parameters, not a trial; runs no user code."""
    try:
        path = _file(ref, code_dir) if ref.is_file else _source(_found(ref, _roots(code_dir)), ref)
    except InvalidInput:
        return False
    seen = first_argument(path, ref.function) if path else None
    return seen is not None and not is_trial(*seen)


def load(ref: ObjectiveRef, code_dir: Path | None) -> Callable[[Params], object]:
    """Imports the objective: runs user code. Raises ObjectiveError when that fails or yields nothing callable."""
    try:
        module = _import_file(_file(ref, code_dir)) if ref.is_file else _import_module(ref, code_dir)
    except InvalidInput as invalid:
        raise ObjectiveError(str(invalid.problems[0])) from None
    except SystemExit as error:
        raise ObjectiveError(
            f"importing {ref.where} ended the program (sys.exit, code {error.code}). What it does as a script, such as "
            'parsing arguments, belongs below if __name__ == "__main__":'
        ) from error
    except Exception as error:  # user code: whatever the import raises
        raise ObjectiveError(f"importing {ref.where} failed: {type(error).__name__}: {error}") from error
    function = getattr(module, ref.function, None)
    if function is None:
        hint = nearest(ref.function, [name for name in vars(module) if not name.startswith("_")])
        raise ObjectiveError(f"{ref.where} has no {ref.function}. {hint}")
    if not callable(function):
        raise ObjectiveError(f"{ref.function} in {ref.where} is not callable: its type is {type(function).__name__}")
    return function  # type: ignore[no-any-return]


def script_of(ref: ObjectiveRef, code_dir: Path | None) -> tuple[Path | None, list[Path]]:
    """The objective's file (None without source), and the folders that its import path begins with; runs nothing.

    The study's folder is among them only where the objective comes from it: a study that names an objective installed
    here must not be able to replace the modules that this one imports.
    """
    if ref.is_file:
        file = ((code_dir or Path("/")) / ref.where).resolve()
        inside = [code_dir] if code_dir and file.is_relative_to(code_dir.resolve()) else []
        return file, list(dict.fromkeys([*inside, file.parent]))
    brought = brought_module(ref, code_dir)
    found = brought or own_module(ref)
    return source_of(found) if found else None, [code_dir] if brought and code_dir else []


def own_module(ref: ObjectiveRef) -> ModuleSpec | None:
    """The module as the interpreter's own path has it; None when it has none. Imports nothing."""
    return _found_or_none(ref, sys.path)


def brought_module(ref: ObjectiveRef, code_dir: Path | None) -> ModuleSpec | None:
    """The module as the study's folder has it; None when it has none. Imports nothing."""
    return _found_or_none(ref, _folder_now(code_dir), elsewhere=False)


def source_of(spec: ModuleSpec) -> Path | None:
    """The file with a module's source; None for one that exists in another form."""
    return Path(spec.origin) if spec.origin and isinstance(spec.loader, SourceFileLoader) else None


def _found_or_none(ref: ObjectiveRef, roots: list[str], *, elsewhere: bool = True) -> ModuleSpec | None:
    try:
        return _found(ref, roots, elsewhere=elsewhere)
    except InvalidInput:
        return None


def _problem(written: object, message: str, hint: str = "") -> Problem:
    return Problem(key="objective", message=message, value=written, hint=hint)


def _refused(ref: ObjectiveRef, message: str, hint: str = "") -> InvalidInput:
    return InvalidInput("objective", [_problem(str(ref), message, hint)])


def _file(ref: ObjectiveRef, code_dir: Path | None) -> Path:
    """The file that a path names. Raises InvalidInput with the nearest file that exists."""
    if code_dir is None and not Path(ref.where).is_absolute():
        raise _refused(ref, "is a relative path, and there is no folder for it to start from", "Write it in full.")
    path = (code_dir or Path()) / ref.where
    try:
        if path.is_file():
            return path
        if not path.parent.is_dir():
            raise _refused(ref, f"there is no folder {path.parent}")
        files = sorted(entry.name for entry in path.parent.glob("*.py"))
    except OSError as error:
        raise _refused(ref, f"{path} cannot be read ({error.strerror})") from None
    raise _refused(ref, f"there is no file {path.name} in {path.parent}", nearest(path.name, files))


def _roots(code_dir: Path | None) -> list[str]:
    """Where a trial looks for a module: the study's folder is first, as the folder of a script is."""
    return [*_folder_now(code_dir), *sys.path]


def _folder_now(code_dir: Path | None) -> list[str]:
    if code_dir is None:
        return []
    _look_again(code_dir)
    return [str(code_dir)]


def _found(ref: ObjectiveRef, roots: list[str], *, elsewhere: bool = True) -> ModuleSpec:
    """The module's spec, found as an import would, but without importing the packages above it."""
    *packages, last = ref.where.split(".")
    searched = roots
    for depth, package in enumerate(packages):
        spec = _spec(package, searched, elsewhere=elsewhere and depth == 0)
        name = ".".join(packages[: depth + 1])
        if spec is None:
            raise _refused(ref, f"there is no package {name}", _elsewhere(packages[0], package, searched))
        if spec.submodule_search_locations is None:
            raise _refused(ref, f"{name} is a module, not a package")
        searched = list(spec.submodule_search_locations)
        _look_again(*searched)
    spec = _spec(last, searched, elsewhere=elsewhere and not packages)
    if spec is None:
        raise _refused(ref, f"there is no module {ref.where}", _elsewhere(ref.where.split(".")[0], last, searched))
    return spec


def _elsewhere(top: str, missing: str, searched: list[str]) -> str:
    """The hint for a module that is not there: the folder below which it is, or the nearest one beside it.

    Only of the first folder: that is the study's or the package's, and what else is installed was hardly meant.
    """
    folder = Path(searched[0]) if searched else Path()
    for below in ("src", "lib", "python"):
        if missing == top and ((folder / below / top).is_dir() or (folder / below / f"{top}.py").is_file()):
            return f'It is below {below}: write code_dir = "{below}" in the study, or install the project.'
    if (folder / f"{missing}.ipynb").is_file():
        return f"There is only {missing}.ipynb: save the function in a .py file."
    return did_you_mean(missing, _names([str(folder)]))


def _spec(name: str, searched: list[str], *, elsewhere: bool) -> ModuleSpec | None:
    """By the plain name also below a package: with a dotted one, PathFinder wants the parent imported."""
    spec = PathFinder.find_spec(name, searched)
    others = (finder for finder in sys.meta_path if finder is not PathFinder) if elsewhere and spec is None else ()
    for finder in others:  # built-in modules, and packages installed in editable mode
        spec = spec or finder.find_spec(name, None)
    return spec


def _names(searched: list[str]) -> list[str]:
    return sorted({module.name for module in pkgutil.iter_modules(searched)})


def _source(spec: ModuleSpec, ref: ObjectiveRef) -> Path | None:
    if spec.origin is None and spec.submodule_search_locations is not None:
        raise _refused(ref, f"{ref.where} is a folder without __init__.py, not a module")
    return source_of(spec)


def _import_module(ref: ObjectiveRef, code_dir: Path | None) -> ModuleType:
    _found(ref, [*sys.path, *_folder_now(code_dir)])
    if code_dir:
        _append_to_path(code_dir)
    return importlib.import_module(ref.where)


def _import_file(path: Path) -> ModuleType:
    """Under the file's own name where `import` would find this very file, else under a name that is only its own.

    With its own name helper modules can import it back, and child processes can unpickle its functions. The name need
    be no identifier for that: `my-train` is imported by name as well.
    """
    path = path.resolve()
    _append_to_path(path.parent)
    if _is_importable(path):
        return importlib.import_module(path.stem)
    name = f"objective_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_importable(path: Path) -> bool:
    if path.stem in sys.modules:
        file = getattr(sys.modules[path.stem], "__file__", None)
        return file is not None and Path(file).resolve() == path
    spec = importlib.util.find_spec(path.stem) if "." not in path.stem else None
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path


def _append_to_path(folder: Path) -> None:
    """Last, unless a trial has put it first: in a process of ours a user's `json.py` must not hide another module."""
    _look_again(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _look_again(*folders: Path | str) -> None:
    """Drops the caches of what these folders held: a file written a moment ago must be found.

    Not `importlib.invalidate_caches()`: that touches the finders of every package, and in a forked trial each page it
    writes to is copied first, which doubled the memory faults of a trial's start.
    """
    for folder in folders:
        sys.path_importer_cache.pop(str(folder), None)
