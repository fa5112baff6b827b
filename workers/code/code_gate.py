"""The code of an attempt, before anything of it is run: where it is, whether it may run here, and which it is.

Asked by the supervisor for every attempt. An answer holds for a while that is long against what it cost to find, so
that a large source tree does not slow down short trials.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from highnoon.shared.domain.errors import BundleRefused
from highnoon.shared.domain.states import Cause, Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.domain.trial_environment import read_at_import
from highnoon.shared.objective.allow_list import AllowList, exactly, patterns_here
from highnoon.shared.objective.reference import script_of
from highnoon.shared.objective.source import import_settings_in
from highnoon.shared.objective.source_tree import CodeDigests, root_of
from highnoon.shared.runtime.logs import event
from highnoon.shared.runtime.settings import Settings
from highnoon.shared.store.bundles import Bundles
from highnoon.workers.code.bundle_cache import BundleCache

_log = logging.getLogger("highnoon.workers.code.code_gate")

_HOLDS = 50
"""An answer holds so many times as long as it took: looking costs at most a fiftieth of a slot's time."""

_NO_STORE = (
    "the trials of the sampler {} go on from checkpoints in a store, and this worker has none: "
    "set HIGHNOON_ARTIFACTS_URL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What an attempt runs. `digest` is its source tree's; with a `refusal` nothing may be run."""

    folder: str | None
    digest: str | None = None
    refusal: Outcome | None = None
    import_settings: tuple[str, ...] = ()
    """Variables that file or study set for libraries which a forked trial has inherited: it gets a new interpreter."""


class CodeGate:
    """One supervisor's judge of code. Runs none of it."""

    def __init__(self, settings: Settings, bundles: Bundles) -> None:
        self._settings = settings
        self._cache = BundleCache(settings, bundles)
        self._digests = CodeDigests()
        self._answers: dict[tuple[str | None, ...], tuple[Code, float]] = {}
        self._parsed: dict[Path, tuple[tuple[int, int], tuple[str, ...]]] = {}
        self._noted: set[str] = set()
        self._compared: set[tuple[str, str | None, str | None]] = set()

    def pass_or_refuse(self, spec: StudySpec) -> Code:
        """The code of a study, as it is on this node now. Raises ServiceUnavailable while a bundle cannot be had."""
        if spec.sampler.goes_on_from_checkpoints and self._settings.artifacts_url is None:
            return self._refused(spec, Cause.NO_STORE, _NO_STORE.format(spec.sampler.name))
        key = (*map(str, (spec.objective, *spec.plugins.values())), spec.code_dir, spec.bundle)
        known = self._answers.get(key)
        if known is None or time.monotonic() >= known[1]:
            began = time.monotonic()
            code = self._look(spec)
            now = time.monotonic()
            known = self._answers[key] = (code, now + _HOLDS * (now - began))
        self._compare(spec, known[0])
        return self._with_environment(spec, known[0])

    def _with_environment(self, spec: StudySpec, code: Code) -> Code:
        settings = tuple(dict.fromkeys((*code.import_settings, *read_at_import(spec.environment))))
        self._note(spec, settings)
        return replace(code, import_settings=settings)

    def _look(self, spec: StudySpec) -> Code:
        try:
            folder = self._folder(spec)
        except BundleRefused as error:
            return self._refused(spec, Cause.BUNDLE_REFUSED, str(error))
        allowed = self._allow_list(spec, folder)
        for ref in (spec.objective_ref, *spec.plugins.values()):
            reason = allowed.refusal(ref, folder)
            if reason is not None:
                return self._refused(spec, Cause.OBJECTIVE_REFUSED, reason)
        root = root_of(spec.objective_ref, folder)
        digest = None if root is None else self._digests.of(root)
        file = script_of(spec.objective_ref, folder)[0]
        settings = () if file is None else self._settings_in(file)
        return Code(folder=None if folder is None else str(folder), digest=digest, import_settings=settings)

    def _settings_in(self, file: Path) -> tuple[str, ...]:
        """Parsed again only when the file's size or its time has changed."""
        try:
            info = file.stat()
        except OSError:
            return ()
        version = (info.st_size, info.st_mtime_ns)
        if self._parsed.get(file, (None, ()))[0] != version:
            self._parsed[file] = (version, import_settings_in(file))
        return self._parsed[file][1]

    def _folder(self, spec: StudySpec) -> Path | None:
        if spec.bundle is not None:
            return self._cache.folder_of(spec.bundle)
        return Path(spec.code_dir) if spec.code_dir else None

    def _allow_list(self, spec: StudySpec, folder: Path | None) -> AllowList:
        """A bundle's signature vouches for all that it holds, and for nothing else."""
        own = patterns_here(self._settings) or ()
        if spec.bundle is None or folder is None:
            return AllowList(patterns=own)
        return AllowList(patterns=(*own, f"{exactly(str(folder.resolve()))}/*"))

    def _refused(self, spec: StudySpec, cause: Cause, message: str) -> Code:
        event(_log, cause, level=logging.WARNING, study=spec.name, objective=spec.objective, reason=message)
        return Code(folder=None, refusal=Outcome(ending=Ending.FAILED, cause=cause, message=message))

    def _note(self, spec: StudySpec, settings: tuple[str, ...]) -> None:
        """Logs once what becomes of the settings that the study's file makes for its imports."""
        if not settings or spec.isolation == "spawn" or spec.name in self._noted:
            return
        self._noted.add(spec.name)
        source = "the study's environment" if spec.environment else spec.objective
        names = f"{source} sets {', '.join(settings)} for its imports"
        if spec.isolation == "fork":
            event(_log, "isolation", study=spec.name, isolation="spawn", reason=names)
        else:
            reason = f"{names}: without effect on what the worker has imported; write isolation = spawn"
            event(_log, "import_settings", level=logging.WARNING, study=spec.name, reason=reason)

    def _compare(self, spec: StudySpec, code: Code) -> None:
        """Logs once for each study and each pair of digests that other code runs here than was submitted."""
        pair = (spec.name, spec.code, code.digest)
        if None in pair or spec.code == code.digest or pair in self._compared:
            return
        self._compared.add(pair)
        digests = {"submitted": str(spec.code)[:12], "here": str(code.digest)[:12]}
        event(_log, "code_differs", level=logging.WARNING, study=spec.name, objective=spec.objective, **digests)
