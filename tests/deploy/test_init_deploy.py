"""`init-deploy`: every secret once, for its owner alone, and a clear word for what cannot be."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from highnoon.coordinator.local.deployment import PASSWORDS, REDIS_ACCOUNTS, REDIS_ACL
from tests.command import Answer, caller


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return caller(monkeypatch, capsys)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").touch()
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((folder / "secrets").iterdir())}


def test_it_makes_each_secret_once_and_for_its_owner_alone(folder: Path, call: Callable[..., Answer]) -> None:
    first = call("init-deploy", str(folder))
    made = contents(folder)
    assert first.code == 0
    assert set(made) == {*PASSWORDS, REDIS_ACL}
    assert len(set(made.values())) == len(made), "no two services share a password"
    assert all(len(made[name]) >= 32 for name in PASSWORDS)
    # Not even a newline: the Prometheus operator copies a Secret as it is into a header.
    assert all(re.fullmatch(r"[\w-]+", made[name]) for name in PASSWORDS)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder / "secrets").iterdir()}
    assert modes == {0o600}
    assert not any(secret.strip() in first.out for secret in made.values()), "a secret was printed"

    (folder / "secrets" / "webui_token").unlink()
    second = call("init-deploy", str(folder))
    again = contents(folder)
    assert second.out.count("made ") == 1
    assert {name for name in made if made[name] != again[name]} == {"webui_token"}


def test_environment_file_without_the_user_is_completed_and_keeps_what_it_has(
    folder: Path, call: Callable[..., Answer]
) -> None:
    (folder / ".env").write_text("# ours\nPROJECT=examples/mine\nHIGHNOON_UID=\nexport HIGHNOON_GID=7")
    first = call("init-deploy", str(folder))
    uid = (folder / "secrets").stat().st_uid
    completed = f"# ours\nPROJECT=examples/mine\nHIGHNOON_UID=\nexport HIGHNOON_GID=7\nHIGHNOON_UID={uid}\n"
    assert (folder / ".env").read_text() == completed, "an empty value is as good as none; the last one counts"
    assert f"added HIGHNOON_UID to {folder / '.env'}" in " ".join(first.out.split())
    assert first.out.splitlines()[-1] == f"{folder / 'secrets'}: complete"

    second = call("init-deploy", str(folder))
    assert (folder / ".env").read_text() == completed
    assert "added" not in second.out and "made" not in second.out


def test_environment_file_may_name_the_user_in_each_form_that_compose_reads(
    folder: Path, call: Callable[..., Answer]
) -> None:
    written = "HIGHNOON_UID: 1000\nHIGHNOON_GID = 1000\n"
    (folder / ".env").write_text(written)
    assert "added" not in call("init-deploy", str(folder)).out
    assert (folder / ".env").read_text() == written


def test_redis_gets_hashes_and_no_default_user(folder: Path, call: Callable[..., Answer]) -> None:
    call("init-deploy", str(folder))
    made = contents(folder)
    first, *users = made[REDIS_ACL].splitlines()
    assert first.startswith("user default off")
    for user, file in zip(users, REDIS_ACCOUNTS.values(), strict=True):
        assert f"#{hashlib.sha256(made[file].strip().encode()).hexdigest()} " in user
        assert made[file].strip() not in user
        assert "+@all" not in user and "nopass" not in user


def test_rights_that_do_not_fit_the_passwords_are_refused(folder: Path, call: Callable[..., Answer]) -> None:
    call("init-deploy", str(folder))
    (folder / "secrets" / "redis_worker").write_text("another\n")
    answer = call("init-deploy", str(folder))
    assert answer.code == 2
    assert "Remove it and run init-deploy again" in " ".join(answer.err.split())


def test_a_folder_without_a_compose_file_is_refused(tmp_path: Path, call: Callable[..., Answer]) -> None:
    answer = call("init-deploy", str(tmp_path))
    assert answer.code == 2
    assert "has no compose.yaml" in answer.err
    assert not (tmp_path / "secrets").exists()
