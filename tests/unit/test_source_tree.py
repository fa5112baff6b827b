"""Which files are code, and when two trees are the same."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from highnoon.shared.domain.objective_ref import ObjectiveRef
from highnoon.shared.objective import source_tree
from highnoon.shared.objective.source_tree import CodeDigests, files_below, root_of


def tree(root: Path, **files: str) -> Path:
    """Files by name, `lib/model.py` and the like."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return tree(tmp_path / "code", **{"train.py": "import lib", "lib/model.py": "1", "readme": "text"})


def test_the_same_code_has_the_same_digest_wherever_it_lies(code: Path, tmp_path: Path) -> None:
    other = tree(tmp_path / "other", **{"lib/model.py": "1", "train.py": "import lib", "another": "text"})
    assert CodeDigests().of(code) == CodeDigests().of(other) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda code: (code / "lib" / "model.py").write_text("2"),
        lambda code: (code / "lib" / "model.py").rename(code / "lib" / "models.py"),
        lambda code: (code / "new.py").write_text(""),
        lambda code: (code / "train.py").unlink(),
    ],
    ids=["content", "name", "more", "less"],
)
def test_every_change_of_code_changes_it(code: Path, change: object) -> None:
    digests = CodeDigests()
    before = digests.of(code)
    change(code)  # type: ignore[operator]
    assert digests.of(code) != before


def test_caches_hidden_files_and_what_is_ignored_are_no_code(code: Path) -> None:
    before = CodeDigests().of(code)
    no_code = (".git/x.py", ".venv/y.py", "lib/__pycache__/z.py", "data/big.py", "old_1.py")
    tree(code, **dict.fromkeys(no_code, "1"), **{".highnoonignore": "# not run\ndata/\nold*\n"})
    assert CodeDigests().of(code) == before
    assert [file.name for file in files_below(code)][-2:] == ["readme", "train.py"]


def test_a_file_is_read_again_only_when_it_has_changed(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = CodeDigests()
    before = digests.of(code)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda _: pytest.fail("read again"))
        assert digests.of(code) == before
    (code / "train.py").write_text("import bil")
    os.utime(code / "train.py", ns=(1, 1))
    assert digests.of(code) != before


def test_a_look_at_a_known_tree_costs_little(code: Path) -> None:
    for number in range(50):
        (code / f"m{number}.py").write_text(f"{number}")
    digests = CodeDigests()
    digests.of(code)
    fastest = min(_seconds(digests, code) for _ in range(20))
    assert fastest < 0.01, "ten times what it takes, for a busy machine"


def _seconds(digests: CodeDigests, code: Path) -> float:
    began = time.perf_counter()
    digests.of(code)
    return time.perf_counter() - began


def test_what_is_too_large_to_be_code_has_no_digest(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_tree, "MOST_BYTES", 5)
    assert CodeDigests().of(code) is None
    monkeypatch.undo()
    monkeypatch.setattr(source_tree, "MOST_ENTRIES", 2)
    assert CodeDigests().of(code) is None
    assert CodeDigests().of(code / "nowhere") is None


def test_a_folder_that_contains_itself_ends(code: Path) -> None:
    (code / "loop").symlink_to(code)
    assert CodeDigests().of(code) is not None


def test_what_the_code_of_an_objective_is(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(code, **dict.fromkeys(("pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/train.py"), ""))

    def root(objective: str, code_dir: Path | None) -> Path | None:
        return root_of(ObjectiveRef.parse(objective), code_dir)

    assert root("train.py:f", code) == code
    assert root("lib/model.py:f", code) == code
    assert root(f"{code}/train.py:f", None) == code
    assert root("../train.py:f", code / "lib") == code
    assert root("train:f", code) == code
    assert root("pkg.sub.train:f", code) == root("pkg.sub:f", code) == root("pkg:f", code) == code / "pkg"
    assert root("nowhere.py:f", code) is root("nowhere:f", code) is root("sys:f", None) is None
    monkeypatch.setattr(sys, "path", [*sys.path, str(code)])
    assert root("train:f", None) == code / "train.py", "beside an installed module lies everybody's code"
