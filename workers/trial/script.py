"""A trial's process as its objective would find it in a script: import path, `sys.argv`, working folder, root logger.

    sys.path[0]   the study's folder, so that its modules come before all others of the same name
    sys.argv[0]   the objective's file
    cwd           the study's folder, so that data beside the objective is found by a relative path
    root logger   without handlers, so that the objective's `logging.basicConfig` has its effect

A trial process (isolation "fork", "spawn") ends with its trial, and keeps all this to its end. With isolation "none"
the process goes on: what belongs to the study is taken back afterwards, and kept for the study's next trial.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from highnoon.shared.domain.errors import ObjectiveError
from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective.reference import script_of

_NEVER_REPLACED = {
    *("__main__", "highnoon"),
    *("_collections_abc", "abc", "codecs", "encodings", "genericpath", "io", "os", "posixpath", "site", "stat"),
}
"""Ours, and what an interpreter has imported before a script begins, which no script's folder replaces either."""

_OURS = logging.getLogger("highnoon")

_MARK = f"{__name__}.mark"

_replaced: list[ModuleType] = []
"""Keeps alive what code that was imported earlier still uses."""


@dataclass
class _Kept:
    """What a study without isolation leaves for its next trial in this process."""

    path: list[str] | None = None
    modules: dict[str, ModuleType] = field(default_factory=dict)
    handlers: list[logging.Handler] = field(default_factory=list)
    level: int = logging.WARNING


_kept: dict[tuple[Path | None, ...], _Kept] = {}


def become_script(ref: ObjectiveRef, code_dir: Path | None) -> None:
    """For a process that ends with its trial. Call it before the objective is loaded."""
    file, folders = script_of(ref, code_dir)
    sys.argv[:] = [str(file or ref.where)]
    # A child process of the objective's would import the main module of its parent, which is the worker's.
    _replaced.append(sys.modules["__main__"])
    sys.modules["__main__"] = ModuleType("__main__")
    _put_first(folders)
    for name in _hidden(folders):
        _replaced.append(sys.modules.pop(name))
    _change_folder(code_dir)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.addFilter(lambda _: not root.handlers)
        _OURS.addHandler(handler)
    _set_level(root, logging.WARNING)
    # Celery turns warnings into records; a script prints them.
    logging.captureWarnings(False)


def loggers_as_configured() -> None:
    """After the objective was loaded: where it has configured the root logger, that level is in force for ours too."""
    if logging.getLogger().handlers:
        _OURS.setLevel(logging.NOTSET)


@contextmanager
def borrowed(ref: ObjectiveRef, code_dir: Path | None) -> Iterator[None]:
    """The same for the duration of one trial, in a process that goes on. Raises ObjectiveError for a name in use."""
    file, folders = script_of(ref, code_dir)
    key = (code_dir, *folders)
    kept = _kept.pop(key, _Kept())
    path, argv, folder = list(sys.path), list(sys.argv), os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    root, propagate = logging.getLogger(), _OURS.propagate
    handlers, level, ours = root.handlers[:], root.level, _OURS.handlers[:]
    # Thousands, with TensorFlow among them: only what a trial adds is looked at, which comes after this one.
    sys.modules.pop(_MARK, None)
    sys.modules[_MARK] = ModuleType(_MARK)
    try:
        if kept.path is None:
            _put_first(folders)
        else:
            sys.path[:] = kept.path
        _refuse_names_in_use(folders)
        sys.argv[:] = [str(file or ref.where)]
        sys.modules.update(kept.modules)
        _change_folder(code_dir)
        # This process's own records still go where they went.
        _OURS.handlers[:], _OURS.propagate = [*ours, *handlers], False
        root.handlers[:] = kept.handlers
        _set_level(root, kept.level)
        _write_to_current_streams(kept.handlers)
        logging.captureWarnings(False)
        yield
    finally:
        logging.captureWarnings(True)
        added = [Path(entry) for entry in sys.path if entry not in path]
        new = [*takewhile(_MARK.__ne__, reversed(sys.modules))]  # no other thread imports meanwhile: all of it is in C
        brought = {name: sys.modules[name] for name in new if _comes_from(added, name)}
        for name in brought:
            del sys.modules[name]
        _kept[key] = _Kept(path=list(sys.path), modules=brought, handlers=root.handlers[:], level=root.level)
        sys.path[:], sys.argv[:] = path, argv
        root.handlers[:] = handlers
        _set_level(root, level)
        _OURS.handlers[:], _OURS.propagate = ours, propagate
        os.fchdir(folder)
        os.close(folder)


def _set_level(logger: logging.Logger, level: int) -> None:
    """Only where it differs: the change visits all loggers there are, and a forked trial copies what it visits."""
    if logger.level != level:
        logger.setLevel(level)


def _put_first(folders: Sequence[Path]) -> None:
    names = [str(folder) for folder in folders]
    sys.path[:] = [*names, *(entry for entry in sys.path if entry not in names)]
    for name in names:  # a file written a moment ago must be found; other finders keep their pages, see `reference`
        sys.path_importer_cache.pop(name, None)


def _change_folder(code_dir: Path | None) -> None:
    """A study's folder that this node does not have, or may not enter, leaves the trial where it is."""
    if code_dir is not None:
        try:
            os.chdir(code_dir)
        except OSError:
            return


def _hidden(folders: Sequence[Path]) -> list[str]:
    """The imported modules, with all below them, whose names stand for modules of these folders in a script."""
    tops = {name for folder in folders for name in _names_in(folder) if name in sys.modules}
    tops = {top for top in tops - _NEVER_REPLACED if not _comes_from(folders, top) and _would_come_from(folders, top)}
    return [name for name in list(sys.modules) if name.partition(".")[0] in tops] if tops else []


def _names_in(folder: Path) -> set[str]:
    try:
        return {entry.partition(".")[0] for entry in os.listdir(folder)}  # noqa: PTH208 (no Path for each of many files)
    except OSError:
        return set()


def _would_come_from(folders: Sequence[Path], name: str) -> bool:
    """True when an import would take the module from one of the folders. Imports nothing."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return spec.origin is not None and _is_in(folders, name, spec.origin)
    return False


def _comes_from(folders: Sequence[Path], name: str) -> bool:
    """True for a module that was imported from one of the folders; a package's modules are judged by the package."""
    module: Any = sys.modules.get(name.partition(".")[0])
    file = getattr(module, "__file__", None)
    if file is not None:
        return _is_in(folders, module.__name__, file)
    return any(_is_in(folders, module.__name__, f"{part}/") for part in getattr(module, "__path__", ()))


def _is_in(folders: Sequence[Path], name: str, file: str) -> bool:
    parent = Path(file).parent if not file.endswith("/") else Path(file)
    return any(parent in (folder, folder / name) for folder in folders)


def _refuse_names_in_use(folders: Sequence[Path]) -> None:
    hidden = sorted({name.partition(".")[0] for name in _hidden(folders)})
    if hidden:
        raise ObjectiveError(
            f"without isolation a trial shares the modules of its worker, and {', '.join(hidden)} of the study's "
            'folder would replace another module of that name; rename it, or write isolation = "fork"'
        )


def _write_to_current_streams(handlers: Sequence[logging.Handler]) -> None:
    """The trial before had streams of its own for stdout and stderr."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.stream = sys.stderr  # `setStream` would flush the one before, which is closed
