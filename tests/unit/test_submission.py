"""What is copied beside the source of a script that is submitted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from highnoon import submission
from highnoon.shared.domain.errors import InvalidInput

SOURCE = "import with_words, of_python_two, in_package\ndef objective(params):\n    return with_words, of_python_two\n"


@pytest.fixture
def objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function of a script that imports modules of its folder."""

    def objective(params: dict[str, Any]) -> float:
        return 0.0

    objective.__module__ = "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "objective", objective, raising=False)
    monkeypatch.setattr(submission, "_source_of_main", lambda: (SOURCE + "in_package\n", tmp_path / "run.py"))
    monkeypatch.setattr(submission, "source_needed_by", lambda name, source, where: source)
    (tmp_path / "in_package").mkdir()
    (tmp_path / "with_words.py").write_bytes("# coding: latin-1\nimport imported_by_it\nWORD = 'ä'\n".encode("latin-1"))
    (tmp_path / "imported_by_it.py").write_text("")
    (tmp_path / "of_python_two.py").write_text("print 'two'\n")
    (tmp_path / "in_package" / "__init__.py").write_text("")
    (tmp_path / "in_package" / "broken.py").write_bytes(b"\xff\xfe\0")
    (tmp_path / "in_package" / "weights.bin").write_bytes(b"x" * 5_000)
    (tmp_path / "in_package" / "to_nothing.py").symlink_to(tmp_path / "gone.py")
    os.mkfifo(tmp_path / "in_package" / "pipe")
    monkeypatch.syspath_prepend(tmp_path)
    return objective


def test_a_neighbour_that_is_no_python_of_now_does_not_end_the_submission(objective: Callable[..., Any]) -> None:
    with submission._code_of(objective, 10_000) as code:
        assert code.bundled is not None
        copied = {str(path.relative_to(code.bundled)) for path in code.bundled.rglob("*") if path.is_file()}
    package = {f"in_package/{name}" for name in ("__init__.py", "broken.py", "weights.bin")}
    assert copied == {"run.py", "with_words.py", "imported_by_it.py", "of_python_two.py", *package}


def test_copying_ends_at_the_limit_of_a_bundle(objective: Callable[..., Any]) -> None:
    with (
        pytest.raises(InvalidInput, match=r"more than 4,000 bytes, .*weights\.bin with them.*BUNDLE_LIMIT_BYTES"),
        submission._code_of(objective, 4_000),
    ):
        pytest.fail("a bundle was made")
