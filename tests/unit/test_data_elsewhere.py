"""Root's PostgreSQL keeps its data where its account may go, and never in a folder that another user made first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from highnoon.coordinator.local import postgres_server
from highnoon.coordinator.local.owned_process import Account
from highnoon.coordinator.local.postgres_server import Postgres
from highnoon.shared.domain.errors import EmbeddedServiceError
from highnoon.shared.runtime.data_dir import Home


def test_database_of_a_removed_home_is_named_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a home that was removed, and its database, which is elsewhere
    (tmp_path / "first" / "highnoon" / "postgres").mkdir(parents=True)
    (tmp_path / "first" / "highnoon" / "postgres" / "PG_VERSION").write_text("18")
    home = Home(tmp_path / "home")
    home.prepare()
    home.postgres.symlink_to(tmp_path / "first" / "highnoon" / "postgres")

    # When a start finds it without its password, then it names the folder, not our link to it
    with pytest.raises(EmbeddedServiceError, match=f"move {tmp_path}/first/highnoon/postgres away"):
        Postgres(home)._check_password_is_known()


def test_files_of_trials_stay_closed_where_the_database_may_pass_through_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    (home.root / "runs").mkdir(mode=0o755)  # by an earlier version
    monkeypatch.setattr(Account, "reaches", lambda _self, _folder: True)
    Postgres(home)._place_data(Account(uid=65534, gid=65534))
    open_to_others = [path.name for path in home.root.iterdir() if path.is_dir() and path.stat().st_mode & 0o077]
    assert home.root.stat().st_mode & 0o777 == 0o701 and open_to_others == []


@pytest.mark.parametrize("trap", ["link", "folder of another user"])
def test_a_folder_that_another_user_made_first_is_not_used(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("home", "first", "second", "trap"):
        (tmp_path / name).mkdir(mode=0o755)
    home = Home(tmp_path / "home")
    monkeypatch.setattr(Account, "reaches", lambda _self, folder: folder.name in ("first", "second"))
    monkeypatch.setattr(postgres_server, "_ELSEWHERE", (tmp_path / "first", tmp_path / "second"))
    postgres = Postgres(home)
    account = Account(uid=65534, gid=65534)
    postgres._place_data(account)
    (used,) = (tmp_path / "first").iterdir()
    home.postgres.unlink()
    if trap == "link":
        used.rmdir()
        used.symlink_to(tmp_path / "trap")
    else:
        ours = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: ours + 1)

    if trap == "link":
        postgres._place_data(account)
        assert home.postgres.readlink().parent.parent == tmp_path / "second"
        assert not any((tmp_path / "trap").iterdir())
    else:
        with pytest.raises(Exception, match="may not enter"):
            monkeypatch.setattr(postgres_server.tempfile, "gettempdir", lambda: str(tmp_path / "first"))
            postgres._place_data(account)
        assert not home.postgres.is_symlink()
