"""Whatever is written into a study file, bundle, backup, pipe, token or session: an answer of ours, and no other."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from highnoon.shared.domain.errors import BundleRefused, InvalidInput
from highnoon.shared.domain.states import Ending
from highnoon.shared.domain.study import StudySpec
from highnoon.shared.domain.trial import Outcome
from highnoon.shared.objective.bundle import pack, unpack
from highnoon.shared.objective.study_file import build_spec, load_study_file
from highnoon.shared.objective.trial_events import WRONG_EVENT, count_of, outcome_of, report_of
from highnoon.shared.objective.trial_pipe import Pipe
from highnoon.shared.store.backup_file import BackupWriter, Header, decoded, rows, verified
from highnoon.shared.store.schema import attempts, studies, tickets
from highnoon.webui.sessions import Authenticator
from highnoon.webui.settings import Role, TokenHolder, Tokens, web_settings
from highnoon.workers.kernel import socket_pair
from tests.fuzz import bounded, damaged_bytes, damaged_table, json_values

STUDY: dict[str, Any] = {
    "name": "digits",
    "objective": "train.py:train",
    "direction": "minimize",
    "n_trials": 20,
    "seed": 7,
    "sampler": {"name": "tpe", "options": {"multivariate": True}},
    "pruner": {"name": "median", "options": {"n_startup_trials": 3}},
    "search_space": {
        "lr": ["log_uniform", 1e-4, 1e-1],
        "filters": ["int", 4, 24, 4],
        "dropout": ["uniform", 0.0, 0.5],
        "optimizer": ["categorical", ["adam", "sgd", None, 1, True]],
    },
    "resources": "cpu",
    "max_attempts": 3,
    "trial_timeout": 60.0,
    "target_value": 0.01,
    "trial_memory_limit": "2GB",
    "preload": ["numpy"],
}
TOML = b"""# A study.
name = "digits"
objective = "train.py:train"
n_trials = 20
sampler = "tpe"
[search_space]
lr = ["log_uniform", 1e-4, 1e-1]
units = ["int", 32, 128, 16]
optimizer = ["categorical", ["adam", "sgd"]]
"""
YAML = b"""name: digits
objective: train.py:train
n_trials: &n 20
seed: *n
sampler: {name: tpe, options: {multivariate: true}}
search_space:
  lr: [log_uniform, 1e-4, 1e-1]
  units: [int, 32, 128, 16]
  optimizer:
    - categorical
    - [adam, sgd]
"""
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n".encode()
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "train.py").write_text("def train(params): return 0.0\n")
    return folder


@bounded
@given(damaged_bytes(TOML) | st.binary(max_size=200))
@example(b"a = " + b"[" * 20_000)
@example(b'name = "' + b"x" * 100_000 + b'"')
def test_a_toml_file_is_a_study_or_has_mistakes(folder: Path, content: bytes) -> None:
    _load(folder / "study.toml", content)


@bounded
@given(damaged_bytes(YAML) | st.binary(max_size=200))
@example(BOMB)
@example(b"search_space: &s\n  x: *s\n")
@example(b"? [a, b]\n: 1\n")
@example(b"!!python/object/apply:os.system [id]")
@example(b"&a " * 5000 + b"1")
def test_a_yaml_file_is_a_study_or_has_mistakes(folder: Path, content: bytes) -> None:
    _load(folder / "study.yaml", content)


@bounded
@given(damaged_bytes(json.dumps(STUDY).encode()) | json_values.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"n_trials": ' + b"9" * 100_000 + b"}")
def test_a_json_file_is_a_study_or_has_mistakes(folder: Path, content: bytes) -> None:
    _load(folder / "study.json", content)


@bounded
@given(damaged_table(STUDY))
@example({**STUDY, "trial_memory_limit": "9" * 5000})
@example({**STUDY, "trial_memory_limit": ["9" * 5000 + " GB"]})
def test_a_table_is_a_study_that_is_read_again_or_has_mistakes(table: dict[str, Any]) -> None:
    try:
        spec = build_spec(table, source="study")
    except InvalidInput as invalid:
        assert len(str(invalid)) < 100_000
        return
    assert StudySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def _load(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        load_study_file(path)
    except InvalidInput as invalid:
        assert len(str(invalid)) < 100_000, "a message is for people"


_NAMES = st.text(max_size=30) | st.sampled_from(
    [
        "a",
        "a/b",
        "a/b/c",
        "../x",
        "/x",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        "",
        ".",
        "..",
        "x" * 300,
        "y/" * 2000 + "y",
        "a\0b",
    ]
)
_KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
     tarfile.CHRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z"]
)  # fmt: skip


@st.composite
def hostile_archives(draw: st.DrawFn) -> bytes:
    stream = io.BytesIO()
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]))
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for _ in range(draw(st.integers(1, 4))):
            member = tarfile.TarInfo(draw(_NAMES))
            member.type = draw(_KINDS) if draw(st.booleans()) else tarfile.REGTYPE
            member.linkname = draw(_NAMES)
            member.mode = draw(st.integers(0, 0o7777))
            content = draw(st.binary(max_size=40))
            member.size = len(content)
            if draw(st.booleans()):
                member.pax_headers = draw(
                    st.dictionaries(
                        st.sampled_from(
                            ["path", "size", "GNU.sparse.map", "GNU.sparse.size", "linkpath", "hdrcharset"]
                        ),
                        st.text(max_size=10)
                        | st.sampled_from(["../up", "/up", "-1", "99999999999", "0,1,5,1", "BINARY"]),
                        max_size=2,
                    )
                )
            with suppress(ValueError, UnicodeError, tarfile.TarError):
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@bounded
@given(hostile_archives())
def test_an_archive_is_unpacked_below_its_folder_or_refused(archive: bytes) -> None:
    _unpack(archive)


@bounded
@given(st.data())
def test_a_damaged_archive_is_unpacked_below_its_folder_or_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as source:
        for name in ("train.py", "data/words.txt"):
            path = Path(source, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text("x" * 100)
        archive = pack(Path(source), limit_bytes=10_000).archive
    _unpack(data.draw(damaged_bytes(archive) | st.binary(max_size=600)))


def _unpack(archive: bytes) -> None:
    with tempfile.TemporaryDirectory() as around:
        folder = Path(around) / "bundle"
        folder.mkdir()
        with suppress(BundleRefused):
            unpack(archive, folder, limit_bytes=100_000)
        assert list(Path(around).iterdir()) == [folder], "nothing is written beside it"
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 100_000
        assert not any(path.is_symlink() for path in folder.rglob("*"))


def _backup() -> bytes:
    stream = io.BytesIO()
    writer = BackupWriter(stream, Header(study="digits", ledger_version=5, made_at="now"))
    writer.row("hn_studies", {"spec": STUDY, "state": "running"})
    writer.row("hn_tickets", {"ordinal": 0, "trial": 0, "value": "inf"})
    writer.end()
    return stream.getvalue()


@bounded
@given(damaged_bytes(_backup()) | st.binary(max_size=300))
@example(_backup())
@example(b'{"highnoon_backup": 1, "x": ' + b"[" * 100_000)
def test_a_backup_is_whole_or_refused(folder: Path, content: bytes) -> None:
    path = folder / "backup.jsonl"
    path.write_bytes(content)
    with suppress(InvalidInput):
        verified(path)
        assert content == _backup()
        list(rows(path))


@bounded
@given(st.sampled_from([studies, tickets, attempts]), st.data())
def test_a_row_is_of_the_columns_types_or_refused(table: Any, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(table.columns.keys())) | st.text(max_size=5)
    row = data.draw(st.dictionaries(names, json_values, max_size=5))
    with suppress(ValueError):
        assert set(decoded(table, row)) == set(row) <= set(table.columns.keys())


OUTCOME = Outcome(ending=Ending.COMPLETED, value=0.5, loss=0.5, params_count=9, message="m", traceback="t").to_json()
LINES = [
    {"event": "hello", "version": 1},
    {"event": "params", "total": 1200, "active": None},
    {"event": "report", "step": 3, "value": 0.2},
    {"event": "ask", "id": 1, "question": "should_prune"},
    {"event": "result", "outcome": OUTCOME, "interrupted": False},
]
_READERS = {"report": report_of, "params": count_of, "result": outcome_of}
_pipe_lines = st.lists(
    st.sampled_from(LINES).flatmap(damaged_table) | json_values, min_size=1, max_size=5
).map(lambda lines: b"".join(json.dumps(line).encode() + b"\n" for line in lines))  # fmt: skip


@bounded
@given(
    _pipe_lines | damaged_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in LINES)) | st.binary(max_size=99)
)
def test_what_a_trial_writes_into_its_pipe_is_an_event_or_a_fault_of_its_own(content: bytes) -> None:
    ours, theirs = socket_pair()
    pipe = Pipe(ours)
    with ours, theirs:
        theirs.sendall(content[:60_000])
        theirs.shutdown(1)
        while not pipe.closed:
            for event in pipe.receive(1.0):
                assert isinstance(event["event"], str)
                with suppress(*WRONG_EVENT):
                    read = _READERS.get(event["event"], lambda _event: None)(event)
                    # As the supervisor stores and sends it
                    assert read is None or json.dumps(asdict(read), default=str)
                json.dumps(event.get("id"))


ANNA = TokenHolder(name="anna", role=Role.VIEWER, token="a" * 20)
AUTHENTICATOR = Authenticator(Tokens(holders=(ANNA,)))
SESSION = AUTHENTICATOR.new_session(ANNA)


@bounded
@given(damaged_bytes(SESSION.encode()).map(lambda text: text.decode("latin-1")) | st.text(max_size=40))
def test_no_other_session_than_ours_has_a_principal(session: str) -> None:
    assert AUTHENTICATOR.principal(session) is None or session == SESSION
    assert AUTHENTICATOR.holder_of(session) is None


@bounded
@given(st.text(max_size=60) | damaged_bytes(b"anna:operator:0123456789abcdef, ben:viewer:0123456789abcdeg").map(repr))
def test_tokens_are_read_or_refused_and_never_shown(tmp_path_factory: pytest.TempPathFactory, written: str) -> None:
    environ = {"HIGHNOON_WEBUI_TOKENS": written, "HIGHNOON_HOME": str(tmp_path_factory.getbasetemp())}
    try:
        tokens = web_settings(host="127.0.0.1", storage=None, environ=environ).tokens
    except InvalidInput as invalid:
        assert "0123456789abcde" not in str(invalid)
        return
    assert tokens is None or all(len(holder.token) >= 16 for holder in tokens.holders)
