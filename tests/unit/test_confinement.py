"""What a node makes of HIGHNOON_CONFINE_TRIALS, and which files are left out. Nothing is confined here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from highnoon.shared.domain.errors import InvalidInput
from highnoon.shared.runtime.settings import load_settings
from highnoon.workers import node_confinement
from highnoon.workers.node_confinement import confinement_of
from highnoon.workers.trial.confinement import Confinement, _without

ADDRESSES = {
    "HIGHNOON_DATABASE_URL": "postgresql://u:p@db.example/h",
    "HIGHNOON_REDIS_URL": "redis://queue.example:6390/0",
}


@pytest.fixture(autouse=True)
def _kernel_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_confinement, "missing", tuple)
    monkeypatch.setattr(node_confinement, "landlock_version", lambda: 7)


def made(tmp_path: Path, mode: str, environ: dict[str, str] | None = None, **variables: str) -> Confinement | None:
    variables |= {"HIGHNOON_CONFINE_TRIALS": mode, "HIGHNOON_HOME": str(tmp_path / "home")}
    return confinement_of(load_settings(ADDRESSES | variables), environ or {})


def test_trials_are_not_confined_by_default(tmp_path: Path) -> None:
    assert confinement_of(load_settings(ADDRESSES), {}) is None


def test_home_and_files_with_secrets_are_left_out(tmp_path: Path) -> None:
    secret = str(tmp_path / "token")
    confinement = made(
        tmp_path, "auto", {"HIGHNOON_METRICS_TOKEN_FILE": secret}, HIGHNOON_TRIAL_PATHS=f"{tmp_path}, /usr"
    )
    assert confinement == Confinement(
        paths=(str(tmp_path), "/usr"), ports=(80, 443), denied=(str(tmp_path / "home"), secret)
    )
    assert Confinement.from_json(asdict(confinement)) == confinement


def test_mistakes_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        made(tmp_path, "require", HIGHNOON_TRIAL_PATHS="/no/such/folder", HIGHNOON_TRIAL_PORTS="443,5432,6390")
    text = str(refused.value)
    assert "HIGHNOON_TRIAL_PATHS: does not exist (got '/no/such/folder')" in text
    assert "HIGHNOON_TRIAL_PORTS: holds the port of database_url (got 5432)" in text
    assert "HIGHNOON_TRIAL_PORTS: holds the port of redis_url (got 6390)" in text


def test_kernel_that_lacks_something_is_refused_or_used_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node_confinement, "missing", lambda: ("connections (Linux 6.7 can)",))
    with pytest.raises(InvalidInput, match="cannot confine connections"):
        made(tmp_path, "require")
    assert made(tmp_path, "auto") is not None
    assert "action=confinement_incomplete" in caplog.text
    monkeypatch.setattr(node_confinement, "landlock_version", lambda: 0)
    assert made(tmp_path, "auto") is None


def test_unix_socket_of_the_database_is_refused_where_confinement_is_required(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="unix socket"):
        made(tmp_path, "require", HIGHNOON_DATABASE_URL="postgresql:///h?host=/run/postgresql")


def test_what_is_beside_a_denied_path_stays(tmp_path: Path) -> None:
    for name in ("data", "deploy/secrets", "home/runs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "deploy" / "compose.yaml").touch()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    root = str(tmp_path)
    denied = [f"{root}/home", f"{root}/deploy/secrets"]
    assert sorted(_without(root, denied)) == [f"{root}/data", f"{root}/deploy/compose.yaml"]
    assert [*_without(f"{root}/home/runs", denied)] == []
    assert [*_without(f"{root}/data", denied)] == [f"{root}/data"]
